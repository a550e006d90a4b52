"""Leave-one-out: what a learner would have said of a task's examples, had it not known them."""

from collections.abc import Callable

import torch
from torch import Tensor

from quickstudy.learners import VectorLearner

ROWS = 20_000
"""Vectors of the tasks that are adapted at once."""


def left_out(
    learner: VectorLearner,
    pose: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor, int]],
    read: Callable[[Tensor, int], Tensor],
    vectors: Tensor,
    numbers: Tensor,
    way: int,
    places: Tensor,
) -> Tensor:
    """Return what is said of examples that are each left out in turn.

    Args:
        pose, read: of the kind's head (`quickstudy.kinds.heads`).
        vectors: [S, D]
        numbers: [S, ...], the targets.
        way: N
        places: int64 [M], of the examples that are asked about.

    Returns:
        answers [M, N].
    """
    everything = torch.arange(len(vectors))
    step, found = max(1, ROWS // len(vectors)), []
    for out in places.split(step):
        kept = torch.stack([everything[everything != place] for place in out])  # [B, S - 1]
        support, classes, choices = pose(vectors[kept], numbers[kept], way)
        query = vectors[out][:, None].repeat_interleave(len(support) // len(out), 0)
        found.append(read(learner.score(learner.adapt(support, classes, choices), query), len(out))[:, 0])
    return torch.cat(found)
