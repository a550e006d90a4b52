"""Versions of the model: which there are, where their files lie, whether those are what was registered."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.registry import lines, store
from quickstudy.registry.store import FILES, MANIFEST, NAME, NOT_DELETED, REGISTERED, weights_of
from quickstudy.system.digests import check_files, check_manifest, manifest_digest

_log = logging.getLogger(__name__)

OLDEST = "classify"
"""The kind of task that models of before there were kinds are for."""


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
    """Return which version each alias stands at, now. Change nothing."""
    if store.is_local(root):
        rows = store.query(root, "SELECT alias, version FROM registered_model_aliases WHERE name = ?", NAME)
        return {alias: int(version) for alias, version in rows}
    return aliases_of(store.client(root))


def aliases_of(client: Any) -> dict[str, int]:
    """Return what `aliases` does, of a client of MLflow's."""
    from mlflow.exceptions import MlflowException

    try:
        return {alias: int(number) for alias, number in client.get_registered_model(NAME).aliases.items()}
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return {}


def exists(root: Path, number: int) -> bool:
    """Return whether there is a version of this number, whether or not its run was deleted."""
    if store.is_local(root):
        sql = f"SELECT 1 FROM model_versions v WHERE v.name = ? AND v.version = ? AND {NOT_DELETED}"
        return bool(store.query(root, sql, NAME, number))
    from mlflow.exceptions import MlflowException

    try:
        store.client(root).get_model_version(NAME, str(number))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def version(root: Path, name: str) -> Version:
    """Return a version of the model, by its number or by an alias. Change nothing.

    Raises:
        QuickstudyError: there is none of this name, it was not registered to its end, or its run was deleted.
    """
    name = name.removeprefix(f"models:/{NAME}").lstrip("/@")
    number = name if name.isdecimal() else aliases(root).get(name)
    if number is None:
        known_ones = f"Known models: {known(root, folders=False)}"
        if name == "challenger":
            raise QuickstudyError("there is no challenger now", where=f"@{name}", fix=f"Name a version. {known_ones}")
        raise QuickstudyError("no version has this alias", where=f"@{name}", fix=known_ones)
    where = f"models:/{NAME}/{number}"
    found = _version_of_file(root, int(number)) if store.is_local(root) else _version_of_server(root, int(number))
    if found is None:
        known_ones = f"Known models: {known(root, folders=False)}"
        raise QuickstudyError("there is no such version", where=where, fix=known_ones)
    if isinstance(found, str):
        raise QuickstudyError(
            f"its run {found} was deleted",
            where=where,
            fix=f"Restore it (mlflow runs restore --run-id {found}), or take another version",
        )
    if REGISTERED not in found.tags:
        raise QuickstudyError("its registration was cut off", where=where, fix="Complete it: quickstudy run")
    return found


def resolve(uri: str, root: Path) -> Path:
    """Return the folder of a model on this machine.

    Args:
        uri: ``models:/quickstudy@champion``, ``models:/quickstudy/3``, ``runs:/RUN/model`` or a folder. What MLflow
            keeps elsewhere is downloaded into ``.cache/models``.

    Raises:
        QuickstudyError: there is no such model; says which there are. Or something of what is stored of it, its code
            too, is not what was registered.
    """
    if not re.match(r"(models|runs|mlflow-artifacts|https?|s3|gs|file):", uri):
        folder = Path(uri)
        if not weights_of(folder):
            raise QuickstudyError(
                "is no model folder (no model.safetensors)", where=uri, fix=f"Known models: {known(root)}"
            )
        return folder
    match = re.fullmatch(rf"models:/{NAME}(?:@(?P<alias>[\w.-]+)|/(?P<version>\d+))", uri)
    if match and store.is_local(root):
        found = _local_version(root, match["version"], match["alias"])
        if found is None:
            raise QuickstudyError("there is no such model", where=uri, fix=f"Known models: {known(root)}")
        return _verified(root, *found, uri)
    return _download(uri, root)


def known(root: Path, folders: bool = True) -> str:
    """Name some models that there are: all aliases, the newest versions and, among `folders`, the one just built."""
    aliases = store.query(root, "SELECT alias FROM registered_model_aliases WHERE name = ? ORDER BY alias", NAME)
    newest = store.query(
        root,
        f"SELECT v.version FROM model_versions v WHERE v.name = ? AND {NOT_DELETED} ORDER BY v.version DESC LIMIT 5",
        NAME,
    )
    found = [f"models:/{NAME}@{alias}" for (alias,) in aliases]
    found += [f"models:/{NAME}/{version}" for (version,) in newest]
    if folders and weights_of(root / "build/model"):
        found.append("build/model")
    return ", ".join(found) if found else "none yet; make one: quickstudy run"


def newest_with(root: Path, kind: str) -> int | None:
    """Return the newest version that has a part for a kind of task; None where there is none."""
    if store.is_local(root):
        rows = store.query(
            root,
            f"SELECT t.version, t.value FROM model_version_tags t JOIN model_versions v"
            f" ON v.name = t.name AND v.version = t.version WHERE t.name = ? AND t.key = '{FILES}' AND {NOT_DELETED}",
            NAME,
        )
        told = [(int(number), files) for number, files in rows]
    else:
        found = store.client(root).search_model_versions(f"name = '{NAME}'")
        told = [(int(one.version), one.tags.get(FILES, "{}")) for one in found]
    weights = {f"{kind}/model.safetensors", *(("model.safetensors",) if kind == OLDEST else ())}
    return max((number for number, files in told if weights & json.loads(files).keys()), default=None)


