"""Tasks of classify: N classes × K examples, drawn from the classes of a dataset."""

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.dataset import Dataset
from quickstudy.kinds.drawing import draw_groups
from quickstudy.kinds.task import Episodes, Pool

FEWEST = 2
"""Classes of a task."""


WHOLE = True
"""A row is of one class, which augmentation may change as a whole."""


def names(dataset: Dataset) -> list[str]:
    """Return the classes of a dataset, sorted."""
    return dataset.classes


def labels(dataset: Dataset) -> Tensor:
    """Return int64 [n]: the number of each row's class in the dataset."""
    return torch.from_numpy(dataset.class_index)


def pool(dataset: Dataset, chosen: np.ndarray) -> Pool:
    """Return rows to draw from: those where ``chosen`` (bool [n]) is true, or int64 [m] these, ascending."""
    rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
    codes = dataset.class_index[rows]
    rows = rows[np.argsort(codes, kind="stable")]
    present, counts = np.unique(codes, return_counts=True)
    return Pool(
        kind=dataset.info.kind,
        dataset=dataset.name,
        modality=dataset.modality,
        rows=torch.from_numpy(rows),
        starts=torch.from_numpy(np.cumsum(counts) - counts),
        counts=torch.from_numpy(counts),
        codes=torch.from_numpy(present),
        classes=tuple(dataset.classes[i] for i in present),
    )


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
        labels: int64 [n], see `labels`.

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
