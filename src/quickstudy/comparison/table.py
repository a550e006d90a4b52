"""What a comparison says: a row a cell, and which cell to take. Pure: frames in, frames out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from quickstudy.comparison.grid import Cell
from quickstudy.stats.intervals import paired_interval, stratified_interval

KEYS = ["modality", "suite", "shot"]
"""What names a stratum: episodes that are drawn alike."""


@dataclass(frozen=True)
class Cost:
    """Of one training."""

    seconds: float
    parameters: int
    peak_mib: float
    """The most memory that the process held meanwhile; NaN where the system does not tell."""


@dataclass(frozen=True)
class Recommendation:
    """Names of cells."""

    best: str
    equals: tuple[str, ...]
    """Not significantly worse than the best: the 95% interval of the paired difference holds 0."""
    chosen: str
    """The one that adapts fastest, of the best and its equals."""


def tabulate(
    cells: Sequence[Cell], episodes: pd.DataFrame, costs: Mapping[str, Sequence[Cost]], failures: Mapping[str, str]
) -> pd.DataFrame:
    """One row a cell, the best first, the failed ones last.

    Each modality counts alike in what is said of all, and so does each suite and number of shots within it.

    Args:
        episodes: columns cell, seed, modality, suite, shot, episode, score, adapt_ms (NaN where it was not timed).
        costs: by the name of the cell, of each of its trainings.
        failures: by the name of the cell, why it has no episodes.

    Returns:
        cell, learner, change, trainings, episodes, score, ci95 (half width), score_M and ci95_M for each
        modality M, difference (to the best, on the same episodes) and difference_ci95, adapt_ms_M (median), adapt_ms
        (the mean of those), train_seconds, parameters, peak_mib (means over trainings), failure.
    """
    answers = {name: _strata(part) for name, part in episodes.groupby("cell", sort=False)}
    if not answers:
        return pd.DataFrame([_failed(cell, failures[cell.name]) for cell in cells])
    first = next(iter(answers))
    for name, own in answers.items():
        if {key: x.shape for key, x in own.items()} != {key: x.shape for key, x in answers[first].items()}:
            raise ValueError(f"{name} answered other episodes than {first}")
    strata = list(answers[first])
    modalities = list(dict.fromkeys(modality for modality, _, _ in strata))
    weights = [1 / len(modalities) / sum(m == modality for m, _, _ in strata) for modality, _, _ in strata]
    means = {name: stratified_interval(list(own.values()), weights) for name, own in answers.items()}
    best = max(means, key=lambda name: means[name][0])
    rows = []
    for cell in cells:
        if cell.name not in answers:
            continue
        own = answers[cell.name]
        part = episodes[episodes["cell"] == cell.name]
        row: dict[str, Any] = {
            "cell": cell.name,
            "learner": cell.learner,
            "change": cell.change.text if cell.change else "",
            "trainings": part["seed"].nunique(),
            "episodes": sum(values.shape[1] for values in own.values()),
        }
        row["score"], row["ci95"] = means[cell.name]
        for modality in modalities:
            of_it = [values for (m, _, _), values in own.items() if m == modality]
            row[f"score_{modality}"], row[f"ci95_{modality}"] = stratified_interval(of_it)
        row["difference"], row["difference_ci95"] = 0.0, 0.0
        if cell.name != best:
            both = list(own.values()), list(answers[best].values())
            row["difference"], row["difference_ci95"] = paired_interval(*both, weights)
        times = part.groupby("modality", sort=False)["adapt_ms"].median()
        row |= {f"adapt_ms_{modality}": times[modality] for modality in modalities}
        row["adapt_ms"] = float(times.mean())
        cost = costs[cell.name]
        row["train_seconds"] = float(np.mean([one.seconds for one in cost]))
        row["parameters"] = cost[0].parameters
        row["peak_mib"] = float(np.mean([one.peak_mib for one in cost]))
        rows.append(row | {"failure": ""})
    rows.sort(key=lambda row: -row["score"])
    failed = [_failed(cell, failures[cell.name]) for cell in cells if cell.name in failures]
    return pd.DataFrame(rows + failed)


def recommend(table: pd.DataFrame) -> Recommendation:
    """Of a table with at least one row that did not fail: the best, its equals and the fastest of them.

    Where two are equally fast, or times are missing, the one with the higher score is chosen.
    """
    rows = table[table["failure"] == ""].sort_values("score", ascending=False, kind="stable")
    able = rows[rows["difference"] + rows["difference_ci95"] >= 0]
    fastest = able.sort_values("adapt_ms", kind="stable", na_position="last")
    names = able["cell"].tolist()
    return Recommendation(names[0], tuple(names[1:]), fastest["cell"].iloc[0])


def _strata(episodes: pd.DataFrame) -> dict[tuple[str, str, int], np.ndarray]:
    """Scores [S, n] of a cell by modality, suite and shots: a row a training, a column an episode."""
    found = {}
    for key, part in episodes.groupby(KEYS, sort=True):
        wide = part.pivot(index="seed", columns="episode", values="score").sort_index().sort_index(axis=1)
        found[key] = wide.to_numpy()
    return found


def _failed(cell: Cell, why: str) -> dict[str, Any]:
    change = cell.change.text if cell.change else ""
    return {"cell": cell.name, "learner": cell.learner, "change": change, "score": math.nan, "failure": why}
