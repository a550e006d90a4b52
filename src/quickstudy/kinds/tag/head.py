"""How a learner answers a task of tag: for each tag by itself, whether a row has it.

A task of N tags becomes N choices between "has it" and "has it not", over the same rows, so that every learner serves.
Where "has it" begins is chosen for each tag on the support set: each example is left out in turn, and the threshold
moves towards where F1 is best (Lipton et al. 2014, "Thresholding classifiers to maximize F1 score"). It moves only
where that gains much, and half the way, as an example that is left out is surer to be missed than a new one: on the
meta-validation tasks of the starter data that gained 2 points at 2 shots and cost 0.1 to 0.3 at 5 (10: even), where the
best threshold itself, drawn towards even odds by the number of examples, gained 1 at 2 and cost 1 at 10.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.kinds.left_out import left_out
from quickstudy.kinds.tag.targets import check_task, count
from quickstudy.kinds.task import Decided
from quickstudy.learners import VectorLearner

FAR = 30.0
"""The logit of what is sure, as where all examples of a task have a tag."""
MOST = 100
"""Examples that are left out to choose thresholds, evenly spread over the task."""
GAIN = 0.2
"""F1 on the examples left out that another threshold than even odds must bring."""
NEAR = 0.05
"""Thresholds with an F1 so near to the best count as equally good; the one in the middle is taken."""


@dataclass(frozen=True)
class Thresholds:
    """Where each tag of a task begins."""

    vectors: Tensor
    """float32 [S, D]: the examples, of length 1"""
    values: Tensor
    """float32 [N], of the logits"""


def arrange(targets: Sequence[Any]) -> tuple[tuple[str, ...], Tensor]:
    """Return the tags of a task, sorted, and int64 [S, N], which of them each example has.

    Raises:
        QuickstudyError: no tag that some examples have and others have not.
    """
    check_task(targets)
    names = list(count(targets))
    place = {name: i for i, name in enumerate(names)}
    numbers = torch.zeros(len(targets), len(names), dtype=torch.int64)
    for row, target in enumerate(targets):
        for name in target:
            numbers[row, place[name]] = 1
    return tuple(names), numbers


def plain(numbers: Tensor) -> list[list[str]]:
    """Return tags int64 [S, N] as targets, where they have no names."""
    return [[str(place) for place in torch.nonzero(row).squeeze(1).tolist()] for row in numbers]


def shots(numbers: Tensor, way: int) -> tuple[int, ...]:
    """Return how many examples have each tag."""
    return tuple(numbers.sum(0).tolist())


def pose(support: Tensor, targets: Tensor, way: int) -> tuple[Tensor, Tensor, int]:
    """Return N choices a task: support [B, S, ...] and tags int64 [B, S, N] → [B·N, S, ...], int64 [B·N, S], 2."""
    return support.repeat_interleave(way, 0), targets.transpose(1, 2).flatten(0, 1), 2


def read(logits: Tensor, tasks: int) -> Tensor:
    """Return by how much "has it" outweighs "has it not", [B, Q, N], from the learner's logits [B·N, Q, 2]."""
    odds = (logits[..., 1] - logits[..., 0]).nan_to_num(posinf=FAR, neginf=-FAR)
    return odds.unflatten(0, (tasks, -1)).transpose(1, 2)


def loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits [B, Q, N] with tags int64 [B, Q, N], in nats."""
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


def can_be_left_out(numbers: Tensor, way: int) -> Tensor:
    """Return bool [S]: false for an example that alone has a tag, or alone has it not."""
    having = numbers.sum(0)
    alike = torch.where(numbers > 0, having, len(numbers) - having)  # [S, N]: so many have, or have not, the tag
    return (alike > 1).all(1)


def offsets(learner: VectorLearner, vectors: Tensor, numbers: Tensor, way: int) -> Tensor:
    """Return where each tag begins, for each of B tasks.

    Args:
        vectors: [B, S, D]
        numbers: int64 [B, S, N]

    Returns:
        float32 [B, N], of the logits.
    """
    return torch.stack([_thresholds(learner, *task, way) for task in zip(vectors, numbers, strict=True)])


def settle(learner: VectorLearner, vectors: Tensor, numbers: Tensor, way: int, false_alarm: float) -> Thresholds:
    """Choose where each tag begins, on the support set: vectors [S, D], tags int64 [S, N]."""
    return Thresholds(F.normalize(vectors, dim=-1), _thresholds(learner, vectors, numbers, way))


def decide(names: Sequence[str], logits: Tensor, settled: Thresholds | None, query: Tensor | None) -> Decided:
    """Return what queries are, from logits [Q, N]. A query may have no tag; none is unknown."""
    odds = logits if settled is None else logits - settled.values
    probabilities = odds.double().sigmoid().numpy()
    chosen = [[names[i] for i in np.flatnonzero(row > 0.5).tolist()] for row in probabilities]
    confidence = np.maximum(probabilities, 1 - probabilities).min(1)  # of the tag that is least sure
    return Decided(probabilities, chosen, confidence, np.zeros(len(logits)), float("inf"))


def _thresholds(learner: VectorLearner, vectors: Tensor, numbers: Tensor, way: int) -> Tensor:
    """[S, D], int64 [S, N] → float32 [N]"""
    having = numbers.sum(0)
    able = (having > 1) & (having < len(numbers) - 1)  # the tags that are there however one example is left out
    places = torch.arange(len(numbers))[:: -(-len(numbers) // MOST)]
    chosen = torch.zeros(way)
    if not bool(able.any()):
        return chosen
    odds = left_out(learner, pose, read, vectors, numbers, way, places)  # [M, N]
    for tag in torch.nonzero(able).squeeze(1).tolist():
        chosen[tag] = _threshold(odds[:, tag], numbers[places, tag] > 0)
    return chosen


def _threshold(odds: Tensor, has: Tensor) -> float:
    """Of "odds above it" for who has a tag: [M], bool [M]"""
    values = odds.sort().values
    between = torch.cat([(values[1:] + values[:-1]) / 2, torch.zeros(1)])  # even odds come last
    over = odds[None] > between[:, None]  # [T, M]
    f1 = 2 * (over & has).sum(1) / (over.sum(1) + has.sum()).clamp(min=1)
    if f1[-1] >= f1.max() - GAIN:
        return 0.0
    return float(between[f1 >= f1.max() - NEAR].median()) / 2
