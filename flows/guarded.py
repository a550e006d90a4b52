"""Prefect's server, answering nobody but its own page and programs that know its password.

    python -m flows.guarded --host 127.0.0.1 --port 4200     # `prefect server start` behind the guard

Where no PREFECT_API_URL is set, Prefect starts a server beside each run; `guard_temporary_servers` has it start this
one. The password is Prefect's own setting (quickstudy.system.logins). The guard adds what Prefect has not: names and
pages (quickstudy.system.guard).
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from quickstudy.system import logins
from quickstudy.system.environment import DEFAULTS
from quickstudy.system.guard import LOOPBACK, Guard, Scope, hosts_of
from quickstudy.system.processes import GRACE

HOST = "QUICKSTUDY_PREFECT_HOST"
"""The variable that says what the server listens on."""

RUN = "QUICKSTUDY_RUN_PROCESS"
"""The variable that names the process inside of whose run the server is."""


def create_app() -> Guard:
    """Return Prefect's application behind the guard: what uvicorn serves.

    Raises:
        SystemExit: no password is set.
    """
    from prefect.server.api import server
    from prefect.settings import PREFECT_SERVER_API_BASE_PATH, get_current_settings

    auth = get_current_settings().server.api.auth_string
    if auth is None or not auth.get_secret_value():
        raise SystemExit(f"Prefect's server would need no password: set {logins.PREFECT[0]}")
    api = PREFECT_SERVER_API_BASE_PATH.value() or "/api"

    def asks(scope: Scope) -> bool:  # its pages hold nothing; a websocket gives the password in its first message
        path = scope["path"]
        return scope["type"] == "http" and path.startswith(api) and path not in (f"{api}/health", f"{api}/ready")

    if run := os.environ.get(RUN):
        _end_with(int(run))
    # Prefect's page asks the person itself.
    hosts = hosts_of(os.environ.get(HOST, LOOPBACK[0]))
    return Guard(server.create_app(), hosts, auth.get_secret_value(), asks, dialog=False)


def _end_with(run: int) -> None:
    """End this process when the run that has started it has, also by a kill."""

    def watch() -> None:
        while os.getppid() == run:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="run", daemon=True).start()


def guard_temporary_servers() -> None:
    """Let Prefect start `create_app` where it would start its own application in a process beside a run: there is no
    setting for that."""
    from prefect.server.api.server import SubprocessASGIServer

    SubprocessASGIServer._run_uvicorn_command = _start_temporary  # type: ignore[method-assign, assignment]


def _start_temporary(server: Any) -> "subprocess.Popen[bytes]":
    """What SubprocessASGIServer._run_uvicorn_command does, with another application."""
    from prefect.settings import get_current_settings

    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(Path(__file__).parents[1])]
    command += ["--factory", f"{__name__}:create_app", "--host", LOOPBACK[0], "--port", str(server.port)]
    command += ["--log-level", "error", "--lifespan", "on"]
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    return subprocess.Popen(command, env={**os.environ, **own, **settings, HOST: LOOPBACK[0], RUN: str(os.getpid())})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default=LOOPBACK[0])
    parser.add_argument("--port", type=int, default=4200)
    asked = parser.parse_args()
    if logins.is_temporary(os.environ[logins.PREFECT[0]]):  # nobody would know it
        print(f"quickstudy: {logins.PREFECT[0]}: is not set. Say user:password", file=sys.stderr)
        return 2
    os.environ |= {HOST: asked.host, "PREFECT__SERVER_FINAL": "1"}

    import uvicorn
    from prefect.settings import (
        PREFECT_SERVER_CORS_ALLOWED_ORIGINS,
        PREFECT_UI_API_URL,
        get_current_settings,
        temporary_settings,
    )

    names = [name if ":" not in name else f"[{name}]" for name in hosts_of(asked.host)]
    own = {
        PREFECT_SERVER_CORS_ALLOWED_ORIGINS: ",".join(f"http://{name}:{asked.port}" for name in names),
        PREFECT_UI_API_URL: "/api",  # where the page itself comes from, under whatever name and port that is reached
    }
    theirs = {setting for setting in own if os.environ.get(setting.name) != DEFAULTS.get(setting.name)}
    settings = get_current_settings().server
    with temporary_settings({setting: value for setting, value in own.items() if setting not in theirs}):
        uvicorn.run(
            create_app,
            factory=True,
            host=asked.host,
            port=asked.port,
            timeout_keep_alive=settings.api.keepalive_timeout,
            ws_ping_interval=settings.api.websocket_ping_interval,
            ws_ping_timeout=settings.api.websocket_ping_timeout,
            log_level=settings.logging_level.lower(),
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
