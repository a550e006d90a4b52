"""Where it fails: classes that it takes for one another, and episodes to look at."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from quickstudy.data.dataset import MODALITIES, read_dataset
from quickstudy.report.evidence import Evidence, truth


@dataclass(frozen=True)
class Confusion:
    """A class that was taken for another."""

    true: str
    given: str
    times: int
    asked: int
    """queries of the true class in episodes that held the other one too: so often it could have been"""


def confusions(evidence: Evidence, suite: str, most: int = 3) -> list[Confusion]:
    """The confusions of a suite that happened most often, over all its episodes; of as many, by name."""
    own = evidence.ours[evidence.ours["suite"] == suite]
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
class Episode:
    """One to look at."""

    why: str
    """typical or worst"""
    suite: str
    dataset: str
    modality: str
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
        """bool [N, Q]"""
        return self.answers != np.arange(len(self.classes))[:, None]

    @property
    def answered(self) -> str:
        """ "18 of 25 right" """
        return f"{self.wrong.size - self.wrong.sum()} of {self.wrong.size} right"


def episodes_to_look_at(evidence: Evidence) -> list[list[Episode]]:
    """For each modality that made mistakes, of its weakest suite at the fewest shots: the episode whose error is
    nearest to the median of those with mistakes, and the worst; of equals the first."""
    found = []
    for modality in MODALITIES:
        own = evidence.ours[evidence.ours["modality"] == modality]
        own = own[own["shot"] == own["shot"].min()]
        if len(own) == 0 or own["accuracy"].min() == 1:
            continue
        suite = own.groupby("suite", sort=False)["accuracy"].mean().idxmin()
        own = own[(own["suite"] == suite) & (own["accuracy"] < 1)].sort_values("episode", ignore_index=True)
        typical = (own["accuracy"] - own["accuracy"].median()).abs().idxmin()
        worst = own["accuracy"].idxmin()
        chosen = {typical: "typical", worst: "worst"} if typical != worst else {worst: "worst"}
        found.append([_episode(evidence, own.loc[i], why) for i, why in chosen.items()])
    return found


def _episode(evidence: Evidence, row: pd.Series, why: str) -> Episode:
    dataset = read_dataset(evidence.data / row["dataset"])
    support, query, answers = (np.reshape(row[name], (row["way"], -1)) for name in ("support", "query", "answers"))
    classes = [dataset.classes[i] for i in dataset.class_index[support[:, 0]]]
    taught, asked = ([dataset.raw(rows) for rows in part] for part in (support, query))
    number = int(row["episode"])
    return Episode(
        why, row["suite"], dataset.name, dataset.modality, number, classes, support, query, answers, taught, asked
    )
