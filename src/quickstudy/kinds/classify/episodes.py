"""Tasks of classify: N classes × K examples, drawn from the classes of a dataset."""

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.dataset import Dataset
from quickstudy.kinds.drawing import draw_groups, pool_by
from quickstudy.kinds.task import Episodes, Pool

FEWEST = 2
"""Classes of a task."""

WHOLE = True
"""A row is of one class, which augmentation may change as a whole."""


def pool(dataset: Dataset, chosen: np.ndarray) -> Pool:
    """Return rows to draw from: those where ``chosen`` (bool [n]) is true, or int64 [m] these, ascending."""
    return pool_by(dataset, chosen, dataset.class_index, dataset.classes)


def draw(pool: Pool, batch: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episodes:
    """Draw ``batch`` episodes: N distinct classes each, K + Q distinct rows a class.

    Raises:
        ValueError: fewer than ``way`` classes have ``shot + query`` rows.
    """
    rows, _ = draw_groups(pool, batch, way, shot + query, generator)
    return Episodes(support=rows[..., :shot], query=rows[..., shot:])


def targets(labels: Tensor, episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Return the class of each row of support and query among those of its task.

    A task's classes are numbered in the order in which its support set has them.

    Args:
        labels: int64 [n], the number of each row's class in the dataset.

    Returns:
        int64 [B, N·K] and [B, N·Q], 0 … N - 1.
    """
    asked = labels[episodes.support[..., 0]]  # [B, N]
    sorted_classes, order = asked.sort(dim=1)

    def places(rows: Tensor) -> Tensor:
        own = labels[rows.flatten(1)]
        found = torch.searchsorted(sorted_classes, own).clamp(max=episodes.way - 1)
        assert torch.equal(sorted_classes.gather(1, found), own)
        return order.gather(1, found)

    return places(episodes.support), places(episodes.query)
