"""Build a registered model again from what was recorded of it, and say whether it is the same.

A git worktree at the recorded commit, with the recorded patch where the working copy was dirty; the data that DVC knows
under the recorded hash; the stages of its own dvc.yaml that lead to the model, run by its own code, with nothing taken
from DVC's caches. The user's working copy is not touched. All of it lies in ``.cache/reproduce/RUN``.
"""

import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from quickstudy import registry
from quickstudy.config import Reproduce
from quickstudy.errors import QuickstudyError
from quickstudy.registry.records import Recorded, artifact, recorded
from quickstudy.registry.store import FILES
from quickstudy.starter import STARTER
from quickstudy.system import processes
from quickstudy.system.atomic import write_json
from quickstudy.system.digests import file_digests
from quickstudy.versions import dvc, lineage

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(".cache") / "reproduce"
MODEL = "build/model"
TIMES = ("training.json",)
"""Outputs that tell how long something took: never the same twice."""

BUILD_STARTER: tuple[str, ...] = (sys.executable, "-m", "quickstudy", "data", "build")

Answer = Literal["IDENTICAL", "EQUIVALENT", "DIFFERENT"]
Source = Literal["DVC's cache", "the DVC remote", "built anew as starter data"]


@dataclass(frozen=True)
class Recipe:
    """What was recorded of a model, so that it can be built again."""

    record: Recorded
    lineage: Mapping[str, Any]
    commit: str
    patch: bytes | None
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
        """of torch. Before they were recorded: those of the machine, which torch takes by default."""
        found = self.lineage.get("threads") or self.lineage.get("cpu_threads")
        return int(found) if found else None


@dataclass(frozen=True)
class Gap:
    """How far the rebuilt model's accuracy lies from the registered one's on the same episodes (rebuilt − registered).

    The interval is that of 95%.
    """

    mean: float
    half: float

    def within(self, bound: float) -> bool:
        """Whether the whole interval lies within ± the bound."""
        return abs(self.mean) + self.half < bound

    def __str__(self) -> str:
        return f"{100 * self.mean:+.2f} ± {100 * self.half:.2f} points"


@dataclass(frozen=True)
class Verdict:
    """Whether the rebuilt model is the registered one."""

    answer: Answer
    why: str
    uri: str
    run_id: str
    commit: str
    data: str
    data_from: str
    recorded_weights: str
    rebuilt_weights: str | None
    gap: Gap | None
    gaps: Mapping[str, Gap]
    """by dataset"""
    episodes: int
    """that both answered"""
    where: tuple[str, ...]
    """what differs from the record, in the order in which it was made"""
    environment: tuple[str, ...]
    """how this machine differs from the recorded one"""
    notes: tuple[str, ...]
    next: str
    folder: str
    """where this verdict and what was built are kept"""
    seconds: float


def home(root: Path, recipe: Recipe) -> Path:
    """Where the rebuild of a run lies."""
    return root / FOLDER / recipe.record.run_id


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """One rebuild at a time. Worktrees that a killed one has left are removed first, this one's at the end.

    Raises:
        QuickstudyError: another one is at work.
    """
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QuickstudyError("another rebuild is at work here", where=root, fix="Wait until it ends") from None
        _sweep(root)
        try:
            yield
        finally:
            _sweep(root)


def _sweep(root: Path) -> None:
    for left in (root / FOLDER).glob("*/worktree"):
        dvc.remove_worktree(root, left)


# ---- what was recorded, and whether it is enough


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
    origin = _json(artifact(root, record, "lineage.json"))
    if not origin:
        raise _impossible(record, ["lineage.json is not beside its run, or is damaged"])
    for name in ("git_commit", "data_hash"):
        if (origin.get(name) or "") != record.tags.get(name, origin.get(name) or ""):
            obstacles.append(f"lineage.json beside its run says another {name} than the run itself")
    commit, data = origin.get("git_commit"), origin.get("data_hash")
    if not commit:
        obstacles.append("it was made in a repository without a commit")
    elif not dvc.has_commit(root, commit):
        obstacles.append(f"commit {commit[:10]} is not in this repository (fetch it, or clone the one that has it)")
    if not data:
        obstacles.append("no version of the data was recorded")
    lock = _lock(root, record, origin, notes)
    patch = _patch(root, record, origin, lock, obstacles, notes)
    kept = artifact(root, record, "params.yaml")
    files, model = _files(root, record, obstacles, notes)
    if obstacles:
        raise _impossible(record, obstacles)
    assert commit and data
    return Recipe(
        record=record,
        lineage=origin,
        commit=commit,
        patch=patch,
        data=data,
        datasets=tuple(_json(artifact(root, record, "tasks/tasks.json"))),
        params=None if kept is None else yaml.safe_load(kept.read_text(encoding="utf-8")),
        lock=lock,
        files=files,
        model=model,
        notes=tuple(notes),
    )


