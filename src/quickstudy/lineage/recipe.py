"""What a registered model was made of, and a worktree to make it again in."""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.registry import lines
from quickstudy.registry.records import Recorded, artifact, counted, json_artifact, recorded
from quickstudy.registry.store import FILES, PATCH, WITHHELD
from quickstudy.secrets import redacted_values
from quickstudy.starter import STARTER
from quickstudy.system.digests import file_digests
from quickstudy.versions import dvc, git, lineage, stale, worktree
from quickstudy.versions.command import RemoteFailed

FOLDER = Path(".cache") / "reproduce"


MODEL = "build/model"


DataOrigin = Literal["DVC's cache", "the DVC remote", "built anew as starter data"]


@dataclass(frozen=True)
class Recipe:
    """What was recorded of a model, so that it can be built again."""

    record: Recorded
    lineage: Mapping[str, Any]
    commit: str
    patch: bytes | None
    unrecorded: str | None
    """sha256 of the patch where it is not the recorded one: a person must have read it"""
    patch_file: Path | None
    data: str
    """DVC's hash"""
    datasets: tuple[str, ...]
    params: Mapping[str, Any] | None
    """params.yaml; None where it was not kept beside the run"""
    lock: Mapping[str, Any]
    """the stages of dvc.lock; empty where it was not kept"""
    files: Mapping[str, str]
    """sha256 of each file of the model"""
    model: Path | None
    """its folder; None where the files are not those that were registered"""
    notes: tuple[str, ...]
    """what is not as it should be, and hinders nothing"""

    @property
    def uri(self) -> str:
        return self.record.uri

    @property
    def threads(self) -> int | None:
        """Threads of torch. Before they were recorded: those of the machine, which torch takes by default."""
        found = self.lineage.get("threads") or self.lineage.get("cpu_threads")
        return int(found) if found else None


