"""What was recorded of the making of a model: its run, and the files beside it."""

import hashlib
import json
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.registry import models, store
from quickstudy.registry.store import FILES, KEY, NAME, NOT_DELETED


@dataclass(frozen=True)
class Recorded:
    """The run that a model was registered from."""

    run_id: str
    version: int | None
    """None: the run has no version"""
    aliases: tuple[str, ...]
    created: str
    """UTC, ISO 8601: when the run began"""
    tags: Mapping[str, str]
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    place: str
    """Where MLflow keeps the files beside the run."""

    @property
    def uri(self) -> str:
        return f"runs:/{self.run_id}" if self.version is None else f"models:/{NAME}/{self.version}"

    @property
    def model(self) -> str:
        """Its model, as `resolve` takes it."""
        return f"runs:/{self.run_id}/model" if self.version is None else self.uri


def recorded(root: Path, uri: str) -> Recorded:
    """Return what MLflow knows of the making of a model. Change nothing.

    Args:
        uri: a version's number, an alias, ``models:/quickstudy/3``, ``models:/quickstudy@champion``, ``runs:/RUN`` or
            ``runs:/RUN/model``.

    Raises:
        QuickstudyError: there is none, its run was deleted, or the run holds no model.
    """
    match = re.fullmatch(r"runs:/+(\w+)(/model)?/?", uri)
    if match is None:
        if uri.startswith("runs:"):
            raise QuickstudyError("names no run", where=uri, fix="Say runs:/ID; `quickstudy ui` shows the runs")
        asked = models.version(root, uri)
        found = _run(root, asked.run_id, asked.number, asked.aliases)
        if found is None:
            raise _deleted(asked.run_id, asked.uri)
        return found
    number = _version_of_run(root, match[1])
    version = None if number is None else models.version(root, str(number))
    found = _run(root, match[1], number, version.aliases if version else ())
    if found is None:
        raise QuickstudyError("there is no such run", where=uri, fix=f"Known models: {models.known(root)}")
    if version is not None and version.run_id != found.run_id:
        raise QuickstudyError(
            "it holds an evaluation of a model that another run has trained", where=uri, fix=f"Take {version.uri}"
        )
    if version is None and FILES not in found.tags:
        raise QuickstudyError("it holds no model", where=uri, fix=f"Known models: {models.known(root)}")
    return found


def artifact(root: Path, record: Recorded, name: str) -> Path | None:
    """Return a file beside a run; None where there is none. What MLflow keeps elsewhere goes into ``.cache/runs``.

    Raises:
        QuickstudyError: MLflow cannot give it.
    """
    where = urllib.parse.urlparse(record.place)
    if where.scheme == "file":
        path = Path(urllib.parse.unquote(where.path)) / name
        return path if path.is_file() else None
    folder = root / ".cache" / "runs" / hashlib.sha256(record.place.encode()).hexdigest()[:16]
    from mlflow.exceptions import MlflowException

    client = store.client(root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = str(Path(name).parent) if "/" in name else None
        if name not in {found.path for found in client.list_artifacts(record.run_id, beside)}:
            return None
        return Path(client.download_artifacts(record.run_id, name, str(folder)))
    except (MlflowException, OSError) as error:
        raise QuickstudyError(
            f"MLflow cannot give {name} ({str(error).splitlines()[0]})", where=f"runs:/{record.run_id}"
        ) from None


def json_artifact(root: Path, record: Recorded, name: str) -> dict[str, Any]:
    """Return what a JSON file beside a run holds; nothing where there is none, or none that can be read."""
    path = artifact(root, record, name)
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def counted(root: Path, record: Recorded, origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the stages tasks have counted in each dataset, of every kind: tasks/KIND/tasks.json, and of before
    there were kinds tasks/tasks.json.

    Args:
        origin: lineage.json, whose ``stages`` name the outputs.
    """
    of_kinds = [path for path in origin.get("stages", {}) if re.fullmatch(r"build/tasks/[^/]+/tasks\.json", path)]
    names = ["tasks/tasks.json", *(path.removeprefix("build/") for path in of_kinds)]
    return {dataset: of for name in names for dataset, of in json_artifact(root, record, name).items()}


def _run(root: Path, run_id: str, version: int | None, aliases: tuple[str, ...]) -> Recorded | None:
    if store.is_local(root):
        rows = store.query(
            root, "SELECT start_time, artifact_uri, lifecycle_stage FROM runs WHERE run_uuid = ?", run_id
        )
        if not rows:
            return None
        started, place, stage = rows[0]
        place = store.path_of(root, place).as_uri()
        if stage != "active":
            raise _deleted(run_id, f"runs:/{run_id}")
        tags, parameters = (
            dict(store.query(root, f"SELECT key, value FROM {table} WHERE run_uuid = ?", run_id))
            for table in ("tags", "params")
        )
        sql = "SELECT key, value FROM latest_metrics WHERE run_uuid = ? AND NOT is_nan"
        metrics = dict(store.query(root, sql, run_id))
    else:
        from mlflow.exceptions import MlflowException

        try:
            run = store.client(root).get_run(run_id)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return None
        if run.info.lifecycle_stage != "active":
            raise _deleted(run_id, f"runs:/{run_id}")
        started, place = run.info.start_time, run.info.artifact_uri
        tags, parameters, metrics = run.data.tags, run.data.params, run.data.metrics
    when = datetime.fromtimestamp(started / 1000, UTC).isoformat(timespec="seconds")
    return Recorded(run_id, version, aliases, when, tags, parameters, metrics, place)


def _version_of_run(root: Path, run_id: str) -> int | None:
    """Return the version of the model that a run holds or has judged."""
    if store.is_local(root):
        rows = store.query(
            root,
            "SELECT v.version FROM model_versions v JOIN model_version_tags k"
            f" ON k.name = v.name AND k.version = v.version AND k.key = '{KEY}'"
            f" JOIN tags r ON r.key = '{KEY}' AND r.value = k.value"
            f" WHERE v.name = ? AND r.run_uuid = ? AND {NOT_DELETED} ORDER BY v.version",
            NAME,
            run_id,
        )
        return int(rows[0][0]) if rows else None
    from mlflow.exceptions import MlflowException

    client = store.client(root)
    try:
        key = client.get_run(run_id).data.tags.get(KEY)
    except MlflowException:
        return None
    found = client.search_model_versions(f"name = '{NAME}' and tags.{KEY} = '{key}'") if key else []
    return min((int(version.version) for version in found), default=None)


def _deleted(run_id: str, where: str) -> QuickstudyError:
    return QuickstudyError(
        f"its run {run_id} was deleted",
        where=where,
        fix=f"Restore it (mlflow runs restore --run-id {run_id}), or take another version",
    )
