"""What each suite asked and what it was told, as arrays, and how often each tag was found in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from quickstudy.data.dataset import Modality
from quickstudy.kinds.tag import targets
from quickstudy.kinds.tag.score import given_of, probability_of
from quickstudy.report.evidence import KindEvidence


@dataclass(frozen=True)
class Cell:
    """The E episodes of a suite at one number of examples: Q queries each, N tags asked about."""

    suite: str
    shot: int
    modality: Modality
    names: list[str]
    """of all tags of the dataset"""
    asked: np.ndarray
    """int64 [E, N]: places in ``names``"""
    there: np.ndarray
    """bool [E, Q, N]: which tags each query has"""
    given: np.ndarray
    """bool [E, Q, N]: which it was given"""
    probability: np.ndarray
    """float32 [E, Q, N]: how probable it was told to have each"""
    nll: np.ndarray
    """float64 [E]"""


def cells(evidence: KindEvidence) -> list[Cell]:
    """Return one for each suite and number of examples; none where the evaluation did not keep its answers."""
    known = tags_of(evidence)
    found = []
    for (suite, shot), part in evidence.answered.groupby(["suite", "shot"], sort=False):
        dataset = part["dataset"].iloc[0]
        asked, query, answers = (np.stack([*part[name]]) for name in ("asked", "query", "answers"))
        byte = answers.reshape(len(query), query.shape[1], asked.shape[1])
        there = known[dataset][query[..., None], asked[:, None]]
        names = targets.names(evidence.datasets[dataset])
        told = given_of(byte), probability_of(byte), part["nll"].to_numpy()
        found.append(Cell(str(suite), int(shot), part["modality"].iloc[0], names, asked, there, *told))
    return found


def tags_of(evidence: KindEvidence) -> dict[str, np.ndarray]:
    """Return of each dataset bool [n, L]: which tags each row has."""
    return {name: targets.array(dataset) for name, dataset in evidence.datasets.items()}


def by_tag(found: Sequence[Cell]) -> pd.DataFrame:
    """Return how well each tag was found over the episodes that asked about it.

    Returns:
        columns suite, shot, tag; there (queries that have it), given (that were given it), hits (both); and f1, its
        2 · hits / (there + given).
    """
    parts = []
    for cell in found:
        count = {
            name: np.bincount(cell.asked.ravel(), which.sum(1).ravel(), len(cell.names)).astype(np.int64)
            for name, which in (("there", cell.there), ("given", cell.given), ("hits", cell.there & cell.given))
        }
        frame = pd.DataFrame({"suite": cell.suite, "shot": cell.shot, "tag": cell.names} | count)
        parts.append(frame[np.isin(np.arange(len(cell.names)), cell.asked)])
    table = pd.concat(parts, ignore_index=True)
    return table.assign(f1=2 * table["hits"] / (table["there"] + table["given"]).clip(lower=1))


def by_number(found: Sequence[Cell]) -> pd.DataFrame:
    """Return how well queries were answered by how many of the tags asked about they have.

    Returns:
        columns shot, tags (so many), queries, exact (share whose whole set was found), recall (share of their tags that
        were given) and extra (mean number of tags given that they have not).
    """
    parts = [
        pd.DataFrame(
            {
                "shot": cell.shot,
                "tags": cell.there.sum(2).ravel(),
                "exact": (cell.there == cell.given).all(2).ravel(),
                "hits": (cell.there & cell.given).sum(2).ravel(),
                "extra": (cell.given & ~cell.there).sum(2).ravel(),
            }
        )
        for cell in found
    ]
    grouped = pd.concat(parts, ignore_index=True).groupby(["shot", "tags"])
    sums = grouped[["exact", "hits", "extra"]].sum().assign(queries=grouped.size()).reset_index()
    recall = sums["hits"] / (sums["tags"] * sums["queries"]).clip(lower=1)
    exact, extra = (sums[name] / sums["queries"] for name in ("exact", "extra"))
    return sums[["shot", "tags", "queries"]].assign(exact=exact, recall=recall, extra=extra)


def all_tags(evidence: KindEvidence, row: pd.Series) -> float:
    """Return the mean micro F1 of giving every query every tag, in the episodes of a row of the evaluation's table."""
    frozen = evidence.frozen[(evidence.frozen["suite"] == row["suite"]) & (evidence.frozen["shot"] == row["shot"])]
    query, asked = (np.stack([*frozen[name]]) for name in ("query", "asked"))
    there = targets.array(evidence.datasets[frozen["dataset"].iloc[0]])[query[..., None], asked[:, None]]
    hits = there.sum((1, 2))
    return float((2 * hits / (hits + there[0].size)).mean())
