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
from quickstudy.model.metamodel import MetaModel


@dataclass(frozen=True)
class TaskState:
    """Vectors, not weights: one corrected prototype a class.

    It is of use only with the model that made it, whose weights' digest it carries.
    """

    modality: Modality
    classes: tuple[str, ...]
    shots: tuple[int, ...]
    """labelled examples of each class"""
    prototypes: torch.Tensor
    """float32 [N, D]"""
    model: str
    """sha256 of the model's weights"""
    adapt_ms: float = field(compare=False)
    """what adapting took, from the files to this state"""

    def to_bytes(self) -> bytes:
        names = ("modality", "classes", "shots", "model", "adapt_ms")
        meta = {name: getattr(self, name) for name in names}
        return save({"prototypes": self.prototypes.contiguous()}, metadata={"task": json.dumps(meta)})

    @staticmethod
    def read(path: Path) -> "TaskState":
        """Raises QuickstudyError where the file is none of ours."""
        try:
            with safe_open(path, framework="pt") as file:
                meta = json.loads(file.metadata()["task"])
                prototypes = file.get_tensor("prototypes")
            classes, shots = tuple(meta["classes"]), tuple(meta["shots"])
            return TaskState(meta["modality"], classes, shots, prototypes, meta["model"], meta["adapt_ms"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            raise QuickstudyError(
                "is not a task that was adapted", where=path, fix="`quickstudy adapt SUPPORT --task NAME` writes one"
            ) from None


@torch.inference_mode()
def adapt(
    model: MetaModel, modality: Modality, examples: Sequence[Any], labels: Sequence[str], digest: str
) -> TaskState:
    """Learn a task from its support set.

    Args:
        examples: file bytes of images or recordings, or texts. [S]
        labels: the class of each. [S]
        digest: of the model's weights, kept with the state.

    Raises:
        QuickstudyError: a modality that the model has not learned, fewer than two classes, an unreadable example.
    """
    started = time.perf_counter()
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise QuickstudyError(f"a task needs two classes or more, these are {classes}", where="support")
    place = {name: i for i, name in enumerate(classes)}
    targets = torch.tensor([place[label] for label in labels])
    vectors = _encode(model, modality, examples)
    prototypes = model.learner.adapt(vectors[None], targets[None], len(classes))[0]
    shots = tuple(torch.bincount(targets).tolist())
    elapsed = (time.perf_counter() - started) * 1000
    return TaskState(modality, tuple(classes), shots, prototypes.clone(), digest, elapsed)


@torch.inference_mode()
def predict(model: MetaModel, task: TaskState, examples: Sequence[Any]) -> np.ndarray:
    """float64 [Q, N]: the probability of each class of the task for each example."""
    vectors = _encode(model, task.modality, examples)
    logits = model.learner.score(task.prototypes[None], vectors[None])[0]
    return logits.double().softmax(-1).numpy()


def _encode(model: MetaModel, modality: Modality, examples: Sequence[Any]) -> torch.Tensor:
    if modality not in model.encoders:
        known = ", ".join(sorted(model.encoders))
        raise QuickstudyError(
            f"the model has learned {known}, not {modality}", fix="Train it on a dataset of that kind"
        )
    arrays = torch.from_numpy(model.encoder(modality).prepare(examples))
    return model.encode(modality, arrays)
