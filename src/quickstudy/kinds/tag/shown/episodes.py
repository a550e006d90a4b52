"""Episodes to look at with their examples: which tags each has, which it was given."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from quickstudy.data.dataset import Modality
from quickstudy.kinds.tag import targets
from quickstudy.kinds.tag.score import given_of
from quickstudy.kinds.tag.shown.cells import tags_of
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.extremes import Extreme, Why, typical_and_worst
from quickstudy.report.words import percent

MOST_TAUGHT, MOST_ASKED, RIGHT = 5, 10, 3
"""Examples of an episode that are shown, and of the asked how many at least whose tags were found, where there are."""


@dataclass(frozen=True)
class ShownEpisode:
    """An episode to look at, with its examples: S taught, Q asked, N tags."""

    why: Why
    suite: str
    modality: Modality
    number: int
    score: float
    tags: list[str]
    taught: list[Any]
    """[S] examples as they are stored: file bytes or texts"""
    asked: list[Any]
    """[Q]"""
    known: np.ndarray
    """bool [S, N]: which tags the taught have"""
    there: np.ndarray
    """bool [Q, N]: which the asked have"""
    given: np.ndarray
    """bool [Q, N]: which these were given"""

    @property
    def right(self) -> np.ndarray:
        """Return bool [Q]: whose whole set was found."""
        return (self.there == self.given).all(1)

    @property
    def answered(self) -> str:
        """Return "micro F1 81.3 %, 18 of 25 with exactly their tags"."""
        return f"micro F1 {percent(self.score)} %, {self.right.sum()} of {self.right.size} with exactly their tags"

    @property
    def shown_taught(self) -> list[int]:
        """Return the places of a few of the taught, evenly spread: they come tag by tag."""
        return np.unique(np.linspace(0, len(self.taught) - 1, MOST_TAUGHT).round().astype(int)).tolist()

    @property
    def shown_asked(self) -> list[int]:
        """Return the places of all the asked, or of a few: those with most mistakes, and some that were right; in their
        order."""
        mistakes = (self.there != self.given).sum(1)
        order = np.argsort(-mistakes, kind="stable")
        wrong, right = order[mistakes[order] > 0], order[mistakes[order] == 0]
        wrong = wrong[: MOST_ASKED - min(RIGHT, len(right))]
        return sorted([*wrong.tolist(), *right[: MOST_ASKED - len(wrong)].tolist()])

    def named(self, which: np.ndarray) -> list[str]:
        """Return the names of those tags that bool [N] says."""
        return [self.tags[place] for place in np.flatnonzero(which)]


def episodes_to_look_at(evidence: KindEvidence) -> list[list[ShownEpisode]]:
    """Return those of `typical_and_worst`, with their examples."""
    known = tags_of(evidence)
    return [[_shown(evidence, one, known) for one in chosen] for chosen in typical_and_worst(evidence)]


def _shown(evidence: KindEvidence, one: Extreme, known: Mapping[str, np.ndarray]) -> ShownEpisode:
    row, dataset = one.row, evidence.datasets[one.row["dataset"]]
    support, query, asked = row["support"], row["query"], row["asked"]
    names = targets.names(dataset)
    examples = dataset.raw(np.concatenate([support, query]))  # read at once
    has = known[dataset.name][:, asked]
    return ShownEpisode(
        one.why,
        row["suite"],
        dataset.modality,
        int(row["episode"]),
        float(row["score"]),
        [names[place] for place in asked],
        examples[: len(support)],
        examples[len(support) :],
        has[support],
        has[query],
        given_of(row["answers"]).reshape(len(query), -1),
    )