def prepare(root: Path, recipe: Recipe) -> tuple[Path, Source]:
    """Make the worktree, and find out where the data can come from. The caller is `alone`.

    Returns:
        the project in the worktree; the source of its data, which is not there yet.

    Raises:
        QuickstudyError: it cannot be rebuilt; says why.
    """
    folder = home(root, recipe) / "worktree"
    folder.parent.mkdir(parents=True, exist_ok=True)
    project = dvc.add_worktree(root, folder, recipe.commit)
    if recipe.patch is not None:
        dvc.apply_patch(folder, recipe.patch)
    obstacles = []
    if changed := _changed_params(recipe, project):
        obstacles.append(f"params.yaml of its commit is not what was recorded ({', '.join(changed)})")
    if not (project / "dvc.yaml").is_file():
        obstacles.append("its commit has no dvc.yaml")
    elif not needed(project):
        obstacles.append(f"no stage of its dvc.yaml makes {MODEL}")
    dvc.set_data(project, recipe.data)
    (project / "dvc.lock").unlink(missing_ok=True)  # nothing has run here yet
    source = _source(root, project, recipe, obstacles)
    if obstacles or source is None:
        raise _impossible(recipe.record, obstacles)
    return project, source


def needed(project: Path) -> tuple[dvc.Stage, ...]:
    """The stages that lead to the model, in order."""
    stages = dvc.stages(project)
    wanted = {stage.name for stage in stages if MODEL in stage.outs}
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted |= set(stage.after)
    return tuple(stage for stage in stages if stage.name in wanted)


def _impossible(record: Recorded, obstacles: Sequence[str]) -> QuickstudyError:
    return QuickstudyError(f"cannot be rebuilt: {'; '.join(obstacles)}", where=record.uri)


