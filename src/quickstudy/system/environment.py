"""Settings of the libraries beneath, made in one place before any of them is imported.

They are defaults: a variable that the user has set wins. Every process of the project starts here: the command line,
the flows and, by inheritance, the stages.
"""

import contextlib
import fcntl
import json
import os
import re
import stat
import tempfile
from pathlib import Path

from quickstudy.errors import QuickstudyError
from quickstudy.system import logins
from quickstudy.system.private import temporary_folder

CHAMPION = "models:/quickstudy@champion"
"""The model that is used where no other is named."""

UP = Path(".cache") / "up.json"
"""Where `quickstudy up` says what it serves, relative to the project."""

HOME = "QUICKSTUDY_HOME"
"""The variable that names the clone whose workspace this is (quickstudy.runs.workspaces)."""

UMASK = "QUICKSTUDY_UMASK"
"""The variable that says which rights new files do not get."""

PRIVATE = ("mlruns", ".prefect", ".cache", "build", "adapted")
"""Folders that the project makes."""

DEFAULTS = {
    # nothing is reported to anybody and nothing waits for an answer from the internet
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",  # the sentence encoder's weights are in the local cache or in an installed package
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # Prefect
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # a fresh database takes 30, the default is 20
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # by its absence an automation can tell that a run is dead
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",  # which its page would ask another server for
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "http://127.0.0.1",  # no page elsewhere; `quickstudy up` says its own
    # Connections beyond the first five. With ten, those that wait for SQLite's lock leave none to whom holds it,
    # and all of them wait until the minute is over.
    "PREFECT_SERVER_DATABASE_SQLALCHEMY_MAX_OVERFLOW": "100",
    # MLflow
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes and 0.5 GB instead of 10 and 2.4 GB
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a person waits for seconds; workers for minutes (cli/servers.py)
    "GIT_PYTHON_REFRESH": "quiet",  # MLflow looks for git by itself and complains where there is none
    # torch
    "TOKENIZERS_PARALLELISM": "false",  # no warning when a process forks after tokenising
    "MPLBACKEND": "Agg",  # figures go to files
    # Threads of torch that wait for each other spin a moment and then sleep. A training step on two cores, idle or
    # shared with two programs: 284 / 713 ms so; spinning on (the default) 289 / 2712; sleeping at once 354 / 547.
    "GOMP_SPINCOUNT": "10000",
}

# glibc reads these when a process starts, so that they help the stages, which are children. With its own thresholds it
# gives every array back to the kernel and fetches it again: up to 41% of the time of a training step.
MALLOC = {
    "MALLOC_TRIM_THRESHOLD_": str(4 * 2**30),
    "MALLOC_MMAP_THRESHOLD_": str(4 * 2**30),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
}
LARGEST_MMAP_THRESHOLD_BEFORE_GLIBC_2_36 = str(32 * 2**20)  # more was refused, which left a worse one


def apply_environment(root: Path | None = None) -> None:
    """Set the defaults in ``os.environ``; call it before prefect, mlflow, dvc, torch or matplotlib are imported.

    Args:
        root: the project; by default the one around the current folder. Outside a project Prefect keeps its own home.

    Raises:
        QuickstudyError: a password is none, or others may read the project's own (quickstudy.system.logins).
    """
    for name, value in {**DEFAULTS, **_malloc()}.items():
        os.environ.setdefault(name, value)
    _own_temporary_folder()
    root = root or _project_around(Path.cwd())
    served = {}
    if root is not None:
        os.environ.setdefault("PREFECT_HOME", str(root.resolve() / ".prefect"))
        served = serving(root) or {}
        if "PREFECT_API_URL" not in os.environ and served:
            os.environ["PREFECT_API_URL"] = served["prefect"]
    logins.apply(root, served)


def keep_private() -> None:
    """Make what this process and its children write from now on nobody else's to read: store, logs, patches, models.

    In a folder whose group may write, as a team shares it, the group may read on. QUICKSTUDY_UMASK=022 says otherwise.
    What other programs and earlier versions have written there is closed with its folder. Call it once, where a process
    begins.

    Raises:
        QuickstudyError: QUICKSTUDY_UMASK is no such number.
    """
    root = _project_around(Path.cwd())
    clone = os.environ.get(HOME)
    folders = [folder for folder in (root, Path(clone) if clone else None) if folder is not None and folder.is_dir()]
    shared = any(folder.stat().st_mode & stat.S_IWGRP for folder in folders)
    wanted = os.environ.get(UMASK) or ("007" if shared else "077")
    if not re.fullmatch(r"[0-7]{3,4}", wanted):
        raise QuickstudyError(f"{wanted!r} is no umask", where=UMASK, fix="Say 077, 027 or 022")
    mask = int(wanted, 8)
    before = os.umask(mask)
    if UMASK not in os.environ:
        os.umask(mask | before)
        mask |= before
    for folder in (root / name for name in PRIVATE) if root is not None else ():
        with contextlib.suppress(OSError):  # not there, another's, or on a disk that is only read
            found = folder.stat()
            if found.st_uid == os.getuid() and found.st_mode & mask:
                folder.chmod(stat.S_IMODE(found.st_mode) & ~mask)


def _own_temporary_folder() -> None:
    """MLflow keeps a lock, Prefect the code of runs and torch what it compiles in the temporary folder, under names
    that everybody on the machine can know: let that be one which nobody else can write to."""
    if (own := temporary_folder()) is not None:
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)


def serving(root: Path) -> dict[str, str] | None:
    """Return the addresses of the servers that `quickstudy up` runs for this project now, "prefect" and "mlflow", and
    under "login" which of them ask for the project's own password; None where it does not run.

    It holds a lock on the file for as long as it lives, so that what a killed one has left is not believed. Whoever
    asks takes a shared one, which filelock has not, so that two that ask at once do not see each other.
    """
    try:
        with (root / UP).open("r") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return dict(json.load(file))
    except (OSError, ValueError):
        pass
    return None


def find_project(start: Path | None = None) -> Path:
    """Return the root of the project around a folder: the nearest one upwards that holds dvc.yaml and params.yaml.

    Raises:
        QuickstudyError: there is none.
    """
    start = (start or Path.cwd()).resolve()
    root = _project_around(start)
    if root is None:
        raise QuickstudyError(
            "no dvc.yaml and params.yaml here or in a folder above",
            where=start,
            fix="Run the command in the project's folder",
        )
    return root


def _malloc() -> dict[str, str]:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION") or ""  # "glibc 2.36"
        major, minor = (int(part) for part in version.split()[1].split(".")[:2])
    except (AttributeError, ValueError, OSError, IndexError):
        return {}  # another C library
    if (major, minor) < (2, 36):
        return {**MALLOC, "MALLOC_MMAP_THRESHOLD_": LARGEST_MMAP_THRESHOLD_BEFORE_GLIBC_2_36}
    return MALLOC


def _project_around(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file() and (folder / "params.yaml").is_file():
            return folder
    return None
