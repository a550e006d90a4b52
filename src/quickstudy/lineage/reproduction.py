"""Whether a model that was built again from its record is the registered one: in its bits, else in its answers."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from quickstudy.config import Reproduce
from quickstudy.errors import QuickstudyError
from quickstudy.lineage.recipe import FOLDER, MODEL, DataOrigin, Recipe, home, needed, together, weights_in
from quickstudy.system.atomic import write_json
from quickstudy.versions import lineage, stale

if TYPE_CHECKING:
    import pandas as pd

TIMES = ("training.json",)
"""Outputs that tell how long something took: never the same twice."""


Sameness = Literal["IDENTICAL", "EQUIVALENT", "DIFFERENT"]


@dataclass(frozen=True)
class Gap:
    """How far the rebuilt model's accuracy lies from the registered one's on the same episodes (rebuilt − registered).

    The interval is that of 95%.
    """

    mean: float
    half: float

    def within(self, bound: float) -> bool:
        """Return whether the whole interval lies within ± the bound."""
        return abs(self.mean) + self.half < bound

    def __str__(self) -> str:
        return f"{100 * self.mean:+.2f} ± {100 * self.half:.2f} points"


@dataclass(frozen=True)
class Reproduction:
    """Whether the rebuilt model is the registered one."""

    answer: Sameness
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
    """where this and what was built are kept"""
    seconds: float


def judge(
    root: Path,
    project: Path,
    recipe: Recipe,
    data_from: DataOrigin,
    settings: Reproduce,
    failure: str | None = None,
    started: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reproduction:
    """Compare what was built with what was registered, keep it in `home` with what came out, and return that.

    Equal weights are IDENTICAL. Else both models answer the same frozen episodes of the worktree: EQUIVALENT where the
    whole 95% interval of the paired difference of the score lies within ± ``settings.bound``, and for each dataset
    within ± ``settings.dataset_bound``: two one-sided tests, of "worse by the bound or more" and "better by the bound
    or more", that both reject, each at 2.5% (Schuirmann 1987, "A comparison of the two one-sided tests procedure and
    the power approach for assessing the equivalence of average bioavailability", J. Pharmacokinetics and
    Biopharmaceutics 15(6), https://doi.org/10.1007/BF01068419). A difference that is merely not significant is none.

    Args:
        failure: how a stage failed.
        started: of `time.monotonic`.
        progress: told (done, total) episodes.
    """
    recorded = weights_in(recipe.files)
    built = {name: lineage.file_hash(project / MODEL / name) for name in recorded}
    missing = [name for name, digest in built.items() if digest is None]
    weights = None if missing else together({name: digest or "" for name, digest in built.items()})
    wanted = together(recorded)
    notes = list(recipe.notes)
    gap: Gap | None = None
    gaps: dict[str, Gap] = {}
    episodes = 0
    answer: Sameness = "DIFFERENT"
    where = [] if failure is None else [failure]
    kept = f"{FOLDER / recipe.record.run_id / MODEL}"
    if weights == wanted:
        answer, why = "IDENTICAL", "the weights have the same sha256"
        for name in (str(Path(name).with_name("config.yaml")) for name in recorded):
            config = lineage.file_hash(project / MODEL / name)
            if config != recipe.files.get(name, config):
                notes.append(f"{name} beside them differs")
        follow = "Nothing to do: the record is enough to build it again."
        if recipe.model is None:
            follow = f"The registered files are damaged, the rebuilt ones are as they were registered: {kept}"
    else:
        where += differences(recipe, project)
        if weights is None:
            why = failure or f"the stages did not write {MODEL}/{missing[0]}"
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
    found = Reproduction(
        answer=answer,
        why=why,
        uri=recipe.uri,
        run_id=recipe.record.run_id,
        commit=recipe.commit,
        data=recipe.data,
        data_from=data_from,
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
    write_json(place / "verdict.json", asdict(found))
    return found


def read_reproduction(root: Path, run_id: str) -> Reproduction:
    """Return what `judge` kept of the rebuild of a run."""
    values = json.loads((root / FOLDER / run_id / "verdict.json").read_text(encoding="utf-8"))
    for name in ("where", "environment", "notes"):
        values[name] = tuple(values[name])
    values["gap"] = None if values["gap"] is None else Gap(**values["gap"])
    values["gaps"] = {name: Gap(**gap) for name, gap in values["gaps"].items()}
    return Reproduction(**values)


def _equivalent(gap: Gap, gaps: Mapping[str, Gap], settings: Reproduce) -> tuple[Sameness, str]:
    far = {name: at for name, at in gaps.items() if not at.within(settings.dataset_bound)}
    overall = (
        f"{gap} of the score, {'within' if gap.within(settings.bound) else 'not within'} ± {100 * settings.bound:g}"
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
    import pandas as pd

    from quickstudy.stats.intervals import paired_interval

    def half(shift: int) -> Callable[[int, int], None]:
        return lambda done, total: progress(done + shift * total, 2 * total)

    from quickstudy.model.store import parts_of

    kinds = sorted(parts_of(registered).keys() & parts_of(project / MODEL).keys())
    theirs, ours = (
        pd.concat([_answers(folder, kind, project, episodes, half(shift)) for kind in kinds], ignore_index=True)
        for shift, folder in enumerate((registered, project / MODEL))
    )
    keys = ["dataset", "suite", "shot"]
    if not ours[[*keys, "episode"]].equals(theirs[[*keys, "episode"]]):
        raise QuickstudyError("they know different modalities", where=MODEL)
    found: dict[str, list[tuple[Any, Any]]] = {}
    for (dataset, _, _), part in ours.groupby(keys, sort=False):
        pair = part["score"].to_numpy(), theirs.loc[part.index, "score"].to_numpy()
        found.setdefault(str(dataset), []).append(pair)

    def gap(pairs: Sequence[tuple[Any, Any]]) -> Gap:
        return Gap(*paired_interval([a for a, _ in pairs], [b for _, b in pairs]))

    everything = [pair for pairs in found.values() for pair in pairs]
    return gap(everything), {name: gap(pairs) for name, pairs in found.items()}, len(ours)


def _answers(
    folder: Path, kind: str, project: Path, episodes: int, progress: Callable[[int, int], None]
) -> "pd.DataFrame":
    from quickstudy.config import Evaluate
    from quickstudy.data.dataset import read_dataset
    from quickstudy.encoders.features import features
    from quickstudy.evaluation.answers import Subject, evaluate
    from quickstudy.model.store import load_model
    from quickstudy.tasks.frozen import read_episodes

    model = load_model(folder, kind)
    frozen_at = project / "build/tasks" / kind / "episodes.parquet"
    if not frozen_at.exists():  # a commit of before there were kinds
        frozen_at = project / "build/tasks/episodes.parquet"
    frozen = [block.part(0, episodes) for block in read_episodes(frozen_at, kind) if block.modality in model.encoders]
    subjects = {}
    for name in dict.fromkeys(block.dataset for block in frozen):
        dataset = read_dataset(project / "data" / name)
        array, _ = features(dataset, model.encoder(dataset.modality), project / lineage.FEATURES)
        subjects[name] = Subject(dataset, array)
    alone = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=0)
    return evaluate(model, subjects, frozen, alone, 0, progress)


def differences(recipe: Recipe, project: Path) -> list[str]:
    """Return what of the rebuild is not as dvc.lock recorded it, in the order in which it was made: data, code,
    parameters, features, outputs."""
    rebuilt, found = stale.locked(project / "dvc.lock"), []
    outputs: set[str] = set()
    for stage in needed(project):
        then, now = recipe.lock.get(stage.name), rebuilt.get(stage.name)
        if then and now:
            if then.get("cmd") != now.get("cmd"):
                found.append(f"{stage.name}: command {then.get('cmd')!r} → {now.get('cmd')!r}")
            found += _pairs(stage.name, "reads", _hashes(then, "deps"), _hashes(now, "deps"), outputs)
            old, new = (stale.flatten((at.get("params") or {}).get("params.yaml", {})) for at in (then, now))
            found += [
                f"{stage.name}: parameter {name}: {old.get(name, 'nothing')} → {new.get(name, 'nothing')}"
                for name in dict.fromkeys([*old, *new])
                if old.get(name) != new.get(name)
            ]
        if any(stale.overlap(out, MODEL) for out in stage.outs):
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
    """Return how this machine and the packages here differ from the recorded ones: what bits depend on first."""
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
    if lineage.kept_hash(path) != then.get("requirements_lock_hash"):
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
