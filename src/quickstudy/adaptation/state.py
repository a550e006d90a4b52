"""Adapt to a task and predict: what a task's support set teaches, as a small immutable value."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.learners import State, VectorLearner
from quickstudy.model.metamodel import MetaModel

_VECTORS = "support.vectors"
"""Of the tensors in a file, beside those of the learner, whose names have no dot."""

FALSE_ALARM = 0.05
"""Share of queries of a task's own classes that may be called unknown, where nobody says another."""


@dataclass(frozen=True)
class Support:
    """A task's labelled examples themselves, as vectors: with them it can grow, and say what a query lies near."""

    labels: tuple[str, ...]
    """the class of each [S]"""
    names: tuple[str, ...]
    """how to show each to a person [S]: the text, the path"""
    vectors: torch.Tensor
    """float32 [S, D]"""
    false_alarm: float
    """share of queries of its own classes that may be called unknown"""


@dataclass(frozen=True)
class TaskState:
    """What the learner made of a support set: vectors, not weights, where the learner allows.

    It is of use only with the model that made it, whose weights' digest it carries.
    """

    modality: Modality
    classes: tuple[str, ...]
    shots: tuple[int, ...]
    """labelled examples of each class"""
    learned: State
    """the learner's tensors, without a task dimension"""
    model: str
    """sha256 of the model's weights"""
    adapt_ms: float = field(compare=False)
    """what adapting took, from the files to this state"""
    support: Support | None = field(default=None, compare=False)
    """where it was kept"""

    def to_bytes(self) -> bytes:
        names = ("modality", "classes", "shots", "model", "adapt_ms")
        meta = {name: getattr(self, name) for name in names}
        tensors = {name: tensor.contiguous() for name, tensor in sorted(self.learned.items())}
        if self.support is not None:
            meta["support"] = {name: getattr(self.support, name) for name in ("labels", "names", "false_alarm")}
            tensors[_VECTORS] = self.support.vectors.contiguous()
        return save(tensors, metadata={"task": json.dumps(meta)})

    @staticmethod
    def read(path: Path) -> "TaskState":
        """Raises QuickstudyError where the file is none of ours."""
        try:
            with safe_open(path, framework="pt") as file:
                meta = json.loads(file.metadata()["task"])
                learned = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            classes, shots = tuple(meta["classes"]), tuple(meta["shots"])
            support = None
            if "support" in meta:
                kept = meta["support"]
                vectors = learned.pop(_VECTORS)
                support = Support(tuple(kept["labels"]), tuple(kept["names"]), vectors, kept["false_alarm"])
            return TaskState(meta["modality"], classes, shots, learned, meta["model"], meta["adapt_ms"], support)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            raise QuickstudyError(
                "is not a task that was adapted", where=path, fix="`quickstudy adapt SUPPORT --task NAME` writes one"
            ) from None


@torch.inference_mode()
def adapt(
    model: MetaModel,
    modality: Modality,
    examples: Sequence[Any],
    labels: Sequence[str],
    digest: str,
    names: Sequence[str] | None = None,
    false_alarm: float = FALSE_ALARM,
) -> TaskState:
    """Learn a task from its support set.

    Args:
        examples: file bytes of images or recordings, or texts. [S]
        labels: the class of each. [S]
        digest: of the model's weights, kept with the state.
        names: how to show each example to a person [S]; where given, the examples are kept, unless the learner changes
            the encoder for each task.
        false_alarm: kept with them.

    Raises:
        QuickstudyError: a modality that the model has not learned, fewer than two classes, an unreadable example.
    """
    started = time.perf_counter()
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise QuickstudyError(f"a task needs two classes or more, these are {classes}", where="support")
    place = {name: i for i, name in enumerate(classes)}
    targets = torch.tensor([place[label] for label in labels])
    arrays = prepared(model, modality, examples)
    support = None
    if names is not None and isinstance(model.learner, VectorLearner):
        vectors = model.encode(modality, arrays)
        support = Support(tuple(labels), tuple(names), vectors, false_alarm)
        state = model.learner.adapt(vectors[None], targets[None], len(classes))
    else:
        state = model.adapt(modality, arrays[None], targets[None], len(classes))
    learned = {name: tensor[0].clone() for name, tensor in state.items()}
    shots = tuple(torch.bincount(targets).tolist())
    elapsed = (time.perf_counter() - started) * 1000
    return TaskState(modality, tuple(classes), shots, learned, digest, elapsed, support)


@torch.inference_mode()
def predict(model: MetaModel, task: TaskState, examples: Sequence[Any]) -> np.ndarray:
    """float64 [Q, N]: the probability of each class of the task for each example."""
    state = {name: tensor[None] for name, tensor in task.learned.items()}
    logits = model.score(task.modality, state, prepared(model, task.modality, examples)[None])[0]
    return logits.double().softmax(-1).numpy()


def prepared(model: MetaModel, modality: Modality, examples: Sequence[Any]) -> torch.Tensor:
    """Examples as the encoder takes them [n, ...].

    Raises:
        QuickstudyError: a modality that the model has not learned, or an unreadable example.
    """
    if modality not in model.encoders:
        known = ", ".join(sorted(model.encoders))
        raise QuickstudyError(
            f"the model has learned {known}, not {modality}", fix="Train it on a dataset of that kind"
        )
    return torch.from_numpy(model.encoder(modality).prepare(examples))
