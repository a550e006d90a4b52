"""What a task is made of, whatever its kind: rows to draw from, the rows drawn, and arrays with their targets.

Sampling is index arithmetic on whole meta-batches: no Python loop runs per example. What a target is, and how an
episode is drawn, the kind says (`quickstudy.kinds.episodes`); here are the shapes that all kinds share.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.dataset import Modality


@dataclass(frozen=True)
class Pool:
    """Rows of one dataset to draw from, class by class (or tag by tag: a row may stand under several)."""

    kind: str
    dataset: str
    modality: Modality
    rows: Tensor
    """int64 [n]: row numbers in the dataset, class by class."""
    starts: Tensor
    """int64 [C]: where each class begins in ``rows``."""
    counts: Tensor
    """int64 [C]: how many rows each class has."""
    codes: Tensor
    """int64 [C]: the number of each class in the dataset."""
    classes: tuple[str, ...]

    def largest_way(self, examples: int) -> int:
        """Return how many classes have at least so many examples."""
        return int((self.counts >= examples).sum())


@dataclass(frozen=True)
class Episodes:
    """B tasks of the same way and shot, as row numbers of one dataset: N groups of K and of Q rows."""

    support: Tensor
    """int64 [B, N, K]: rows of the dataset."""
    query: Tensor
    """int64 [B, N, Q]"""
    asked: Tensor | None = None
    """int64 [B, N]: numbers in the dataset of the classes that a task asks about, where its rows do not say so."""

    @property
    def way(self) -> int:
        return self.support.shape[1]

    @property
    def shot(self) -> int:
        return self.support.shape[2]

    def part(self, start: int, stop: int) -> "Episodes":
        """Return the episodes from ``start`` to before ``stop``."""
        asked = None if self.asked is None else self.asked[start:stop]
        return Episodes(self.support[start:stop], self.query[start:stop], asked)


def joined(blocks: list[Episodes]) -> Episodes:
    """Return episodes of one way and shot, block after block."""
    asked = [block.asked for block in blocks if block.asked is not None]
    return Episodes(
        torch.cat([block.support for block in blocks]),
        torch.cat([block.query for block in blocks]),
        torch.cat(asked) if asked else None,
    )


@dataclass(frozen=True)
class TaskBatch:
    """Tasks of one modality, way and shot, ready for the encoder, with their targets. Rows come group by group, as
    `Episodes` has them, so that a task can be asked again with other rows as its support (`turned`)."""

    modality: Modality
    support: Tensor
    """[B, N·K, ...] arrays of the modality's frozen front"""
    query: Tensor
    """[B, N·Q, ...]"""
    way: int
    support_targets: Tensor
    """[B, N·K, ...]: of classify int64, 0 … N - 1; of tag int64 [B, N·K, N], 0 or 1"""
    query_targets: Tensor
    """[B, N·Q, ...], alike"""


def turned(support: Tensor, query: Tensor, way: int, turns: int) -> tuple[Tensor, Tensor]:
    """Return tasks several times over, each time with other rows as support and query.

    At turn r the rows of a group are moved on by r places.

    Args:
        support: [B, N·K, ...]
        query: [B, N·Q, ...]
        way: N
        turns: R; more than K + Q would repeat themselves and are left out.

    Returns:
        support [R·B, N·K, ...] and query [R·B, N·Q, ...], turn by turn.
    """
    support, query = (rows.unflatten(1, (way, rows.shape[1] // way)) for rows in (support, query))
    shot = support.shape[2]
    rows = torch.cat([support, query], 2)  # [B, N, K + Q, ...]
    rolled = torch.cat([rows.roll(-turn, 2) for turn in range(min(turns, rows.shape[2]))])
    return rolled[:, :, :shot].flatten(1, 2), rolled[:, :, shot:].flatten(1, 2)


@dataclass(frozen=True)
class Decided:
    """What a head makes of a task's answers to Q queries."""

    probabilities: np.ndarray
    """float64 [Q, N]: of each class, or of each tag by itself"""
    targets: list[Any]
    """of each query, as JSON has it: a class, a list of tags"""
    confidence: np.ndarray
    """float64 [Q]: how probable each of them is"""
    unknown: np.ndarray
    """float64 [Q]: above `threshold` the query seems to be of nothing that the task knows"""
    threshold: float
    """where the false-alarm rate that was asked for is reached; ∞ where nothing is refused"""


class Settled(Protocol):
    """What a head has fixed for a task, beside what the learner learned."""

    vectors: Tensor
    """float32 [S, D]: the examples, of length 1"""
