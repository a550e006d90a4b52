"""Leave-one-out: what a learner would have said of a task's examples, had it not known them."""

from collections.abc import Callable

import torch
from torch import Tensor

from quickstudy.learners import VectorLearner
from quickstudy.system.turns import give_way

ROWS = 20_000
"""Vectors of the tasks that are posed at once, or one task's, for each choice that it becomes."""
PRODUCTS = 400_000_000
"""That are added up at once, about: less than a twentieth of a second of two cores."""


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
    each = len(pose(vectors[None, :1], numbers[None, :1], way)[0])  # choices that a task becomes
    step, found = max(1, ROWS // (len(vectors) * each)), []
    for out in places.split(step):
        kept = torch.stack([everything[everything != place] for place in out])  # [B, S - 1]
        support, classes, choices = pose(vectors[kept], numbers[kept], way)
        query = vectors[out][:, None].repeat_interleave(len(support) // len(out), 0)
        many = max(1, int(PRODUCTS / learner.effort(support.shape[1], choices, support.shape[2])))
        logits = []
        for some in (slice(start, start + many) for start in range(0, len(support), many)):
            logits.append(learner.score(learner.adapt(support[some], classes[some], choices), query[some]))
            give_way()
        found.append(read(torch.cat(logits), len(out))[:, 0])
    return torch.cat(found)