def _version_of_file(root: Path, number: int) -> Version | str | None:
    """Return a version of the project's own store; the id of its run where that was deleted; None where it does not
    exist."""
    rows = store.query(
        root,
        f"SELECT v.run_id, v.creation_time, r.lifecycle_stage FROM model_versions v"
        f" LEFT JOIN runs r ON r.run_uuid = v.run_id WHERE v.name = ? AND v.version = ? AND {NOT_DELETED}",
        NAME,
        number,
    )
    if not rows:
        return None
    run_id, created, stage = rows[0]
    if stage != "active":
        return str(run_id)
    tags = dict(
        store.query(root, "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", NAME, number)
    )
    metrics: dict[str, float] = {}
    for run in (run_id, tags.get("evaluation_run", run_id)):
        metrics |= dict(
            store.query(root, "SELECT key, value FROM latest_metrics WHERE run_uuid = ? AND NOT is_nan", run)
        )
    return Version(
        number,
        tuple(sorted(alias for alias, at in aliases(root).items() if at == number)),
        datetime.fromtimestamp(created / 1000, UTC).isoformat(timespec="seconds"),
        run_id,
        tags,
        dict(store.query(root, "SELECT key, value FROM params WHERE run_uuid = ?", run_id)),
        metrics,
    )


def _version_of_server(root: Path, number: int) -> Version | str | None:
    from mlflow.exceptions import MlflowException

    client = store.client(root)
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
        tuple(sorted(alias for alias, at in aliases_of(client).items() if at == number)),
        datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        found.run_id,
        found.tags,
        runs[0].data.params,
        {**runs[0].data.metrics, **runs[1].data.metrics},
    )


def _local_version(root: Path, version: str | None, alias: str | None) -> tuple[Path, dict[str, str], int] | None:
    """Return where a version's files are, its tags and its number."""
    if alias is not None:
        rows = store.query(
            root, "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?", NAME, alias
        )
        version = str(rows[0][0]) if rows else None
    rows = store.query(
        root,
        f"SELECT v.storage_location FROM model_versions v WHERE v.name = ? AND v.version = ? AND {NOT_DELETED}",
        NAME,
        version,
    )
    if version is None or not rows or not rows[0][0]:
        return None
    tags = store.query(root, "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ?", NAME, version)
    return store.path_of(root, rows[0][0]), dict(tags), int(version)


def _model_inside(artifacts: Path, uri: str) -> Path:
    """The model's folder inside what MLflow stored: data/NAME, as its loader gets it."""
    found = [folder for folder in sorted(artifacts.glob("data/*")) if weights_of(folder)]
    if not found:
        raise QuickstudyError(
            f"its files are not in {artifacts}", where=uri, fix="Restore mlruns/, or train: quickstudy run"
        )
    return found[0]


def _verified(root: Path, artifacts: Path, tags: Mapping[str, str], version: int | None, uri: str) -> Path:
    """Return the folder of a model, if all that is stored of it is what was registered. Versions of before there were
    digests, or digests of the code, are taken as they are.

    Args:
        tags: of the version or run. version: None: it is a run's.
    """
    folder = _model_inside(artifacts, uri)
    if files := tags.get(FILES):
        check_files(folder, json.loads(files), uri)
    manifest = json.loads(tags.get(MANIFEST, "null"))
    told = None if version is None else lines.evidence(root, version).get("manifest")
    if told is not None and (manifest is None or manifest_digest(manifest) != told):
        raise QuickstudyError(
            "what MLflow says of its files is not what the ledger says",
            where=uri,
            fix="Take another version, or restore MLflow's records from a backup: quickstudy history",
        )
    if manifest is not None:
        check_manifest(artifacts, manifest, uri)
    elif files:
        _log.warning("%s: only its data is checked, not its code: it was registered before that was recorded", uri)
    return folder


def _download(uri: str, root: Path) -> Path:
    from mlflow.exceptions import MlflowException

    store.client(root)
    import mlflow.artifacts

    try:
        with store.using(store.tracking_uri(root)):
            tags, version = _told_of(root, uri)
            # An alias moves: what is downloaded for another version must not lie under this one.
            which = hashlib.sha256(f"{store.tracking_uri(root)} {uri} {version}".encode()).hexdigest()[:16]
            folder = root / ".cache" / "models" / which
            folder.mkdir(parents=True, exist_ok=True)
            path = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
            return _verified(root, store.model_in(path), tags, version, uri)
    except (MlflowException, OSError) as error:
        raise QuickstudyError(
            f"MLflow cannot give this model ({str(error).splitlines()[0]})",
            where=uri,
            fix=f"Known models: {known(root)}",
        ) from None


def _told_of(root: Path, uri: str) -> tuple[Mapping[str, str], int | None]:
    """Return the tags that MLflow keeps of a version or a run, and the version's number."""
    client, found = store.client(root), None
    if match := re.fullmatch(rf"models:/{NAME}@([\w.-]+)", uri):
        found = client.get_model_version_by_alias(NAME, match[1])
    elif match := re.fullmatch(rf"models:/{NAME}/(\d+)", uri):
        found = client.get_model_version(NAME, match[1])
    elif match := re.fullmatch(r"runs:/(\w+)/model", uri):
        return client.get_run(match[1]).data.tags, None
    return ({}, None) if found is None else (found.tags, int(found.version))
