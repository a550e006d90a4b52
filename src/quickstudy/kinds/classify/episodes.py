"""Tasks of classify: N classes × K examples, drawn from the classes of a dataset."""

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.dataset import Dataset
from quickstudy.kinds.task import Episodes, Pool

MANY = 4096
"""Examples of a class from which on a few are drawn one after the other: a random key for each would take longer than
all the rest of a training step, and for the frozen episodes of two classes of a million each 200 MB and more."""

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
    need = shot + query
    chosen = classes_of(pool, batch, way, need, generator)  # [B, N]
    counts = pool.counts[chosen]
    if int(counts.max()) < MANY:
        keys = torch.rand(batch, way, int(counts.max()), generator=generator)
        keys.masked_fill_(torch.arange(keys.shape[2]) >= counts[..., None], 2.0)  # rows a class does not have come last
        within = keys.topk(need, dim=2, largest=False, sorted=True).indices
    else:
        within = _few_of_many(counts, need, generator)
    rows = pool.rows[pool.starts[chosen][..., None] + within]  # [B, N, K + Q]
    return Episodes(support=rows[..., :shot], query=rows[..., shot:])


def classes_of(pool: Pool, batch: int, way: int, need: int, generator: torch.Generator) -> Tensor:
    """Draw the classes of episodes: int64 [B, N], places in the pool's classes, each of at least ``need`` rows.

    Raises:
        ValueError: fewer than ``way`` classes have so many.
    """
    able = torch.nonzero(pool.counts >= need).squeeze(1)
    if len(able) < way:
        raise ValueError(f"{pool.dataset}: {len(able)} classes have {need} examples, {way} are asked for")
    # The order of random keys is a random order: the first N of it are N distinct classes.
    return able[torch.rand(batch, len(able), generator=generator).argsort(dim=1)[:, :way]]


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


def _few_of_many(counts: Tensor, need: int, generator: torch.Generator) -> Tensor:
    """int64 [..., need]: distinct numbers below each of ``counts`` ([...], at least ``need``), in random order."""
    shares = torch.rand(*counts.shape, need, generator=generator, dtype=torch.float64)
    drawn = torch.empty(*counts.shape, 0, dtype=torch.int64)
    for taken in range(need):
        # A place among those that are left; each of the taken ones at or before it moves it on by one.
        place = (shares[..., taken] * (counts - taken)).long()
        gaps = drawn.sort(dim=-1).values - torch.arange(taken)
        drawn = torch.cat([drawn, (place + (gaps <= place[..., None]).sum(-1))[..., None]], dim=-1)
    return drawn
