"""MLflow's server behind a password and the guard.

    python -m quickstudy.registry.guarded --host 127.0.0.1 --port 5000     # for `quickstudy up` and `quickstudy ui`

MLflow's own password (`mlflow server --app-name basic-auth`) keeps its users in a database of its own and hashes the
password at every request; besides, it lets any page of this machine's ask, whoever serves it. So its application stands
behind quickstudy.system.guard, which knows the one user of this project and its own page. MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD are what it asks for, as they are what MLflow's clients give.

What `mlflow server` does is done here: its own command line has no place for another application but an entry point.
"""

import argparse
import os
import sys

from quickstudy.system import logins
from quickstudy.system.guard import LOOPBACK, Guard, hosts_of

DESTINATION = "MLFLOW_ARTIFACTS_DESTINATION"

STORE = "MLFLOW_BACKEND_STORE_URI"


def create_app(host: str) -> Guard:
    """Return MLflow's application behind the guard.

    Args:
        host: what the server listens on.

    Raises:
        SystemExit: no password is set.
    """
    user, password = (os.environ.get(name) for name in logins.MLFLOW)
    if not (user and password):
        raise SystemExit(f"MLflow's server would need no password: set {' and '.join(logins.MLFLOW)}")
    from mlflow.environment_variables import _MLFLOW_SGI_NAME
    from mlflow.server import constants

    store = os.environ[STORE]
    os.environ |= {
        constants.BACKEND_STORE_URI_ENV_VAR: store,
        constants.REGISTRY_STORE_URI_ENV_VAR: store,
        constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        constants.ARTIFACTS_DESTINATION_ENV_VAR: os.environ[DESTINATION],
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        _MLFLOW_SGI_NAME.name: "uvicorn",
    }
    os.environ.setdefault("MLFLOW_SERVER_ALLOWED_HOSTS", "*")  # the guard is the stricter one, and comes first
    # The server's own password is no client's of another one, should its code ever ask one.
    for name in (*logins.MLFLOW, "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(store, store, "mlflow-artifacts:/")
    return Guard(app, hosts_of(host), f"{user}:{password}", lambda scope: scope["path"] != "/health")


def main() -> int:
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default=LOOPBACK[0])
    parser.add_argument("--port", type=int, default=5000)
    asked = parser.parse_args()
    uvicorn.run(create_app(asked.host), host=asked.host, port=asked.port, log_level="warning")
    return 0


if __name__ == "__main__":
    sys.exit(main())
