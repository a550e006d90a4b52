"""Episodes: which rows of a dataset form the support and the query of a task.

A `Pool` is a set of rows to draw from (the meta-train rows of a dataset, say). Sampling is index arithmetic on
whole meta-batches: no Python loop runs per episode or per example.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from quickstudy.config import Splits
from quickstudy.data.dataset import Dataset, Modality, by_code
from quickstudy.tasks.splits import row_splits

MANY = 4096
"""Examples of a class from which on a few are drawn one after the other: a random key for each would take longer than
all the rest of a training step, and for the frozen episodes of two classes of a million each 200 MB and more."""

Novelty = Literal["classes", "domain", "dataset"]


@dataclass(frozen=True)
class Pool:
    """Rows of one dataset, sorted by class, that episodes are drawn from."""

    dataset: str
    modality: Modality
    rows: torch.Tensor
    """int64 [n]: row numbers in the dataset, class by class."""
    starts: torch.Tensor
    """int64 [C]: where each class begins in ``rows``."""
    counts: torch.Tensor
    """int64 [C]: how many rows each class has."""
    classes: tuple[str, ...]

    @staticmethod
    def of(dataset: Dataset, chosen: np.ndarray) -> "Pool":
        """Rows of a dataset: those where ``chosen`` (bool [n]) is true, or int64 [m] these, ascending."""
        rows = np.flatnonzero(chosen) if chosen.dtype == bool else chosen
        labels = dataset.class_index[rows]
        rows = rows[np.argsort(labels, kind="stable")]
        present, counts = np.unique(labels, return_counts=True)
        return Pool(
            dataset=dataset.name,
            modality=dataset.modality,
            rows=torch.from_numpy(rows),
            starts=torch.from_numpy(np.cumsum(counts) - counts),
            counts=torch.from_numpy(counts),
            classes=tuple(dataset.classes[i] for i in present),
        )

    def largest_way(self, examples: int) -> int:
        """How many classes have at least so many examples."""
        return int((self.counts >= examples).sum())


@dataclass(frozen=True)
class Episodes:
    """B tasks of the same way and shot. Labels are implied: column n of ``support`` and ``query`` is class n."""

    support: torch.Tensor
    """int64 [B, N, K]: rows of the dataset."""
    query: torch.Tensor
    """int64 [B, N, Q]"""

    @property
    def way(self) -> int:
        return self.support.shape[1]

    @property
    def shot(self) -> int:
        return self.support.shape[2]


def sample(pool: Pool, batch: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episodes:
    """Draw ``batch`` episodes: N distinct classes each, K + Q distinct rows a class.

    Raises:
        ValueError: fewer than ``way`` classes have ``shot + query`` rows.
    """
    need = shot + query
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
    rows = pool.rows[pool.starts[chosen][..., None] + within]  # [B, N, K + Q]
    return Episodes(support=rows[..., :shot], query=rows[..., shot:])


def _few_of_many(counts: torch.Tensor, need: int, generator: torch.Generator) -> torch.Tensor:
    """int64 [..., need]: distinct numbers below each of ``counts`` ([...], at least ``need``), in random order."""
    shares = torch.rand(*counts.shape, need, generator=generator, dtype=torch.float64)
    drawn = torch.empty(*counts.shape, 0, dtype=torch.int64)
    for taken in range(need):
        # A place among those that are left; each of the taken ones at or before it moves it on by one.
        place = (shares[..., taken] * (counts - taken)).long()
        gaps = drawn.sort(dim=-1).values - torch.arange(taken)
        drawn = torch.cat([drawn, (place + (gaps <= place[..., None]).sum(-1))[..., None]], dim=-1)
    return drawn


@dataclass(frozen=True)
class Suite:
    """A named pool of meta-test examples, and what is new about it to the model."""

    name: str
    novelty: Novelty
    pool: Pool


def training_pools(dataset: Dataset, splits: Splits, split: Literal["train", "validation"]) -> list[Pool]:
    """The pools that meta-training (or its validation) draws from: one a dataset, or one a group where the
    dataset says that an episode stays within a group. Pools of fewer than two classes are left out."""
    side, held_out = row_splits(dataset, splits)
    return [pool for _, pool in _pools(dataset, (side == split) & ~held_out) if len(pool.classes) >= 2]


def test_suites(dataset: Dataset, splits: Splits) -> list[Suite]:
    """The meta-test suites of a dataset.

    ``NAME`` tests new classes, or a new dataset where the whole dataset is meta-test; ``NAME@VOICE`` (by what a domain
    is) tests new classes in domains never met in meta-training; ``NAME/GROUP`` where an episode stays within a group.
    """
    side, held_out = row_splits(dataset, splits)
    seen: Novelty = "classes" if (side == "train").any() else "dataset"
    suites = [Suite(name, seen, pool) for name, pool in _pools(dataset, (side == "test") & ~held_out)]
    if held_out.any():
        mark = f"@new-{dataset.info.domain}"
        suites += [Suite(name + mark, "domain", pool) for name, pool in _pools(dataset, (side == "test") & held_out)]
    return [suite for suite in suites if len(suite.pool.classes) >= 2]


def _pools(dataset: Dataset, mask: np.ndarray) -> list[tuple[str, Pool]]:
    if not mask.any():
        return []
    if dataset.info.episode_scope == "dataset":
        return [(dataset.name, Pool.of(dataset, mask))]
    groups, group = dataset.codes("group")
    apart = zip(groups, by_code(group, np.flatnonzero(mask), len(groups)), strict=True)
    return [(f"{dataset.name}/{name}", Pool.of(dataset, rows)) for name, rows in apart if len(rows)]
