"""What `quickstudy gate` runs: two versions answer today's frozen episodes, of each kind that either has a part for."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from quickstudy import registry
from quickstudy.card import write_card
from quickstudy.config import Settings
from quickstudy.data.plain_yaml import read_yaml
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import contenders
from quickstudy.evaluation.answers import Subject
from quickstudy.evaluation.gate import Contender, Evidence, Verdict, about, check_comparable, judge_until_settled
from quickstudy.kinds.scores import SCORES
from quickstudy.kinds.targets import targets_of
from quickstudy.model.store import load_model, part_digest, parts_of
from quickstudy.pipeline.arrays import read_arrays, set_threads
from quickstudy.pipeline.inputs import read_datasets
from quickstudy.pipeline.judging import judging_code
from quickstudy.pipeline.paths import CARD, EVALUATE, GATE, MODEL, TASKS, gate_folder
from quickstudy.system.atomic import draft, write_json
from quickstudy.tasks.frozen import read_episodes
from quickstudy.versions import dvc
from quickstudy.versions import stale as stale_
from quickstudy.versions.lineage import file_hash

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Asked:
    """A kind that the gate is asked about."""

    evidence: Callable[[int], Evidence]
    """of the first n episodes of each cell"""
    planned: int
    """episodes a cell at the last look; 0 where nobody has to answer"""


def judge_versions(
    root: Path, settings: Settings, challenger: int, champion: int | None, progress: Progress
) -> Verdict:
    """Let two versions answer the frozen episodes of ``build/tasks`` and ask the gate; what was answered is kept.

    Nobody answers those of a kind whose part is the same in both, or that the challenger has none for.

    Raises:
        QuickstudyError: the episodes are not today's, a model cannot be had, or the two cannot be compared.
    """
    set_threads(settings)
    stale = stale_.stale(root)
    _is_current(stale, "data")
    data = dvc.data_hash(root)
    assert data is not None
    numbers = (challenger,) if champion is None else (challenger, champion)
    folders = {number: registry.resolve(f"models:/{registry.NAME}/{number}", root) for number in numbers}
    there = {kind for folder in folders.values() for kind in parts_of(folder)}
    kinds = [kind for kind in dict.fromkeys([*settings.kinds, *sorted(there)]) if kind in there]
    asked = []
    for kind in kinds:
        own = {number: folder for number, folder in folders.items() if kind in parts_of(folder)}
        with about(kind, len(kinds) > 1):
            before = _before(kind, own, challenger, data)
            if before.part in ("same", "lost"):
                asked.append(_Asked(lambda count, before=before: before, 0))  # type: ignore[misc]
                continue
            _is_current(stale, f"tasks@{kind}", f"evaluate@{kind}")
            asked.append(_answered(before, settings.of(kind), own, progress))
    planned, folder = max(one.planned for one in asked), gate_folder(challenger, champion)

    def evidence(count: int) -> list[Evidence]:
        found = [one.evidence(count) for one in asked]
        _keep(folder / "challenger.parquet", [one.challenger for one in found])
        if champion is not None:
            _keep(folder / "champion.parquet", [one.champion for one in found])
        return found

    policies = {kind: settings.of(kind).gate for kind in kinds if kind in settings.kinds}
    verdict = judge_until_settled(evidence, settings.gate, planned, policies)
    write_json(folder / "verdict.json", verdict.record())
    if _weights(MODEL) == _weights(folders[challenger]) and CARD.exists():
        # The card of the stage knows no champion; this one does. What the card shows of the version is in build/.
        if (lineage := folders[challenger] / "lineage.json").exists():
            shutil.copy(lineage, folder)
        write_card(Path("build"), folder / "card", gate=folder)
    return verdict


def _before(kind: str, folders: Mapping[int, Path], challenger: int, data: str) -> Evidence:
    """What is known before anybody answers, of versions that have a part for a kind."""
    episodes = file_hash(TASKS / kind / "episodes.parquet") or ""
    sides = {
        number: contenders.contender(f"version {number}", folder, kind, data, episodes)
        for number, folder in folders.items()
    }
    new = sides.pop(challenger, None)
    old = next(iter(sides.values()), None)
    if new is not None:
        targets_of(kind)  # one that this version of the program does not know is told here
    if new is not None and old is not None:
        check_comparable(old, new)
    score = SCORES[kind].NAME if kind in SCORES else "score"
    return Evidence(new, old, contenders.NOT_ANSWERED, {}, data, episodes, kind, score)


def _answered(before: Evidence, settings: Settings, folders: Mapping[int, Path], progress: Progress) -> _Asked:
    """Let the versions in ``folders`` answer, the challenger first."""
    kind, episodes = before.kind, before.episodes_digest
    sides = [side for side in (before.challenger, before.champion) if side is not None]
    models = [load_model(folder, kind) for folder in folders.values()]
    frozen = [
        block
        for block in read_episodes(TASKS / kind / "episodes.parquet", kind)
        if block.modality in models[0].encoders
    ]
    if not frozen:
        raise QuickstudyError(
            f"there are no episodes of {kind} that it could be judged on",
            where=sides[0].name,
            fix=f"Import a dataset of kind {kind} for meta-test, or decide by hand, with the reason",
        )
    names = list(dict.fromkeys(block.dataset for block in frozen))
    datasets = {name: dataset for name, dataset in read_datasets(kind).items() if name in names}
    subjects = []
    for model in models:  # their encoders may read an example differently
        arrays = read_arrays(datasets, model, progress)
        subjects.append({name: Subject(datasets[name], array) for name, (array, _) in arrays.items()})
    judged = f"{episodes[:16]}-{judging_code(kind)}"

    def answers(place: int, count: int) -> pd.DataFrame:
        """The first episodes of each cell; those that were answered before are not answered again."""
        side = sides[place]
        path = GATE / f"answers-{side.part_digest[:16]}-{judged}.parquet"
        found = pd.read_parquet(path) if path.exists() else contenders.NOT_ANSWERED
        have = int(found["episode"].max()) + 1 if len(found) else 0
        if have < count:
            more = contenders.answers(
                models[place],
                subjects[place],
                frozen,
                have,
                count,
                lambda done, total: progress(f"{side.name} answers {kind}", done, total),
            )
            found = pd.concat([found, more], ignore_index=True) if len(found) else more
            with draft(path) as part:
                found.to_parquet(part, index=False, compression="zstd")
        return found[found["episode"] < count]

    path = GATE / f"times-{'-'.join(side.part_digest[:16] for side in sides)}-{judged}.parquet"
    if path.exists():
        times = pd.read_parquet(path).rename(columns={str(place): place for place in range(len(models))})
    else:
        timed = settings.evaluate.timed_episodes
        times = contenders.time_together(
            models, subjects[0], frozen, timed, lambda done, total: progress(f"time {kind}", done, total)
        )
        with draft(path) as part:
            times.rename(columns=str).to_parquet(part, index=False)

    planned = max(block.count for block in frozen)
    columns = ["dataset", "suite", "shot", "episode", "method", "score"]
    baselines = pd.read_parquet(EVALUATE / kind / "episodes.parquet", columns=columns)
    known = replace(before, meta_test=_meta_test(TASKS / kind / "splits.yaml"), planned=planned)

    def evidence(count: int) -> Evidence:
        told = [
            contenders.with_times(replace(side, episodes=answers(place, count)), times, place)
            for place, side in enumerate(sides)
        ]
        return replace(
            known,
            challenger=told[0],
            champion=told[1] if len(told) > 1 else None,
            baselines=baselines[baselines["episode"] < count],
        )

    return _Asked(evidence, planned)


def _keep(path: Path, sides: Iterable[Contender | None]) -> None:
    """Write what one version has answered, of every kind."""
    frames = [side.episodes for side in sides if side is not None and len(side.episodes)]
    with draft(path) as part:
        together = pd.concat(frames, ignore_index=True) if frames else contenders.NOT_ANSWERED
        together.to_parquet(part, index=False, compression="zstd")


def _weights(folder: Path) -> dict[str, str]:
    """The digest of each part of a model."""
    return {kind: part_digest(part) for kind, part in parts_of(folder).items()}


def _is_current(stale: Mapping[str, tuple[str, ...]], *steps: str) -> None:
    """Check that what the steps made, episodes and the baselines' answers, is of today's data and settings."""
    for step in steps:
        if step in stale:
            raise QuickstudyError(
                f"its evidence would be older than what is here now ({step}: {stale[step][0]})",
                where="build/evaluate",
                fix="Bring it up to date: quickstudy run",
            )


def _meta_test(path: Path) -> dict[str, list[str]]:
    """Meta-test groups by dataset."""
    splits = read_yaml(path.read_text(encoding="utf-8"))
    return {
        name: [group for group, side in entry["groups"].items() if side == "test"] for name, entry in splits.items()
    }
