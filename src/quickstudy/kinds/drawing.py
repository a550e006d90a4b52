"""Draw groups of rows, by index arithmetic on whole batches: what the kinds share whose tasks are N groups of rows."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.dataset import Dataset
from quickstudy.kinds.task import Pool

MANY = 4096
"""Examples of a class from which on a few are drawn one after the other: a random key for each would take longer than
all the rest of a training step, and for the frozen episodes of two classes of a million each 200 MB and more."""


def pool_by(dataset: Dataset, chosen: np.ndarray, under: np.ndarray, names: Sequence[str]) -> Pool:
    """Return rows of a dataset to draw from, group by group.

    Args:
        chosen: bool [n], or int64 [m] rows, ascending.
        under: int64 [n], the number of the group that each row is drawn under; below 0 it is not drawn.
        names: of the groups, by number.
    """
    rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
    rows = rows[under[rows] >= 0]
    rows = rows[np.argsort(under[rows], kind="stable")]
    present, counts = np.unique(under[rows], return_counts=True)
    return Pool(
        kind=dataset.info.kind,
        dataset=dataset.name,
        modality=dataset.modality,
        rows=torch.from_numpy(rows),
        starts=torch.from_numpy(np.cumsum(counts) - counts),
        counts=torch.from_numpy(counts),
        codes=torch.from_numpy(present),
        classes=tuple(names[number] for number in present),
    )


def draw_groups(pool: Pool, batch: int, way: int, need: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw N distinct groups, and of each distinct rows, for each of B tasks.

    Args:
        batch: B
        way: N
        need: rows of a group.

    Returns:
        int64 [B, N, need] rows of the dataset, and int64 [B, N] places of the groups among the pool's.

    Raises:
        ValueError: fewer than ``way`` groups have so many rows.
    """
    able = torch.nonzero(pool.counts >= need).squeeze(1)
    if len(able) < way:
        raise ValueError(f"{pool.dataset}: {len(able)} classes have {need} examples, {way} are asked for")
    # The order of random keys is a random order: the first N of it are N distinct classes.
    chosen = able[torch.rand(batch, len(able), generator=generator).argsort(dim=1)[:, :way]]  # [B, N]
    counts = pool.counts[chosen]
    if int(counts.max()) < MANY:
        keys = torch.rand(batch, way, int(counts.max()), generator=generator)
        keys.masked_fill_(torch.arange(keys.shape[2]) >= counts[..., None], 2.0)  # rows a class does not have come last
        within = keys.topk(need, dim=2, largest=False, sorted=True).indices
    else:
        within = _few_of_many(counts, need, generator)
    return pool.rows[pool.starts[chosen][..., None] + within], chosen


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
