"""What a task's support set has taught, as a small immutable value that a file can keep."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.learners import State

_VECTORS = "support.vectors"
"""Of the tensors in a file, beside those of the learner, whose names have no dot."""

FALSE_ALARM = 0.05
"""Share of queries of a task's own classes that may be called unknown, where nobody says another."""


@dataclass(frozen=True)
class Support:
    """A task's labelled examples themselves, as vectors: with them it can grow, and say what a query lies near."""

    targets: tuple[Any, ...]
    """of each, as JSON has them [S]"""
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

    kind: str
    modality: Modality
    names: tuple[str, ...]
    """of the classes, or tags"""
    shots: tuple[int, ...]
    """labelled examples of each"""
    learned: State
    """the learner's tensors [F, ...]: of the F choices that the kind makes of a task"""
    model: str
    """sha256 of the model's weights"""
    adapt_ms: float = field(compare=False)
    """what adapting took, from the files to this state"""
    support: Support | None = field(default=None, compare=False)
    """where it was kept"""

    def to_bytes(self) -> bytes:
        """Return what `read` reads: safetensors, with the rest as JSON in its header."""
        names = ("kind", "modality", "names", "shots", "model", "adapt_ms")
        meta = {name: getattr(self, name) for name in names}
        tensors = {name: tensor.contiguous() for name, tensor in sorted(self.learned.items())}
        if self.support is not None:
            meta["support"] = {name: getattr(self.support, name) for name in ("targets", "names", "false_alarm")}
            tensors[_VECTORS] = self.support.vectors.contiguous()
        return save(tensors, metadata={"task": json.dumps(meta)})

    @staticmethod
    def read(path: Path) -> "TaskState":
        """Read a file that `to_bytes` made.

        Raises:
            QuickstudyError: it is none of ours.
        """
        try:
            with safe_open(path, framework="pt") as file:
                meta = json.loads(file.metadata()["task"])
                learned = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            support = None
            vectors: Any = learned.pop(_VECTORS) if "support" in meta else None
            if "kind" not in meta:  # written before there were kinds
                meta |= {"kind": "classify", "names": meta["classes"]}
                learned = {name: tensor[None] for name, tensor in learned.items()}
                if "support" in meta:
                    meta["support"]["targets"] = meta["support"]["labels"]
            if "support" in meta:
                kept = meta["support"]
                support = Support(tuple(kept["targets"]), tuple(kept["names"]), vectors, kept["false_alarm"])
            return TaskState(
                meta["kind"],
                meta["modality"],
                tuple(meta["names"]),
                tuple(meta["shots"]),
                learned,
                meta["model"],
                meta["adapt_ms"],
                support,
            )
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            raise QuickstudyError(
                "is not a task that was adapted", where=path, fix="`quickstudy adapt EXAMPLES --task NAME` writes one"
            ) from None
