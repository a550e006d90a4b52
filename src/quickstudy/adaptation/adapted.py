"""Adapt to a task and answer its queries: the one place where that is written.

A task is its labelled examples as vectors. Adding an example encodes that example alone; the learner then reads the
vectors again, in about a millisecond. An adapted task answers with a target for each query, how probable it is, how
unknown the query looks, and the examples it lies nearest. What a target is the kind says (`quickstudy.kinds.heads`).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.adaptation.state import FALSE_ALARM, Support, TaskState
from quickstudy.data.dataset import Modality
from quickstudy.data.media import verify
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.heads import HEADS
from quickstudy.kinds.left_out import PRODUCTS
from quickstudy.kinds.task import Settled
from quickstudy.learners import State
from quickstudy.model.metamodel import MetaModel
from quickstudy.system.turns import give_way

NEIGHBOURS = 3


@dataclass(frozen=True)
class Task:
    """Labelled examples as vectors, of use with the model that made them alone."""

    kind: str
    modality: Modality
    targets: tuple[Any, ...]
    """of each example [S], as JSON has them"""
    vectors: Tensor
    """float32 [S, D], of length √τ"""
    model: str
    """sha256 of that model's weights"""

    @property
    def names(self) -> tuple[str, ...]:
        """The classes, or the tags, sorted."""
        return HEADS[self.kind].arrange(self.targets)[0]

    def with_examples(self, targets: Sequence[Any], vectors: Tensor) -> "Task":
        """Return the task with more examples: targets [n], vectors [n, D]."""
        return replace(self, targets=self.targets + tuple(targets), vectors=torch.cat([self.vectors, vectors]))

    def without(self, places: Sequence[int]) -> "Task":
        """Return the task without the examples at these places."""
        gone = set(places)
        kept = [place for place in range(len(self.targets)) if place not in gone]
        return replace(self, targets=tuple(self.targets[i] for i in kept), vectors=self.vectors[kept])


@dataclass(frozen=True)
class Answers:
    """Of Q queries."""

    names: tuple[str, ...]
    """of the classes, or tags"""
    probabilities: np.ndarray
    """float64 [Q, N]"""
    targets: list[Any]
    """of each query [Q], as JSON has it: a class, a list of tags"""
    confidence: np.ndarray
    """float64 [Q]: how probable each target is"""
    unknown: np.ndarray
    """float64 [Q]: above `threshold` the query belongs to nothing that the task knows; NaN where that is not told"""
    threshold: float
    """where the false-alarm rate that was asked for is reached"""
    neighbours: np.ndarray
    """int64 [Q, k]: places of the nearest examples of the task, the nearest first"""
    likeness: np.ndarray
    """float64 [Q, k]: cosine of each"""

    @property
    def known(self) -> np.ndarray:
        """bool [Q]: false where a query seems to be of nothing that the task knows."""
        return ~(self.unknown > self.threshold)

    def __getitem__(self, rows: slice) -> "Answers":
        """Return those of some queries."""
        parts: dict[str, Any] = {name: getattr(self, name)[rows] for name in _OF_QUERIES}
        return replace(self, targets=self.targets[rows], **parts)


_OF_QUERIES = ("probabilities", "confidence", "unknown", "neighbours", "likeness")


def joined(parts: Sequence[Answers]) -> Answers:
    """Return answers of one task, part by part."""
    whole: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _OF_QUERIES}
    return replace(parts[0], targets=[target for part in parts for target in part.targets], **whole)


@dataclass(frozen=True)
class AdaptedTask:
    """What the learner made of a task."""

    task: Task
    names: tuple[str, ...]
    learned: State = field(repr=False)
    """the learner's tensors [F, ...]: of the F choices that the kind makes of a task"""
    settled: Settled = field(repr=False)
    """what the kind has fixed beside it, and the examples' vectors of length 1"""


def prepared(model: MetaModel, modality: Modality, examples: Sequence[Any]) -> Tensor:
    """Return examples as the encoder takes them [n, ...].

    Raises:
        QuickstudyError: a modality that the model has not learned, or an unreadable example.
    """
    check_modality(model, modality)
    return torch.from_numpy(model.encoder(modality).prepare(examples))


def check_modality(model: MetaModel, modality: Modality) -> None:
    """Raise QuickstudyError where the model has not learned a modality."""
    if modality not in model.encoders:
        known = ", ".join(sorted(model.encoders))
        raise QuickstudyError(
            f"the model has learned {known}, not {modality}", fix="Train it on a dataset of that kind"
        )


@torch.inference_mode()
def encode(model: MetaModel, modality: Modality, examples: Sequence[object]) -> Tensor:
    """Return the vectors float32 [n, D] of texts, or of file bytes of images or recordings [n].

    Raises:
        QuickstudyError: a modality that the model has not learned, an unreadable example, or a learner that changes the
            encoder for each task, so that no vectors can be kept.
    """
    check_learner(model)
    return model.encode(modality, prepared(model, modality, examples))


