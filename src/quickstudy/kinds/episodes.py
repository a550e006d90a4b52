"""How each kind draws its tasks. A kind's module is its row here; adding a kind adds one."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.dataset import Dataset
from quickstudy.kinds.classify import episodes as classify
from quickstudy.kinds.tag import episodes as tag
from quickstudy.kinds.targets import TARGETS
from quickstudy.kinds.task import Episodes, Pool


class Drawing(Protocol):
    """What ``kinds/KIND/episodes.py`` offers. A draw is a pure function of its generator."""

    FEWEST: int
    """Groups that a task is drawn with, at least."""

    WHOLE: bool
    """Whether each row is of one group alone, so that training may change all rows of a group alike."""

    def pool(self, dataset: Dataset, chosen: np.ndarray) -> Pool:
        """Return the rows to draw from: bool [n], or int64 [m] ascending."""

    def draw(self, pool: Pool, batch: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episodes:
        """Draw B episodes. Raise ValueError where the pool has not the rows."""

    def targets(self, labels: Tensor, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Return the targets of support [B, N·K, ...] and query [B, N·Q, ...]; ``labels`` are those of `labels_of`."""


EPISODES: dict[str, Drawing] = {"classify": classify, "tag": tag}


def labels_of(dataset: Dataset) -> Tensor:
    """Return a dataset's targets by numbers of names, as its kind has them, [n, ...]."""
    return torch.from_numpy(TARGETS[dataset.info.kind].array(dataset))


def pool_of(dataset: Dataset, chosen: np.ndarray) -> Pool:
    """Return rows of a dataset to draw from, as its kind arranges them."""
    return EPISODES[dataset.info.kind].pool(dataset, chosen)


def can_be_asked(pool: Pool) -> bool:
    """Return whether a task can be drawn from a pool at all."""
    return len(pool.classes) >= EPISODES[pool.kind].FEWEST


def largest_way(pool: Pool, way: int, examples: int) -> int | None:
    """Return how many classes a task of so many examples each can have, at most ``way``; None: there is no task."""
    most = min(way, pool.largest_way(examples))
    return most if most >= EPISODES[pool.kind].FEWEST else None
