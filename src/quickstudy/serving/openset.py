"""Is a query of none of a task's classes? Open-set recognition from the support set alone."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class OpenSet:
    """What a support set says of queries that belong to it."""

    vectors: Tensor
    """float32 [S, D], of length 1"""
    targets: Tensor
    """int64 [S]"""
    threshold: float
    """of `unknown`"""


def fit(support: Tensor, targets: Tensor, false_alarm: float) -> OpenSet:
    """Choose the threshold.

    Args:
        support: [S, D]
        targets: int64 [S], 0 … way - 1
        false_alarm: share of queries of the task's own classes that may be called unknown.
    """
    vectors = F.normalize(support, dim=-1)
    return OpenSet(vectors, targets, float("inf"))


def unknown(openset: OpenSet, query: Tensor) -> Tensor:
    """How unlike all examples each query is: [Q, D] → [Q], larger for less known."""
    return 1 - (F.normalize(query, dim=-1) @ openset.vectors.T).amax(-1)
