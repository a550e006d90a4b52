"""Where MLflow's records are: the project's own database, or the server that the user has set."""

import contextlib
import os
import sqlite3
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from quickstudy.errors import QuickstudyError
from quickstudy.secrets import redacted


class Unreachable(QuickstudyError):
    """MLflow does not answer."""


NAME = "quickstudy"
"""Of the experiment and of the registered model."""

KEY = "model_key"

EVALUATION = "evaluation_key"

REGISTERED = "registered"

FILES = "model_files"
"""Of a run and its version: the sha256 of each file of the model, as JSON."""

MANIFEST = "model_manifest"
"""Of a run and its version: the sha256 of all that is stored of the model, its code too, as JSON."""

PATCH = "changes_patch"
"""Of a run and its version: the sha256 of changes.patch; ``withheld`` where a secret stood in it."""

WITHHELD = "withheld"

ALIASES = ("champion", "challenger", "previous")

# Every column of MLflow's schema that holds an absolute path.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)

# Of versions v: MLflow keeps the row of a version that was deleted.
NOT_DELETED = "v.current_stage != 'Deleted_Internal'"


def tracking_uri(root: Path) -> str:
    """Return where MLflow's records are: what the user has set, else the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_database(root)}"


def prepare(root: Path) -> None:
    """Make the store ready for whoever opens it next: it exists, and its records point to where the files are."""
    with locked(root):
        client(root)


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold the store of this clone for oneself; the next writer waits.

    Several processes that create the database at once crash, and two that register at once make two versions.
    """
    folder = root / "mlruns"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        yield


def is_local(root: Path) -> bool:
    """Return whether MLflow's records are in the project's own database."""
    return tracking_uri(root) == f"sqlite:///{_database(root)}"


def client(root: Path) -> Any:
    """Return an MlflowClient on a store that is ready: the experiment exists, a moved folder is repaired.

    Raises:
        Unreachable: it does not answer.
        QuickstudyError: it refuses the login.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = tracking_uri(root)
    if is_local(root):
        repair_moved(root)
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        if client.get_experiment_by_name(NAME) is None:
            client.create_experiment(NAME, _artifacts(root) if is_local(root) else None)
        return client
    except MlflowException as error:
        if not is_local(root) and error.get_http_status_code() in (401, 403):
            raise QuickstudyError(
                f"MLflow's server refuses the login ({error.get_http_status_code()})",
                where=redacted(uri),
                fix="Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
            ) from None
        raise Unreachable(
            f"MLflow's store does not answer ({str(error).splitlines()[0]})",
            where=redacted(uri),
            fix="Check MLFLOW_TRACKING_URI" if not is_local(root) else None,
        ) from None


@contextlib.contextmanager
def reachable(root: Path) -> Iterator[None]:
    """Raise what MLflow does where its server has gone meanwhile as `Unreachable`.

    Its client has tried again until then, as often as MLFLOW_HTTP_REQUEST_MAX_RETRIES says.
    """
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except MlflowException as error:
        if isinstance(error, RestException) or "API request to" not in str(error):
            raise
        raise Unreachable("MLflow's server does not answer", where=redacted(tracking_uri(root))) from None


def query(root: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Return rows of the project's own database; none where it does not exist yet.

    Read directly, because importing mlflow takes two seconds and these look-ups stand before every answer on the
    command line.
    """
    if not _database(root).exists():
        return []
    try:
        try:
            return _fetch(root, "ro", sql, values)
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):
                raise
            return _fetch(root, "rw", sql, values)  # one was killed while it wrote: only who may write can undo that
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):  # a process was killed while it created the database
            return []
        raise _unusable(root, error) from None


@contextlib.contextmanager
def using(uri: str) -> Iterator[None]:
    """Let MLflow's functions that know no client work on this store; leave the process as it was."""
    import mlflow

    # Both setters also write the environment, where `tracking_uri` looks for what the user has set.
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        mlflow.set_registry_uri(None)  # type: ignore[arg-type]
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _database(root: Path) -> Path:
    return root.resolve() / "mlruns" / "mlflow.db"


def _artifacts(root: Path) -> str:
    return (_database(root).parent / "artifacts").as_uri()


def _fetch(root: Path, mode: str, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    uri = f"{_database(root).as_uri()}?mode={mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        return connection.execute(sql, values).fetchall()


def path_of(root: Path, uri: str) -> Path:
    """Return where what the project's own store keeps lies now: the folder may have been moved or copied since, or be
    mounted at another place. Change nothing."""
    old, new = _recorded_place(root), _artifacts(root)
    if old is not None and (uri == old or uri.startswith(f"{old}/")):
        uri = new + uri[len(old) :]
    return _path(uri)


def repair_moved(root: Path) -> None:
    """Point the records of a project folder that was moved or copied to where their files are now, for MLflow's own
    client, which writes there. Where they still point to the same folder under another name, as where it is mounted
    twice, they are left as they are.

    Raises:
        QuickstudyError: the records cannot be changed.
    """
    old, new = _recorded_place(root), _artifacts(root)
    if old is None or old == new:
        return
    with contextlib.suppress(OSError):  # the old place is gone
        if _path(old).samefile(_path(new)):
            return
    try:
        with contextlib.closing(sqlite3.connect(_database(root), timeout=30)) as connection, connection:
            for table, column in _LOCATIONS:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                    f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                )
    except sqlite3.DatabaseError as error:
        raise _unusable(root, error) from None


def _recorded_place(root: Path) -> str | None:
    rows = query(root, "SELECT artifact_location FROM experiments WHERE name = ?", NAME)
    return str(rows[0][0]) if rows else None


def _path(uri: str) -> Path:
    return Path(urllib.parse.unquote(urllib.parse.urlparse(uri).path))


def _unusable(root: Path, error: sqlite3.DatabaseError) -> QuickstudyError:
    where = _database(root)
    if "locked" in str(error) or "busy" in str(error):
        return Unreachable(f"MLflow's database is busy ({error})", where=where, fix="Try again")
    if "readonly" in str(error) or "unable to open" in str(error):
        return QuickstudyError(f"cannot be used ({error})", where=where, fix="Check who may read and write it")
    return QuickstudyError(
        f"MLflow's database is damaged ({error})",
        where=where,
        fix="Restore it from a backup; the models' files in mlruns/artifacts are not touched",
    )


def model_in(folder: Path) -> Path:
    """Return where in a folder that was downloaded from MLflow the model is: it, or one in it."""
    return next(
        (path.parent for path in [folder / "MLmodel", *sorted(folder.glob("*/MLmodel"))] if path.exists()), folder
    )


def weights_of(folder: Path) -> list[Path]:
    """Return the weights of a model: of each part, ``KIND/model.safetensors``; of one of before there were kinds,
    ``model.safetensors``."""
    return sorted(folder.glob("*/model.safetensors")) or sorted(folder.glob("model.safetensors"))
