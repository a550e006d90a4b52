"""Tasks of tag: N tags × K examples that have them, drawn from the tags of a dataset.

An example may have several tags. For drawing it stands under one of them, so that no example is in a task twice and
none is both support and query; its targets are all of its tags that the task asks about. Examples without any tag are
not drawn.
"""

import numpy as np
import torch
from torch import Tensor

from quickstudy.data.dataset import Dataset
from quickstudy.kinds.drawing import draw_groups, pool_by
from quickstudy.kinds.tag import targets as tags
from quickstudy.kinds.task import Episodes, Pool

FEWEST = 2
"""Tags of a task that is drawn."""

WHOLE = False
"""A row may have several tags, so that augmentation cannot make another tag of all rows of one."""


def pool(dataset: Dataset, chosen: np.ndarray) -> Pool:
    """Return rows to draw from: those where ``chosen`` (bool [n]) is true, or int64 [m] these, ascending."""
    return pool_by(dataset, chosen, tags.under(dataset), tags.names(dataset))


def draw(pool: Pool, batch: int, way: int, shot: int, query: int, generator: torch.Generator) -> Episodes:
    """Draw ``batch`` episodes: N distinct tags each, K + Q distinct rows under each.

    Raises:
        ValueError: fewer than ``way`` tags have ``shot + query`` rows under them.
    """
    rows, chosen = draw_groups(pool, batch, way, shot + query, generator)
    return Episodes(support=rows[..., :shot], query=rows[..., shot:], asked=pool.codes[chosen])


def targets(labels: Tensor, episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Return which of the tags that a task asks about each row of support and query has.

    Args:
        labels: bool [n, L], which of the dataset's tags each row has.

    Returns:
        int64 [B, N·K, N] and [B, N·Q, N], 0 or 1.
    """
    assert episodes.asked is not None
    asked = episodes.asked[:, None]  # [B, 1, N]
    support, query = (labels[rows.flatten(1)[..., None], asked].long() for rows in (episodes.support, episodes.query))
    return support, query