def home(root: Path, recipe: Recipe) -> Path:
    """Return where the rebuild of a run lies."""
    return root / FOLDER / recipe.record.run_id


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold this clone for one rebuild. Worktrees that a killed one has left are removed first, this one's at the end.

    Raises:
        QuickstudyError: another one is at work.
    """
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / ".lock").acquire(blocking=False)
    except Timeout:
        raise QuickstudyError("another rebuild is at work here", where=root, fix="Wait until it ends") from None
    with lock:
        _sweep(root)
        try:
            yield
        finally:
            _sweep(root)


def _sweep(root: Path) -> None:
    for left in (root / FOLDER).glob("*/worktree"):
        worktree.remove_worktree(root, left)


def read(root: Path, uri: str) -> Recipe:
    """Gather what was recorded of a model. Changes nothing.

    Args:
        uri: of a version, an alias or a run; see `quickstudy.registry.records.recorded`.

    Raises:
        QuickstudyError: it cannot be rebuilt; says everything that is missing.
    """
    record = recorded(root, uri)
    obstacles: list[str] = []
    notes: list[str] = []
    origin = json_artifact(root, record, "lineage.json")
    if not origin:
        raise impossible(record, ["lineage.json is not beside its run, or is damaged"])
    for name in ("git_commit", "data_hash"):
        if (origin.get(name) or "") != record.tags.get(name, origin.get(name) or ""):
            obstacles.append(f"lineage.json beside its run says another {name} than the run itself")
    commit, data = origin.get("git_commit"), origin.get("data_hash")
    if not commit:
        obstacles.append("it was made in a repository without a commit")
    elif not git.is_commit(commit):
        obstacles.append("what was recorded as its commit is none")
    elif not git.has_commit(root, commit):
        obstacles.append(f"commit {commit[:10]} is not in this repository (fetch it, or clone the one that has it)")
    if not data:
        obstacles.append("no version of the data was recorded")
    elif not re.fullmatch(r"[0-9a-f]{32}(\.dir)?", data):
        obstacles.append("what was recorded as the version of its data is none")
    lock = _lock(root, record, origin, notes)
    evidence = {} if record.version is None else lines.evidence(root, record.version)
    if evidence.get("git_commit", commit) != commit:
        obstacles.append("the ledger says another git_commit than lineage.json beside its run")
    patch_file = _patch(root, record, origin, lock, obstacles, notes)
    patch = None if patch_file is None else patch_file.read_bytes()
    kept = artifact(root, record, "params.yaml")
    files, model = _files(root, record, obstacles, notes)
    if obstacles:
        raise impossible(record, obstacles)
    assert commit and data
    return Recipe(
        record=record,
        lineage=origin,
        commit=commit,
        patch=patch,
        unrecorded=_unrecorded(record, evidence, patch),
        patch_file=patch_file,
        data=data,
        datasets=tuple(counted(root, record, origin)),
        params=None if kept is None else yaml.safe_load(kept.read_text(encoding="utf-8")),
        lock=lock,
        files=files,
        model=model,
        notes=tuple(notes),
    )


def prepare(root: Path, recipe: Recipe) -> tuple[Path, DataOrigin]:
    """Make the worktree, and find out where the data can come from. The caller is `alone`.

    Returns:
        the project in the worktree; where its data comes from, which is not there yet.

    Raises:
        QuickstudyError: it cannot be rebuilt; says why.
    """
    folder = home(root, recipe) / "worktree"
    folder.parent.mkdir(parents=True, exist_ok=True)
    project = worktree.add_worktree(root, folder, recipe.commit)
    if recipe.patch is not None:
        git.apply_patch(folder, recipe.patch)
    obstacles = []
    if changed := _changed_params(recipe, project):
        obstacles.append(f"params.yaml of its commit is not what was recorded ({', '.join(changed)})")
    if not (project / "dvc.yaml").is_file():
        obstacles.append("its commit has no dvc.yaml")
    elif not needed(project):
        obstacles.append(f"no stage of its dvc.yaml makes {MODEL}")
    dvc.set_data(project, recipe.data)
    (project / "dvc.lock").unlink(missing_ok=True)  # nothing has run here yet
    data_from = _data_origin(root, project, recipe, obstacles)
    if obstacles or data_from is None:
        raise impossible(recipe.record, obstacles)
    return project, data_from


def needed(project: Path) -> tuple[stale.Stage, ...]:
    """Return the stages that lead to the model, in order."""
    stages = stale.stages(project)
    wanted = {stage.name for stage in stages if any(stale.overlap(out, MODEL) for out in stage.outs)}
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted |= set(stage.after)
    return tuple(stage for stage in stages if stage.name in wanted)


def impossible(record: Recorded, obstacles: Sequence[str]) -> QuickstudyError:
    """Return the line that says why a model cannot be rebuilt."""
    return QuickstudyError(f"cannot be rebuilt: {'; '.join(obstacles)}", where=record.uri)


def _lock(root: Path, record: Recorded, origin: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    path = artifact(root, record, "dvc.lock")
    if path is None:
        notes.append("dvc.lock was not kept, so that only outputs can be compared")
        return {}
    if lineage.file_hash(path) != origin.get("dvc_lock_hash"):
        notes.append("dvc.lock beside its run was changed since, and is not looked at")
        return {}
    return stale.locked(path)


def _patch(
    root: Path,
    record: Recorded,
    origin: Mapping[str, Any],
    lock: Mapping[str, Any],
    obstacles: list[str],
    notes: list[str],
) -> Path | None:
    """Return the recorded patch."""
    if not origin.get("git_dirty"):
        return None
    if record.tags.get(PATCH) == WITHHELD:
        obstacles.append("its working copy was changed, and that was not recorded, as a secret stood in it")
        return None
    path = artifact(root, record, "changes.patch")
    if path is None:
        names = ", ".join(origin.get("git_changed", []))
        obstacles.append(f"its working copy was changed and no patch was kept ({names})")
        return None
    touched = git.patched(path.read_bytes())
    # A folder that git does not track stands for all of its files. Names in it that are quoted are those of before.
    lost = [
        name
        for name in (*origin.get("git_changed", []), *origin.get("git_left_out", []))
        if not any(file == name or (name.endswith("/") and file.startswith(name)) for file in touched)
    ]
    read_by_stages = [str(dep["path"]) for stage in lock.values() for dep in stage.get("deps", [])]
    fatal = [name for name in lost if any(stale.overlap(name, dep) for dep in read_by_stages)]
    if fatal:
        obstacles.append(f"what was changed in {', '.join(dict.fromkeys(fatal))} was not kept")
    if others := dict.fromkeys(name for name in lost if name not in fatal):
        notes.append(f"not kept, and read by no stage: {', '.join(others)}")
    return path


def _unrecorded(record: Recorded, evidence: Mapping[str, Any], patch: bytes | None) -> str | None:
    if patch is None:
        return None
    digest = hashlib.sha256(patch).hexdigest()
    told = {record.tags.get(PATCH), evidence.get(PATCH, record.tags.get(PATCH))}
    return None if told == {digest} else digest


def check_patch(recipe: Recipe, read: str | None) -> None:
    """Make sure that a patch which is not the recorded one was read by a person, as it is run.

    Args:
        read: sha256 of the patch that was.

    Raises:
        QuickstudyError: it was not.
    """
    if recipe.unrecorded is None or recipe.unrecorded == read:
        return
    raise QuickstudyError(
        "the patch beside its run is not the one that was recorded, and a rebuild runs what it says",
        where=recipe.uri,
        fix=f"Read {recipe.patch_file}, then say: quickstudy reproduce {recipe.uri} --patch {recipe.unrecorded}",
    )


def _files(root: Path, record: Recorded, obstacles: list[str], notes: list[str]) -> tuple[dict[str, str], Path | None]:
    """Return the digests of the model's files, and where they are if they are whole."""
    told = json.loads(record.tags.get(FILES, "{}"))
    try:
        model = registry.resolve(record.model, root)
    except QuickstudyError as error:
        if not weights_in(told):
            obstacles.append(f"{error.what}, and no digest tells what it was")
        else:
            notes.append(f"{error.what}: only its digest can be compared")
        return told, None
    return told or file_digests(model), model


