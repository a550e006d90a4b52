"""A task that can grow: what its labelled examples are to the encoder, and what the learner makes of them.

Adding an example encodes that example alone; the learner then reads the vectors again, in about a millisecond. An
adapted task answers with the probability of each class, how unknown the query looks, and the examples it lies nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.adaptation.state import TaskState, prepared
from quickstudy.data.dataset import Modality
from quickstudy.data.media import verify
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.classify.openset import OpenSet, fit, unknown
from quickstudy.learners import State, VectorLearner
from quickstudy.model.metamodel import MetaModel

NEIGHBOURS = 3


@dataclass(frozen=True)
class Task:
    """Labelled examples as vectors, of use with the model that made them alone."""

    modality: Modality
    labels: tuple[str, ...]
    """the class of each example [S]"""
    vectors: Tensor
    """float32 [S, D], of length √τ"""
    model: str
    """sha256 of that model's weights"""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.labels)))

    def with_examples(self, labels: Sequence[str], vectors: Tensor) -> "Task":
        return Task(self.modality, self.labels + tuple(labels), torch.cat([self.vectors, vectors]), self.model)

    def without(self, places: Sequence[int]) -> "Task":
        gone = set(places)
        kept = [place for place in range(len(self.labels)) if place not in gone]
        return Task(self.modality, tuple(self.labels[i] for i in kept), self.vectors[kept], self.model)


@dataclass(frozen=True)
class Answers:
    """Of Q queries."""

    classes: tuple[str, ...]
    probabilities: np.ndarray
    """float64 [Q, N]"""
    unknown: np.ndarray
    """float64 [Q]: above `threshold` the query belongs to none of the classes"""
    threshold: float
    """where the false-alarm rate that was asked for is reached"""
    neighbours: np.ndarray
    """int64 [Q, k]: places of the nearest examples of the task, the nearest first"""
    likeness: np.ndarray
    """float64 [Q, k]: cosine of each"""

    def __getitem__(self, rows: slice) -> "Answers":
        """Those of some queries."""
        parts: dict[str, Any] = {name: getattr(self, name)[rows] for name in _OF_QUERIES}
        return replace(self, **parts)


_OF_QUERIES = ("probabilities", "unknown", "neighbours", "likeness")


def joined(parts: Sequence[Answers]) -> Answers:
    """Of one task, part by part."""
    whole: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _OF_QUERIES}
    return replace(parts[0], **whole)


@dataclass(frozen=True)
class AdaptedTask:
    """What the learner made of a task."""

    task: Task
    learned: State = field(repr=False)
    """the learner's tensors, without a task dimension"""
    openset: OpenSet = field(repr=False)


@torch.inference_mode()
def encode(model: MetaModel, modality: Modality, examples: Sequence[object]) -> Tensor:
    """Texts, or file bytes of images or recordings [n] → float32 [n, D]

    Raises:
        QuickstudyError: a modality that the model has not learned, an unreadable example, or a learner that changes the
            encoder for each task, so that no vectors can be kept.
    """
    check_learner(model)
    return model.encode(modality, prepared(model, modality, examples))


def fault(example: object, modality: Modality) -> QuickstudyError | None:
    """What is wrong with an example: the encoder, which reads many at once, does not say which one it could not read.
    A text can always be read."""
    try:
        if isinstance(example, bytes):
            verify(example, modality)
    except QuickstudyError as error:
        return error
    return None


def check_learner(model: MetaModel, where: object = None) -> None:
    """Raises QuickstudyError where the learner changes the encoder for each task, so that no vectors can be kept."""
    if not isinstance(model.learner, VectorLearner):
        raise QuickstudyError(
            f"the learner {model.shape.learner} changes the encoder for each task and cannot be served so",
            where=where,
            fix="Serve a model with another one (model.learner), as adapt",
        )


@torch.inference_mode()
def adapt(model: MetaModel, task: Task, false_alarm: float) -> AdaptedTask:
    """Learn a task.

    Args:
        false_alarm: share of queries of the task's own classes that may be called unknown.

    Raises:
        QuickstudyError: fewer than two classes.
    """
    classes = task.classes
    if len(classes) < 2:
        raise QuickstudyError(f"a task needs two classes or more, these are {list(classes)}")
    assert isinstance(model.learner, VectorLearner)
    place = {name: i for i, name in enumerate(classes)}
    targets = torch.tensor([place[label] for label in task.labels])
    state = model.learner.adapt(task.vectors[None], targets[None], len(classes))
    learned = {name: tensor[0].clone() for name, tensor in state.items()}
    return AdaptedTask(task, learned, fit(task.vectors, targets, false_alarm))


def restored(model: MetaModel, state: TaskState) -> AdaptedTask:
    """A task that was kept in a file with its examples. It must be one of this model."""
    assert state.support is not None
    task = Task(state.modality, state.support.labels, state.support.vectors, state.model)
    return adapt(model, task, state.support.false_alarm)


@torch.inference_mode()
def answer(model: MetaModel, adapted: AdaptedTask, query: Tensor) -> Answers:
    """Answer queries [Q, D]."""
    assert isinstance(model.learner, VectorLearner)
    state = {name: tensor[None] for name, tensor in adapted.learned.items()}
    logits = model.learner.score(state, query[None])[0]
    cosine = F.normalize(query, dim=-1) @ adapted.openset.vectors.T
    likeness, neighbours = cosine.topk(min(NEIGHBOURS, cosine.shape[1]))
    return Answers(
        adapted.task.classes,
        logits.double().softmax(-1).numpy(),
        unknown(adapted.openset, query).double().numpy(),
        adapted.openset.threshold,
        neighbours.numpy(),
        likeness.double().numpy(),
    )
