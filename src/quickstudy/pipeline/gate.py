"""What `quickstudy gate` runs: two versions answer today's frozen episodes."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
import yaml

from quickstudy import registry
from quickstudy.card import write_card
from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation import contenders
from quickstudy.evaluation.answers import Subject
from quickstudy.evaluation.gate import Evidence, Verdict, check_kind, judge_until_settled
from quickstudy.model.store import load_model, parts_of, weights_digest
from quickstudy.pipeline.arrays import read_arrays
from quickstudy.pipeline.inputs import read_datasets
from quickstudy.pipeline.paths import CARD, EVALUATE, GATE, MODEL, TASKS, gate_folder
from quickstudy.system.atomic import draft, write_json
from quickstudy.tasks.frozen import read_episodes
from quickstudy.versions import dvc
from quickstudy.versions import stale as stale_
from quickstudy.versions.lineage import file_hash


def judge_versions(
    root: Path, settings: Settings, challenger: int, champion: int | None, progress: Callable[[str, int, int], None]
) -> Verdict:
    """Let two versions answer the frozen episodes of ``build/tasks`` and ask the gate; what was answered is kept.

    Raises:
        QuickstudyError: the episodes are not today's, a model cannot be had, or the two cannot be compared.
    """
    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    _are_todays(root)
    splits, episodes = _splits(TASKS / "classify/splits.yaml"), file_hash(TASKS / "classify/episodes.parquet")
    data = dvc.data_hash(root)
    assert episodes is not None and data is not None
    numbers = (challenger,) if champion is None else (challenger, champion)
    folders = [registry.resolve(f"models:/{registry.NAME}/{number}", root) for number in numbers]
    both = [
        contenders.contender(f"version {number}", folder, "classify", data, episodes)
        for number, folder in zip(numbers, folders, strict=True)
    ]
    if champion is not None:
        check_kind(both[1], both[0])
    models = [load_model(folder, "classify") for folder in folders]
    digests = [weights_digest(folder, "classify") for folder in folders]
    frozen = [
        block
        for block in read_episodes(TASKS / "classify/episodes.parquet", "classify")
        if block.modality in models[0].encoders
    ]
    names = list(dict.fromkeys(block.dataset for block in frozen))
    datasets = {name: dataset for name, dataset in read_datasets("classify").items() if name in names}
    subjects = []
    for model in models:  # their encoders may read an example differently
        arrays = read_arrays(datasets, model, progress)
        subjects.append({name: Subject(datasets[name], array) for name, (array, _) in arrays.items()})

    def answered(place: int, count: int) -> pd.DataFrame:
        """The first episodes of each cell; those that were answered before are not answered again."""
        path = GATE / f"answers-{digests[place][:16]}-{episodes[:16]}.parquet"
        found = pd.read_parquet(path) if path.exists() else contenders.NOT_ANSWERED
        have = int(found["episode"].max()) + 1 if len(found) else 0
        if have < count:
            more = contenders.answers(
                models[place],
                subjects[place],
                frozen,
                have,
                count,
                lambda done, total: progress(f"version {numbers[place]} answers", done, total),
            )
            found = pd.concat([found, more], ignore_index=True) if len(found) else more
            with draft(path) as part:
                found.to_parquet(part, index=False, compression="zstd")
        return found[found["episode"] < count]

    folder = gate_folder(challenger, champion)
    path = GATE / f"times-{'-'.join(digest[:16] for digest in digests)}-{episodes[:16]}.parquet"
    if path.exists():
        times = pd.read_parquet(path).rename(columns={str(place): place for place in range(len(models))})
    else:
        timed = settings.evaluate.timed_episodes
        times = contenders.time_together(
            models, subjects[0], frozen, timed, lambda done, total: progress("time both", done, total)
        )
        with draft(path) as part:
            times.rename(columns=str).to_parquet(part, index=False)

    baselines = _baselines(EVALUATE / "classify/episodes.parquet")

    def evidence(count: int) -> Evidence:
        these = [
            contenders.with_times(replace(one, episodes=answered(place, count)), times, place)
            for place, one in enumerate(both)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        for name, one in zip(("challenger", "champion"), these, strict=False):
            with draft(folder / f"{name}.parquet") as part:
                one.episodes.to_parquet(part, index=False, compression="zstd")
        return Evidence(
            challenger=these[0],
            champion=these[1] if len(these) > 1 else None,
            baselines=baselines[baselines["episode"] < count],
            meta_test=splits,
            data_digest=data,
            episodes_digest=episodes,
        )

    verdict = judge_until_settled(evidence, settings.gate, max(block.count for block in frozen))
    write_json(folder / "verdict.json", verdict.record())
    if "classify" in parts_of(MODEL) and weights_digest(MODEL, "classify") == digests[0] and CARD.exists():
        # The card of the stage knows no champion; this one does. What the card shows of the version is in build/.
        shutil.copy(folders[0] / "lineage.json", folder)
        write_card(Path("build"), folder / "card", gate=folder)
    return verdict


def _are_todays(root: Path) -> None:
    """Check that the episodes and the baselines' answers are of today's data and settings."""
    stale = stale_.stale(root)
    for step in ("data", "tasks@classify", "evaluate@classify"):
        if step in stale:
            raise QuickstudyError(
                f"its evidence would be older than what is here now ({step}: {stale[step][0]})",
                where="build/evaluate",
                fix="Bring it up to date: quickstudy run",
            )


def _splits(path: Path) -> dict[str, list[str]]:
    """Meta-test groups by dataset."""
    splits = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        name: [group for group, side in entry["groups"].items() if side == "test"] for name, entry in splits.items()
    }


def _baselines(path: Path) -> pd.DataFrame:
    columns = ["dataset", "suite", "shot", "episode", "method", "score"]
    return pd.read_parquet(path, columns=columns)
