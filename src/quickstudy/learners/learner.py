"""What every learner is: α · g_φ. It learns a task from its support set and answers its queries.

A learner reads vectors that the encoder made (`VectorLearner`), or it changes the encoder for the task
(`WeightLearner`). Either way what a task teaches is a `State`: tensors with the task dimension B in front.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TOGETHER = 64
"""Unknowns of systems that are solved by one call, at most, where no gradients are kept."""
State = dict[str, Tensor]
"""What a support set taught, each tensor [B, ...]; of one task [...]. NaN marks a class without support."""


class VectorLearner(nn.Module, ABC):
    """Works on vectors, all of a task of one length, √τ; tasks of any way and shot share a batch."""

    alpha: Tensor
    """How far g is followed; 0 leaves the encoder's word alone."""

    @property
    def on_vectors(self) -> "VectorLearner":
        """This learner, as it reads vectors."""
        return self

    @property
    def on_weights(self) -> None:
        """None, as it leaves the encoder as it is."""

    @abstractmethod
    def adapt(self, support: Tensor, targets: Tensor, way: int) -> State:
        """Learn.

        Args:
            support: [B, S, D]
            targets: int64 [B, S], 0 … way - 1; -1 where a row is padding, which is 0.
            way: classes of the largest task; a smaller task leaves some without support.
        """

    @abstractmethod
    def score(self, state: State, query: Tensor) -> Tensor:
        """Logits [B, Q, N] of queries [B, Q, D]; −∞ for a class without support."""

    def effort(self, examples: int, way: int, dimension: int) -> float:
        """Return about how many products `adapt` adds up for a task of S examples, N classes and D: here S·N·D."""
        return float(examples) * way * dimension

    def forward(self, support: Tensor, targets: Tensor, query: Tensor, way: int) -> Tensor:
        """[B, S, D], [B, S], [B, Q, D] → logits [B, Q, N]"""
        return self.score(self.adapt(support, targets, way), query)


class WeightLearner(nn.Module, ABC):
    """Changes the encoder for a task, so that it works on what the encoder reads. The tasks of a batch are alike in
    way and shot."""

    alpha: Tensor
    """How far g is followed; 0 leaves the encoder as it is."""

    @property
    def on_vectors(self) -> None:
        """None, as it reads what the encoder reads."""

    @property
    def on_weights(self) -> "WeightLearner":
        """This learner, as it changes the encoder."""
        return self

    @abstractmethod
    def adapt(self, encoder: nn.Module, support: Tensor, targets: Tensor, way: int) -> State:
        """Learn.

        Args:
            encoder: arrays [n, ...] → vectors [n, D]; its own weights are the start and stay as they are.
            support: [B, S, ...]
            targets: int64 [B, S], each of 0 … way - 1 at least once.
        """

    @abstractmethod
    def score(self, encoder: nn.Module, state: State, query: Tensor) -> Tensor:
        """Logits [B, Q, N] of queries [B, Q, ...]."""

    def loss(
        self, encoder: nn.Module, support: Tensor, targets: Tensor, query: Tensor, answers: Tensor, way: int
    ) -> Tensor:
        """What meta-training lowers, a mean over the tasks: the cross-entropy of the queries after adapting.

        Args:
            support: [B, S, ...]
            targets: int64 [B, S]
            query: [B, Q, ...]
            answers: int64 [B, Q]
        """
        logits = self.score(encoder, self.adapt(encoder, support, targets, way), query)
        return F.cross_entropy(logits.flatten(0, 1), answers.flatten())


def solved(gram: Tensor, y: Tensor) -> Tensor:
    """Solve B systems, [B, S, S] and [B, S, N] → [B, S, N].

    Large ones are solved one by one: MKL's solver of many at once never returns once another thread of the process has
    computed with a number of threads of its own, as encoders of texts do.
    """
    if torch.is_grad_enabled() or gram.shape[-1] <= TOGETHER:
        return torch.linalg.solve(gram, y)
    return torch.stack([torch.linalg.solve(one, own) for one, own in zip(gram, y, strict=True)])


def class_sums(vectors: Tensor, targets: Tensor, way: int) -> tuple[Tensor, Tensor, Tensor]:
    """The one-hot targets [B, S, N] (0 where a row is padding), the sum [B, N, D] of each class's vectors [B, S, D],
    and the count [B, N]."""
    onehot = (F.one_hot(targets.clamp(min=0), way) * (targets >= 0)[..., None]).to(vectors.dtype)
    return onehot, onehot.transpose(1, 2) @ vectors, onehot.sum(1)


def nearest(prototypes: Tensor, query: Tensor) -> Tensor:
    """Logits [B, Q, N]: −‖q − p‖² without ‖q‖², which all classes share; −∞ where a prototype is NaN."""
    absent = prototypes[..., 0].isnan()
    p = prototypes.masked_fill(absent[..., None], 0.0)
    logits = 2 * query @ p.transpose(1, 2) - p.square().sum(-1)[:, None]
    return logits.masked_fill(absent[:, None], -torch.inf)
