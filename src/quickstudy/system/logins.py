"""The password of the servers that this project starts: Prefect's and MLflow's.

Whoever reaches Prefect's server starts what it knows, hence runs code as its user: any page in a browser, any other
user of the machine. So no server of ours answers without a password. One that the user sets wins:

    QUICKSTUDY_LOGIN=user:password                            of all servers that a command starts or asks
    PREFECT_SERVER_API_AUTH_STRING, PREFECT_API_AUTH_STRING   of Prefect's
    MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD        of MLflow's

Else the project has one of its own in `LOGIN`, for its user's eyes alone, which lasts until somebody deletes the file:
a worker elsewhere, or a browser, stays logged in when the servers start again. A run without a server has a temporary
one inside, with a password that ends with the run. Passwords go from process to process by the environment, never by
arguments, which every user of the machine can read.
"""

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from quickstudy.errors import QuickstudyError

LOGIN = Path(".prefect") / "login"
"""The file of the project's own password: one line, user:password."""

OWN = "QUICKSTUDY_LOGIN"

PREFECT = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")
"""The variables that Prefect's server and its clients read."""

MLFLOW = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
"""The variables that MLflow's clients read, and our server of it."""

TEMPORARY = "quickstudy-run:"
"""How the passwords of the servers inside of runs begin, by which they are told from those of people."""

USER = "quickstudy"


def find_or_make(root: Path) -> str:
    """Return the project's own user:password; the first time it is made.

    Raises:
        QuickstudyError: others may read or have written the file.
    """
    path = root / LOGIN
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if not path.exists():
        part = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{USER}:{secrets.token_urlsafe(32)}\n")
            with suppress(FileExistsError):  # another process was faster: its one counts
                os.link(part, path)
        finally:
            part.unlink()
    found = read(root)
    assert found is not None
    return found


def read(root: Path) -> str | None:
    """Return the project's own user:password, None where it has none.

    Raises:
        QuickstudyError: others may read or have written the file.
    """
    path = root / LOGIN
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise QuickstudyError(f"cannot be read ({error.strerror})", where=path, fix="Delete it") from None
    with os.fdopen(descriptor, encoding="utf-8") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise QuickstudyError(
                "others may have read this password, or written it",
                where=path,
                fix="Delete it: the next start makes one",
            )
        login = file.read().strip()
    return checked(login, str(path))


def checked(login: str, where: str) -> str:
    """Return what is user:password.

    Raises:
        QuickstudyError: it is not.
    """
    user, colon, password = login.partition(":")
    if not (user and colon and password and login.isprintable() and " " not in login):
        raise QuickstudyError("is not a user and a password", where=where, fix="Write user:password, without blanks")
    return login


def set_by_user(server: str, environment: Mapping[str, str]) -> str | None:
    """Return the user:password that the user has set for a server, "prefect" or "mlflow".

    Raises:
        QuickstudyError: it is none.
    """
    user, password = (environment.get(name) for name in MLFLOW)
    mlflow = f"{user}:{password}" if user and password else None
    prefect = next((found for name in PREFECT if (found := environment.get(name)) and not is_temporary(found)), None)
    if own := environment.get(OWN):
        return checked(own, OWN)
    if server == "prefect":
        return prefect or mlflow
    whole = prefect and all(prefect.partition(":"))  # Prefect takes any text, MLflow's clients know a user
    return mlflow or (prefect if whole else None)


def is_temporary(login: str | None) -> bool:
    """Return whether this is the password of a server inside of a run."""
    return bool(login) and login.startswith(TEMPORARY)  # type: ignore[union-attr]


def of_prefect(login: str) -> dict[str, str]:
    """Return the environment of Prefect's server and its clients."""
    return dict.fromkeys(PREFECT, login)


def of_mlflow(login: str) -> dict[str, str]:
    """Return the environment of MLflow's server and its clients."""
    user, _, password = login.partition(":")
    return dict(zip(MLFLOW, (user, password), strict=True))


def apply(root: Path | None, served: Mapping[str, str]) -> None:
    """Fill in ``os.environ`` what the servers that it names ask for; what the user has set stays.

    Args:
        root: the project.
        served: the addresses of the servers that `quickstudy up` runs for it now, "prefect" and "mlflow", and under
            "login" which of them ask for the project's own password.
    """
    theirs = {name: os.environ.get(name) for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")}
    own = os.environ.get(OWN)
    own = own and checked(own, OWN)
    asking = served.get("login", "").split()
    if theirs["PREFECT_API_URL"]:
        login = own
        if not login and root and "prefect" in asking and _same(theirs["PREFECT_API_URL"], served["prefect"]):
            login = read(root)
        # That of a server inside of a run which has started this process is none of this server's, where one is known.
        if login and (not os.environ.get(PREFECT[1]) or is_temporary(os.environ[PREFECT[1]])):
            os.environ[PREFECT[1]] = login
    else:
        said = {name: value for name in PREFECT if (value := os.environ.get(name))}
        # What a run has made for its own server gives way to what somebody has set: both sides know the same.
        kept = {name: value for name, value in said.items() if not is_temporary(value)}
        login = next(iter((*kept.values(), *said.values())), own) or f"{TEMPORARY}{secrets.token_urlsafe(32)}"
        os.environ.update(dict.fromkeys(PREFECT, login) | kept)
    if theirs["MLFLOW_TRACKING_URI"] and not any(os.environ.get(name) for name in (*MLFLOW, "MLFLOW_TRACKING_TOKEN")):
        login = own
        if not login and root and "mlflow" in asking and _same(theirs["MLFLOW_TRACKING_URI"], served["mlflow"]):
            login = read(root)
        if login:
            os.environ.update(of_mlflow(login))


def _same(address: str, other: str) -> bool:
    return address.rstrip("/") == other.rstrip("/")
