"""Suites and pools: what meta-training draws from, and what a model is tested on."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from quickstudy.config import Splits
from quickstudy.data.dataset import Dataset, by_code
from quickstudy.kinds.episodes import can_be_asked, pool_of
from quickstudy.kinds.task import Pool
from quickstudy.tasks.splits import row_splits

Novelty = Literal["classes", "domain", "dataset"]


@dataclass(frozen=True)
class Suite:
    """A named pool of meta-test examples, and what is new about it to the model."""

    name: str
    novelty: Novelty
    pool: Pool


def training_pools(dataset: Dataset, splits: Splits, split: Literal["train", "validation"]) -> list[Pool]:
    """The pools that meta-training (or its validation) draws from: one a dataset, or one a group where the
    dataset says that an episode stays within a group. Pools that no task can be drawn from are left out."""
    side, held_out = row_splits(dataset, splits)
    return [pool for _, pool in _pools(dataset, (side == split) & ~held_out) if can_be_asked(pool)]


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
    return [suite for suite in suites if can_be_asked(suite.pool)]


def _pools(dataset: Dataset, mask: np.ndarray) -> list[tuple[str, Pool]]:
    if not mask.any():
        return []
    if dataset.info.episode_scope == "dataset":
        return [(dataset.name, pool_of(dataset, mask))]
    groups, group = dataset.codes("group")
    apart = zip(groups, by_code(group, np.flatnonzero(mask), len(groups)), strict=True)
    return [(f"{dataset.name}/{name}", pool_of(dataset, rows)) for name, rows in apart if len(rows)]