@torch.inference_mode()
def encode_decoded(model: MetaModel, modality: Modality, decoded: Sequence[Any]) -> Tensor:
    """Return the vectors float32 [n, D] of what the encoder has `decoded` of examples [n]; raises as `encode`."""
    check_learner(model)
    check_modality(model, modality)
    return model.encode(modality, torch.from_numpy(model.encoder(modality).arrays(decoded)))


def fault(example: object, modality: Modality) -> QuickstudyError | None:
    """Return what is wrong with an example: the encoder, which reads many at once, does not say which one it could not
    read. A text can always be read."""
    try:
        if isinstance(example, bytes):
            verify(example, modality)
    except QuickstudyError as error:
        return error
    return None


def check_learner(model: MetaModel, where: object = None) -> None:
    """Raise QuickstudyError where the learner changes the encoder for each task, so that no vectors can be kept."""
    if model.learner.on_vectors is None:
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
        QuickstudyError: what the examples say is no task, as fewer than two classes.
    """
    names, numbers = model.head.arrange(task.targets)
    learned = _learned(model, *model.head.pose(task.vectors[None], numbers[None], len(names)))
    give_way()
    settled = model.head.settle(model.vector_learner, task.vectors, numbers, len(names), false_alarm)
    return AdaptedTask(task, names, {name: tensor.clone() for name, tensor in learned.items()}, settled)


def _learned(model: MetaModel, support: Tensor, classes: Tensor, way: int) -> State:
    """What the learner makes of the choices [F, S, D] that a task becomes, some at a time where they are much work."""
    learner = model.vector_learner
    many = max(1, int(PRODUCTS / learner.effort(support.shape[1], way, support.shape[2])))
    if len(support) <= many:
        return learner.adapt(support, classes, way)
    parts = []
    for some in (slice(start, start + many) for start in range(0, len(support), many)):
        parts.append(learner.adapt(support[some], classes[some], way))
        give_way()
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.inference_mode()
def answer(model: MetaModel, adapted: AdaptedTask, query: Tensor) -> Answers:
    """Answer queries [Q, D]."""
    logits = model.answer(adapted.learned, query[None])[0]
    decided = model.head.decide(adapted.names, logits, adapted.settled, query)
    cosine = F.normalize(query, dim=-1) @ adapted.settled.vectors.T
    likeness, neighbours = cosine.topk(min(NEIGHBOURS, cosine.shape[1]))
    return Answers(
        adapted.names,
        decided.probabilities,
        decided.targets,
        decided.confidence,
        decided.unknown,
        decided.threshold,
        neighbours.numpy(),
        likeness.double().numpy(),
    )


def restored(model: MetaModel, state: TaskState) -> AdaptedTask:
    """Return a task that was kept in a file with its examples. It must be one of this model."""
    assert state.support is not None
    task = Task(state.kind, state.modality, state.support.targets, state.support.vectors, state.model)
    return adapt(model, task, state.support.false_alarm)


@torch.inference_mode()
def learn(
    model: MetaModel,
    modality: Modality,
    examples: Sequence[Any],
    targets: Sequence[Any],
    digest: str,
    names: Sequence[str] | None = None,
    false_alarm: float = FALSE_ALARM,
) -> TaskState:
    """Learn a task from its files, by any learner, as what a file keeps of it.

    Args:
        examples: file bytes of images or recordings, or texts. [S]
        targets: of each, as JSON has them. [S]
        digest: of the model's weights, kept with the state.
        names: how to show each example to a person [S]; where given, the examples are kept, unless the learner changes
            the encoder for each task.
        false_alarm: kept with them.

    Raises:
        QuickstudyError: a modality that the model has not learned, no task of this kind, an unreadable example.
    """
    started = time.perf_counter()
    classes, numbers = model.head.arrange(targets)
    arrays = prepared(model, modality, examples)
    support = None
    if names is not None and (learner := model.learner.on_vectors) is not None:
        vectors = model.encode(modality, arrays)
        support = Support(tuple(targets), tuple(names), vectors, false_alarm)
        learned = learner.adapt(*model.head.pose(vectors[None], numbers[None], len(classes)))
    else:
        learned = model.adapt(modality, arrays[None], numbers[None], len(classes))
    shots = model.head.shots(numbers, len(classes))
    elapsed = (time.perf_counter() - started) * 1000
    learned = {name: tensor.clone() for name, tensor in learned.items()}
    return TaskState(model.kind, modality, classes, shots, learned, digest, elapsed, support)


@torch.inference_mode()
def answers_of(model: MetaModel, state: TaskState, examples: Sequence[Any]) -> Answers:
    """Answer examples by a task that a file keeps. Where it kept none of its own examples nothing is unknown, and there
    are no neighbours."""
    if state.support is not None:
        return answer(model, restored(model, state), encode(model, state.modality, examples))
    logits = model.score(state.modality, state.learned, prepared(model, state.modality, examples)[None])[0]
    decided = model.head.decide(state.names, logits, None, None)
    none = np.zeros((len(logits), 0))
    return Answers(
        state.names,
        decided.probabilities,
        decided.targets,
        decided.confidence,
        np.full(len(logits), np.nan),
        decided.threshold,
        none.astype(np.int64),
        none,
    )
