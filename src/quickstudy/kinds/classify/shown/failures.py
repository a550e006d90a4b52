"""Where it fails: classes that it takes for one another, and the episodes to look at with their examples."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from quickstudy.data.dataset import Modality
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.extremes import Extreme, Why, typical_and_worst


def truth(way: int, queries: int) -> np.ndarray:
    """Return int64 [queries]: the class of each query of an episode, class by class."""
    return np.repeat(np.arange(way), queries // way)


@dataclass(frozen=True)
class Confusion:
    """A class that was taken for another."""

    true: str
    given: str
    times: int
    asked: int
    """queries of the true class in episodes that held the other one too: so often it could have been"""


def confusions(evidence: KindEvidence, suite: str, most: int = 3) -> list[Confusion]:
    """Return the confusions of a suite that happened most often, over all its episodes; of as many, by name."""
    own = evidence.answered[evidence.answered["suite"] == suite]
    cells = []  # of each number of shots, the classes of its episodes [E, N] and which class each query got [E, N·Q]
    for (_, way), part in own.groupby(["shot", "way"], sort=True):
        labels = evidence.datasets[part["dataset"].iloc[0]].class_index
        support, answers = np.stack([*part["support"]]), np.stack([*part["answers"]])
        classes = labels[support[:, :: support.shape[1] // way]]
        cells.append((classes, classes[:, truth(way, answers.shape[1])], np.take_along_axis(classes, answers, 1)))
    if not cells:
        return []
    wrong = np.concatenate([np.stack([true, given], -1)[true != given] for _, true, given in cells])
    pairs, times = np.unique(wrong, axis=0, return_counts=True)
    names = evidence.datasets[own["dataset"].iloc[0]].classes
    found = []
    for i in np.lexsort((*pairs.T[::-1], -times))[:most]:  # classes are numbered in the order of their names
        asked = 0
        for classes, true, _ in cells:
            both = (classes == pairs[i, 0]).any(1) & (classes == pairs[i, 1]).any(1)
            asked += int((true[both] == pairs[i, 0]).sum())
        found.append(Confusion(names[pairs[i, 0]], names[pairs[i, 1]], int(times[i]), asked))
    return found


@dataclass(frozen=True)
class ShownEpisode:
    """An episode to look at, with its examples."""

    why: Why
    suite: str
    dataset: str
    modality: Modality
    number: int
    classes: list[str]
    support: np.ndarray
    """[N, K] rows of the dataset"""
    query: np.ndarray
    """[N, Q]"""
    answers: np.ndarray
    """[N, Q] places in ``classes``"""
    taught: list[list[Any]]
    """[N][K] examples as they are stored: file bytes or texts"""
    asked: list[list[Any]]
    """[N][Q]"""

    @property
    def wrong(self) -> np.ndarray:
        """Return bool [N, Q]: which queries were answered by another class."""
        return self.answers != np.arange(len(self.classes))[:, None]

    @property
    def answered(self) -> str:
        """Return "18 of 25 right"."""
        return f"{self.wrong.size - self.wrong.sum()} of {self.wrong.size} right"


def episodes_to_look_at(evidence: KindEvidence) -> list[list[ShownEpisode]]:
    """Return those of `typical_and_worst`, with their examples."""
    return [[_shown(evidence, one) for one in chosen] for chosen in typical_and_worst(evidence)]


def _shown(evidence: KindEvidence, one: Extreme) -> ShownEpisode:
    row = one.row
    dataset = evidence.datasets[row["dataset"]]
    support, query, answers = (np.reshape(row[name], (row["way"], -1)) for name in ("support", "query", "answers"))
    classes = [dataset.classes[i] for i in dataset.class_index[support[:, 0]]]
    examples = iter(dataset.raw(np.concatenate([support.ravel(), query.ravel()])))  # read at once
    taught, asked = ([[next(examples) for _ in rows] for rows in part] for part in (support, query))
    return ShownEpisode(
        one.why,
        row["suite"],
        dataset.name,
        dataset.modality,
        int(row["episode"]),
        classes,
        support,
        query,
        answers,
        taught,
        asked,
    )