def weights_in(files: Mapping[str, str]) -> dict[str, str]:
    """Return the digests of a model's weights, by path: of each part, or of a model of before there were parts."""
    return {name: digest for name, digest in sorted(files.items()) if PurePath(name).name == "model.safetensors"}


def together(digests: Mapping[str, str]) -> str:
    """Return one digest of a model's weights: of one part its own, of several that of the list of them."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _changed_params(recipe: Recipe, project: Path) -> list[str]:
    path = project / "params.yaml"
    try:
        here = stale.flatten(redacted_values(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))
    except (OSError, yaml.YAMLError) as error:
        return [f"cannot be read: {error}"]
    if recipe.params is not None:
        there = stale.flatten(redacted_values(recipe.params))
        names = [*there, *here]
    else:  # as they were checked: what was left empty in the file is not in them
        there = recipe.lineage.get("parameters", {})
        names = [*there]
    return [
        f"{name}: {there.get(name, 'nothing')} recorded, {here.get(name, 'nothing')} there"
        for name in dict.fromkeys(names)
        if here.get(name) != there.get(name)
    ]


def _data_origin(root: Path, project: Path, recipe: Recipe, obstacles: list[str]) -> DataOrigin | None:
    if dvc.in_cache(root, recipe.data):
        return "DVC's cache"
    remote = "and no DVC remote is configured"
    if dvc.has_remote(project):
        try:
            if dvc.in_remote(project):
                return "the DVC remote"
            remote = "nor on the DVC remote"
        except RemoteFailed as error:
            remote = f"and {error.what}"
    imported = [name for name in recipe.datasets if name not in STARTER]
    if recipe.datasets and not imported:
        return "built anew as starter data"
    what = f"it is more than starter data ({', '.join(imported)})" if imported else "nobody knows what is in it"
    obstacles.append(f"data version {recipe.data[:8]} is not in DVC's cache here, {remote}; {what}")
    return None
