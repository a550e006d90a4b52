"""Champion and challenger answer today's frozen episodes of a kind: the evidence that the gate is given."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from quickstudy.config import Evaluate
from quickstudy.data.plain_yaml import read_yaml
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.answers import Progress, Subject, adapt_ms, evaluate
from quickstudy.evaluation.gate import Contender
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import WEIGHTS, part_digest, part_of
from quickstudy.tasks.frozen import FrozenEpisodes

NOT_ANSWERED = pd.DataFrame(
    {name: [] for name in ("kind", "suite", "dataset", "shot", "episode", "method", "score", "adapt_ms")}
)


def contender(name: str, folder: Path, kind: str, data_digest: str, episodes_digest: str) -> Contender:
    """Return a part of a saved model before it has answered.

    Args:
        name: as the verdict calls it.
        folder: of the model.
        kind: whose part of it answers.
        data_digest, episodes_digest: what it is about to answer on.

    Raises:
        QuickstudyError: the folder does not say what the model is or was trained on.
    """
    try:
        folder = part_of(folder, kind)
        config = read_yaml((folder / "config.yaml").read_text(encoding="utf-8"))
        lineage = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))
        return Contender(
            name=name,
            episodes=NOT_ANSWERED,
            trained_on=lineage["trained_on"],
            modalities=config["modalities"],
            format=config["format"],
            mebibytes=(folder / WEIGHTS).stat().st_size / 2**20,
            data_digest=data_digest,
            episodes_digest=episodes_digest,
            part_digest=_digest(folder, config),
        )
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise QuickstudyError(
            f"does not say what it is or was trained on ({type(error).__name__}: {error})",
            where=name,
            fix="A model without that proves nothing: train one, or decide by hand, with the reason",
        ) from None


def _digest(part: Path, config: Mapping[str, Any]) -> str:
    """Of all of a part that decides what it answers. One of before there were kinds does not name its own."""
    settings = json.dumps({"kind": "classify", **config}, sort_keys=True)
    return hashlib.sha256(f"{part_digest(part)} {settings}".encode()).hexdigest()


def answers(
    model: MetaModel,
    subjects: Mapping[str, Subject],
    frozen: Sequence[FrozenEpisodes],
    start: int,
    stop: int,
    progress: Progress = lambda done, total: None,
) -> pd.DataFrame:
    """Let a model answer the episodes ``start`` to ``stop`` of each cell, untimed; return what `evaluate` returns."""
    alone = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=0)
    chosen = [block.part(start, stop) for block in frozen if block.count > start]
    if not chosen:
        return NOT_ANSWERED
    found = evaluate(model, subjects, chosen, alone, 0, progress)
    return found.assign(episode=found["episode"] + start)


@torch.inference_mode()
def time_together(
    models: Sequence[MetaModel],
    subjects: Mapping[str, Subject],
    frozen: Sequence[FrozenEpisodes],
    timed: int,
    progress: Progress = lambda done, total: None,
) -> pd.DataFrame:
    """Measure milliseconds from the files of a task's support set to its state. The models take turns, and who begins
    changes, so that a machine that slows down slows all of them.

    Returns:
        columns suite, shot, episode (the first ``timed`` of each cell) and, of each model, its place in ``models``.
    """
    rows = []
    total, done = sum(min(timed, block.count) for block in frozen), 0
    for block in frozen:
        for episode in range(min(timed, block.count)):
            row: dict[str | int, object] = {"suite": block.suite, "shot": block.episodes.shot, "episode": episode}
            for place in np.roll(np.arange(len(models)), episode).tolist():
                row[place] = adapt_ms(models[place], subjects[block.dataset], block, episode)
            rows.append(row)
            done += 1
            progress(done, total)
    return pd.DataFrame(rows, columns=["suite", "shot", "episode", *range(len(models))])


def with_times(contender: Contender, times: pd.DataFrame, place: int) -> Contender:
    """Return the contender with the times of `time_together` at its episodes; the other episodes have none."""
    bare = contender.episodes.drop(columns="adapt_ms", errors="ignore")
    own = times[["suite", "shot", "episode", place]].rename(columns={place: "adapt_ms"})
    found = bare.merge(own, how="left", on=["suite", "shot", "episode"])
    return replace(contender, episodes=found.assign(adapt_ms=found["adapt_ms"].astype(float).fillna(math.nan)))
