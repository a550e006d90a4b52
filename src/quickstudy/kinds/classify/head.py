"""How a learner answers a task of classify: one of N classes for each row, or none of them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.kinds import openset
from quickstudy.kinds.classify.targets import check_task
from quickstudy.kinds.openset import OpenSet, fit, unknown
from quickstudy.kinds.task import Decided
from quickstudy.learners import VectorLearner


def arrange(targets: Sequence[Any]) -> tuple[tuple[str, ...], Tensor]:
    """Return the classes of a task, sorted, and int64 [S], the number of each example's.

    Raises:
        QuickstudyError: fewer than two classes.
    """
    check_task(targets)
    classes = sorted(set(targets))
    place = {name: i for i, name in enumerate(classes)}
    return tuple(classes), torch.tensor([place[target] for target in targets])


def plain(numbers: Tensor) -> list[str]:
    """Return classes int64 [S] as targets, where they have no names."""
    return [str(number) for number in numbers.tolist()]


def shots(numbers: Tensor, way: int) -> tuple[int, ...]:
    """Return how many examples each class has."""
    return tuple(torch.bincount(numbers, minlength=way).tolist())


def pose(support: Tensor, targets: Tensor, way: int) -> tuple[Tensor, Tensor, int]:
    """Return what the learner is given: the support sets [B, S, ...], their classes int64 [B, S] and N, as they are."""
    return support, targets, way


def read(logits: Tensor, tasks: int) -> Tensor:
    """Return what the learner says, [B, Q, N] logits, of so many tasks: as it is."""
    return logits


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits [B, Q, N] with classes int64 [B, Q], in nats."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def can_be_left_out(numbers: Tensor, way: int) -> Tensor:
    """Return bool [S]: false for the only example of a class, without which the class is not known."""
    return torch.bincount(numbers, minlength=way)[numbers] > 1


def posed(way: int) -> tuple[int, int]:
    """Return 1 and N: a task is one choice of all its classes."""
    return 1, way


def effort(learner: VectorLearner, examples: int, way: int, dimension: int) -> float:
    """Return about how many products are added up to learn and settle a task of S examples, N classes and D."""
    return learner.effort(examples, way, dimension) + openset.effort(examples, way, dimension)


def offsets(learner: VectorLearner, vectors: Tensor, numbers: Tensor, way: int) -> float:
    """Return 0: the likeliest class is the answer."""
    return 0.0


def settle(learner: VectorLearner, vectors: Tensor, numbers: Tensor, way: int, false_alarm: float) -> OpenSet:
    """Choose where a query is of none of the classes.

    Args:
        vectors: [S, D]
        numbers: int64 [S]
        false_alarm: share of queries of the task's own classes that may be called unknown.
    """
    return fit(vectors, numbers, false_alarm)


def decide(names: Sequence[str], logits: Tensor, settled: OpenSet | None, query: Tensor | None) -> Decided:
    """Return what queries are, from logits [Q, N] and vectors [Q, D]; nothing is unknown where nothing is settled."""
    probabilities = logits.double().softmax(-1).numpy()
    strange, threshold = torch.zeros(len(logits)), float("inf")
    if settled is not None and query is not None:
        strange, threshold = unknown(settled, query), settled.threshold
    best = probabilities.argmax(1)
    targets = [names[i] for i in best]
    return Decided(probabilities, targets, probabilities.max(1), strange.double().numpy(), threshold)