def _lock(root: Path, record: Recorded, origin: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    path = artifact(root, record, "dvc.lock")
    if path is None:
        notes.append("dvc.lock was not kept, so that only outputs can be compared")
        return {}
    if lineage.file_hash(path) != origin.get("dvc_lock_hash"):
        notes.append("dvc.lock beside its run was changed since, and is not looked at")
        return {}
    return dvc.locked(path)


def _patch(
    root: Path, record: Recorded, origin: Mapping[str, Any], lock: Mapping[str, Any], obstacles: list[str],
    notes: list[str],
) -> bytes | None:  # fmt: skip
    if not origin.get("git_dirty"):
        return None
    path = artifact(root, record, "changes.patch")
    if path is None:
        names = ", ".join(origin.get("git_changed", []))
        obstacles.append(f"its working copy was changed and no patch was kept ({names})")
        return None
    patch = path.read_bytes()
    touched = dvc.patched(patch)
    # A folder that git does not track stands for all of its files. Names in it that are quoted are those of before.
    lost = [
        name
        for name in (*origin.get("git_changed", []), *origin.get("git_left_out", []))
        if not any(file == name or (name.endswith("/") and file.startswith(name)) for file in touched)
    ]
    read_by_stages = [str(dep["path"]) for stage in lock.values() for dep in stage.get("deps", [])]
    fatal = [name for name in lost if any(dvc.overlap(name, dep) for dep in read_by_stages)]
    if fatal:
        obstacles.append(f"what was changed in {', '.join(dict.fromkeys(fatal))} was not kept")
    if others := dict.fromkeys(name for name in lost if name not in fatal):
        notes.append(f"not kept, and read by no stage: {', '.join(others)}")
    return patch


def _files(root: Path, record: Recorded, obstacles: list[str], notes: list[str]) -> tuple[dict[str, str], Path | None]:
    """Digests of the model's files, and where they are if they are whole."""
    told = json.loads(record.tags.get(FILES, "{}"))
    try:
        model = registry.resolve(record.model, root)
    except QuickstudyError as error:
        if "model.safetensors" not in told:
            obstacles.append(f"{error.what}, and no digest tells what it was")
        else:
            notes.append(f"{error.what}: only its digest can be compared")
        return told, None
    return told or file_digests(model), model


def _changed_params(recipe: Recipe, project: Path) -> list[str]:
    path = project / "params.yaml"
    try:
        here = dvc.flatten(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError) as error:
        return [f"cannot be read: {error}"]
    if recipe.params is not None:
        there = dvc.flatten(recipe.params)
        names = [*there, *here]
    else:  # as they were checked: what was left empty in the file is not in them
        there = recipe.lineage.get("parameters", {})
        names = [*there]
    return [
        f"{name}: {there.get(name, 'nothing')} recorded, {here.get(name, 'nothing')} there"
        for name in dict.fromkeys(names)
        if here.get(name) != there.get(name)
    ]


def _source(root: Path, project: Path, recipe: Recipe, obstacles: list[str]) -> Source | None:
    if dvc.in_cache(root, recipe.data):
        return "DVC's cache"
    remote = "and no DVC remote is configured"
    if dvc.has_remote(project):
        try:
            if dvc.in_remote(project):
                return "the DVC remote"
            remote = "nor on the DVC remote"
        except dvc.RemoteFailed as error:
            remote = f"and {error.what}"
    imported = [name for name in recipe.datasets if name not in STARTER]
    if recipe.datasets and not imported:
        return "built anew as starter data"
    what = f"it is more than starter data ({', '.join(imported)})" if imported else "nobody knows what is in it"
    obstacles.append(f"data version {recipe.data[:8]} is not in DVC's cache here, {remote}; {what}")
    return None


# ---- building


def fetch_data(project: Path, recipe: Recipe, source: Source, on_line: Callable[[str], None]) -> None:
    """Bring the data into the worktree.

    Raises:
        QuickstudyError: it is not the data of the record.
    """
    if source == "DVC's cache":
        dvc.checkout_data(project)
    elif source == "the DVC remote":
        dvc.pull_data(project, on_line)
    else:
        lines: list[str] = []

        def listen(line: str) -> None:
            lines.append(line)
            on_line(line)

        if processes.stream(BUILD_STARTER, project, listen, environment(project, recipe)) != 0:
            said = next((line for line in reversed(lines) if line.strip()), "without a word")
            raise _impossible(recipe.record, [f"its starter data could not be built ({said})"])
        built = dvc.hash_data(project)
        if built != recipe.data:
            raise _impossible(
                recipe.record,
                [
                    f"the starter data of its commit is version {built[:8]} on this machine, not {recipe.data[:8]}: "
                    "get the data from where it was trained (dvc push there, a DVC remote here)"
                ],
            )


def build(project: Path, recipe: Recipe, stage: dvc.Stage, on_line: Callable[[str], None]) -> str | None:
    """Run a stage by the worktree's own code, whatever DVC has in its caches.

    Returns:
        how it failed, where it could not do what it did then.

    Raises:
        versions.StageFailed: it was killed, which says nothing.
    """
    try:
        dvc.repro(project, stage.name, on_line, anew=True, env=environment(project, recipe))
    except dvc.StageFailed as failure:
        if failure.killed:
            raise
        return str(failure)
    except QuickstudyError as error:
        return f"stage {stage.name} failed: {error}"
    return None


def environment(project: Path, recipe: Recipe) -> dict[str, str]:
    """Variables under which the stages of a worktree run: its code comes before the installed one, and torch has the
    recorded number of threads, on which the order of its sums depends."""
    found = {"PYTHONPATH": os.pathsep.join(filter(None, (str(project / "src"), os.environ.get("PYTHONPATH"))))}
    train = (recipe.params or {}).get("train") or {}
    if recipe.threads and train.get("processes", 1) == 1:
        found |= {"OMP_NUM_THREADS": str(recipe.threads), "MKL_NUM_THREADS": str(recipe.threads)}
    return found


def check_code(project: Path, recipe: Recipe) -> None:
    """Make sure that a stage would run the worktree's code, not the installed one.

    Raises:
        QuickstudyError: it would not.
    """
    package = project / "src" / "quickstudy"
    if not package.is_dir():
        return
    lines: list[str] = []
    command = [sys.executable, "-c", "import quickstudy; print(quickstudy.__file__)"]
    code = processes.stream(command, project, lines.append, environment(project, recipe))
    if code != 0 or not lines or Path(lines[-1]).parent.resolve() != package.resolve():
        raise _impossible(
            recipe.record, [f"its code cannot be run here: Python takes {lines[-1] if lines else 'none'} instead"]
        )


# ---- the verdict


def judge(
    root: Path,
    project: Path,
    recipe: Recipe,
    source: Source,
    settings: Reproduce,
    failure: str | None = None,
    started: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Verdict:
    """Compare what was built with what was registered, keep it and the verdict in `home`.

    Equal weights are IDENTICAL. Else both models answer the same frozen episodes of the worktree: EQUIVALENT where the
    whole 95% interval of the paired difference in accuracy lies within ± ``settings.bound``, and for each dataset
    within ± ``settings.dataset_bound``: two one-sided tests, of "worse by the bound or more" and "better by the bound
    or more", that both reject, each at 2.5% (Schuirmann 1987, "A comparison of the two one-sided tests procedure and
    the power approach for assessing the equivalence of average bioavailability", J. Pharmacokinetics and
    Biopharmaceutics 15(6), https://doi.org/10.1007/BF01068419). A difference that is merely not significant is none.

    Args:
        failure: how a stage failed.
        started: of `time.monotonic`.
        progress: told (done, total) episodes.
    """
    weights = lineage.file_hash(project / MODEL / "model.safetensors")
    wanted = recipe.files["model.safetensors"]
    notes = list(recipe.notes)
    gap: Gap | None = None
    gaps: dict[str, Gap] = {}
    episodes = 0
    answer: Answer = "DIFFERENT"
    where = [] if failure is None else [failure]
    kept = f"{FOLDER / recipe.record.run_id / MODEL}"
    if weights == wanted:
        answer, why = "IDENTICAL", "the weights have the same sha256"
        config = lineage.file_hash(project / MODEL / "config.yaml")
        if config != recipe.files.get("config.yaml", config):
            notes.append("config.yaml beside them differs")
        follow = "Nothing to do: the record is enough to build it again."
        if recipe.model is None:
            follow = f"The registered files are damaged, the rebuilt ones are as they were registered: {kept}"
    else:
        where += differences(recipe, project)
        if weights is None:
            why = failure or f"the stages did not write {MODEL}/model.safetensors"
        elif recipe.model is None:
            why = "the weights differ, and the registered files are damaged, so that they cannot answer"
        else:
            try:
                gap, gaps, episodes = compare(recipe.model, project, settings.episodes, progress)
            except QuickstudyError as error:
                why = f"the weights differ, and the two cannot be asked ({error})"
            else:
                answer, why = _equivalent(gap, gaps, settings)
        follow = (
            "It answers alike. For the same bits build it where the machine and the packages are the recorded ones."
            if answer == "EQUIVALENT"
            else f"See what it was made of: quickstudy lineage {recipe.uri}. What was built now: "
            f"{FOLDER / recipe.record.run_id / 'build'}"
        )
    verdict = Verdict(
        answer=answer,
        why=why,
        uri=recipe.uri,
        run_id=recipe.record.run_id,
        commit=recipe.commit,
        data=recipe.data,
        data_from=source,
        recorded_weights=wanted,
        rebuilt_weights=weights,
        gap=gap,
        gaps=gaps,
        episodes=episodes,
        where=tuple(where),
        environment=tuple(elsewhere(recipe, project)),
        notes=tuple(notes),
        next=follow,
        folder=str(FOLDER / recipe.record.run_id),
        seconds=0.0 if started is None else time.monotonic() - started,
    )
    place = home(root, recipe)
    shutil.rmtree(place / "build", ignore_errors=True)
    if (project / "build").is_dir():
        (project / "build").rename(place / "build")
    write_json(place / "verdict.json", asdict(verdict))
    return verdict


def read_verdict(root: Path, run_id: str) -> Verdict:
    """What `judge` kept."""
    values = json.loads((root / FOLDER / run_id / "verdict.json").read_text(encoding="utf-8"))
    for name in ("where", "environment", "notes"):
        values[name] = tuple(values[name])
    values["gap"] = None if values["gap"] is None else Gap(**values["gap"])
    values["gaps"] = {name: Gap(**gap) for name, gap in values["gaps"].items()}
    return Verdict(**values)


def _equivalent(gap: Gap, gaps: Mapping[str, Gap], settings: Reproduce) -> tuple[Answer, str]:
    far = {name: at for name, at in gaps.items() if not at.within(settings.dataset_bound)}
    overall = (
        f"{gap} of accuracy, {'within' if gap.within(settings.bound) else 'not within'} ± {100 * settings.bound:g}"
    )
    if gap.within(settings.bound) and not far:
        return "EQUIVALENT", f"the weights differ, the answers do not: {overall}"
    worst = max(far, key=lambda name: abs(far[name].mean) + far[name].half, default=None)
    beyond = f"; {worst} {far[worst]}, not within ± {100 * settings.dataset_bound:g}" if worst else ""
    unsure = abs(gap.mean) < settings.bound and all(abs(at.mean) < settings.dataset_bound for at in gaps.values())
    more = "; with more episodes (reproduce.episodes) it may be shown to be equivalent" if unsure else ""
    return "DIFFERENT", f"the weights differ and so do the answers: {overall}{beyond}{more}"


def compare(
    registered: Path, project: Path, episodes: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Gap, dict[str, Gap], int]:
    """Let the registered model and the one in a worktree answer the same of its frozen episodes.

    Suites and numbers of shots are all there are and weigh alike; episodes are the sample (see
    `quickstudy.stats.intervals.stratified_interval`).

    Args:
        episodes: the first so many of each suite and number of shots.

    Returns:
        the gap over all, by dataset, the number of episodes.

    Raises:
        QuickstudyError: one of them cannot answer.
    """
    from quickstudy.stats.intervals import paired_interval

    def half(shift: int) -> Callable[[int, int], None]:
        return lambda done, total: progress(done + shift * total, 2 * total)

    theirs = _answers(registered, project, episodes, half(0))
    ours = _answers(project / MODEL, project, episodes, half(1))
    keys = ["dataset", "suite", "shot"]
    if not ours[[*keys, "episode"]].equals(theirs[[*keys, "episode"]]):
        raise QuickstudyError("they know different modalities", where=MODEL)
    found: dict[str, list[tuple[Any, Any]]] = {}
    for (dataset, _, _), part in ours.groupby(keys, sort=False):
        pair = part["accuracy"].to_numpy(), theirs.loc[part.index, "accuracy"].to_numpy()
        found.setdefault(str(dataset), []).append(pair)

    def gap(pairs: Sequence[tuple[Any, Any]]) -> Gap:
        return Gap(*paired_interval([a for a, _ in pairs], [b for _, b in pairs]))

    everything = [pair for pairs in found.values() for pair in pairs]
    return gap(everything), {name: gap(pairs) for name, pairs in found.items()}, len(ours)


def _answers(folder: Path, project: Path, episodes: int, progress: Callable[[int, int], None]) -> "pd.DataFrame":
    from dataclasses import replace

    from quickstudy.config import Evaluate
    from quickstudy.data.dataset import read_dataset
    from quickstudy.encoders.features import features
    from quickstudy.evaluation.answers import Subject, evaluate
    from quickstudy.model.store import load_model
    from quickstudy.tasks.frozen import read_episodes
    from quickstudy.tasks.suites import Episodes

    model = load_model(folder)
    frozen = [
        replace(block, episodes=Episodes(block.episodes.support[:episodes], block.episodes.query[:episodes]))
        for block in read_episodes(project / "build/tasks/episodes.parquet")
        if block.modality in model.encoders
    ]
    subjects = {}
    for name in dict.fromkeys(block.dataset for block in frozen):
        dataset = read_dataset(project / "data" / name)
        array, _ = features(dataset, model.encoder(dataset.modality), project / lineage.FEATURES)
        subjects[name] = Subject(dataset, array)
    alone = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=0)
    return evaluate(model, subjects, frozen, alone, 0, progress)


def differences(recipe: Recipe, project: Path) -> list[str]:
    """What of the rebuild is not as dvc.lock recorded it, in the order in which it was made: data, code, parameters,
    features, outputs."""
    rebuilt, found = dvc.locked(project / "dvc.lock"), []
    outputs: set[str] = set()
    for stage in needed(project):
        then, now = recipe.lock.get(stage.name), rebuilt.get(stage.name)
        if then and now:
            if then.get("cmd") != now.get("cmd"):
                found.append(f"{stage.name}: command {then.get('cmd')!r} → {now.get('cmd')!r}")
            found += _pairs(stage.name, "reads", _hashes(then, "deps"), _hashes(now, "deps"), outputs)
            old, new = (dvc.flatten((at.get("params") or {}).get("params.yaml", {})) for at in (then, now))
            found += [
                f"{stage.name}: parameter {name}: {old.get(name, 'nothing')} → {new.get(name, 'nothing')}"
                for name in dict.fromkeys([*old, *new])
                if old.get(name) != new.get(name)
            ]
        if MODEL in stage.outs:
            before, after = recipe.lineage.get("features", {}), lineage.feature_hashes(project)
            both = before.keys() & after.keys()
            found += _pairs(
                stage.name, "features", {n: before[n] for n in sorted(both)}, {n: after[n] for n in sorted(both)}, set()
            )
        outs = {path: recipe.lineage["stages"][path] for path in stage.outs if path in recipe.lineage.get("stages", {})}
        timed = {path for path in stage.outs if Path(path).name in TIMES}
        if now:
            found += _pairs(stage.name, "writes", outs, _hashes(now, "outs"), timed | ({*stage.outs} - {*outs}))
        outputs |= set(stage.outs)
    return found


def _hashes(stage: Mapping[str, Any], part: str) -> dict[str, str]:
    return {str(entry["path"]): str(entry.get("md5")) for entry in stage.get(part, [])}


def _pairs(stage: str, verb: str, then: Mapping[str, str], now: Mapping[str, str], without: set[str]) -> list[str]:
    return [
        f"{stage}: {verb} {path}: {then.get(path, 'nothing')[:8]} → {now.get(path, 'nothing')[:8]}"
        for path in dict.fromkeys([*then, *now])
        if path not in without and then.get(path) != now.get(path)
    ]


def elsewhere(recipe: Recipe, project: Path) -> list[str]:
    """How this machine and the packages here differ from the recorded ones: what bits depend on first."""
    then = recipe.lineage
    train = (recipe.params or {}).get("train") or {}
    now: dict[str, Any] = dict(lineage.machine(train.get("threads", 0)))
    if recipe.threads and train.get("processes", 1) == 1:
        now["threads"] = recipe.threads  # as `environment` sets it
    found = [
        f"{name.replace('_', ' ')}: {then[name]} → {now[name]}"
        for name in ("cpu", "cpu_capability", "threads", "device", "python", "platform")
        if name in then and then[name] != now[name]
    ]
    packages = then.get("packages", {})
    here = {name: _installed(name) for name in packages}
    found += [f"{name}: {packages[name]} → {here[name]}" for name in packages if packages[name] != here[name]]
    path = project / "requirements.lock"
    if lineage.file_hash(path) != then.get("requirements_lock_hash"):
        found.append("requirements.lock of its commit is not the recorded one")
    elif path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, wanted = line.partition("==")
            here_is = _installed(name)
            if wanted and name.lower() not in packages and here_is.partition("+")[0] != wanted.strip():
                found.append(f"{name}: {wanted.strip()} → {here_is}")
    return found


def _installed(name: str) -> str:
    try:
        return installed(name)
    except PackageNotFoundError:
        return "none"


def _json(path: Path | None) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
