"""The whole model: model(data, task) = f_θ(data) + α · g_φ(task)."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.config import Inputs, Model
from quickstudy.data.dataset import Modality
from quickstudy.encoders import Encoder, make_encoder
from quickstudy.kinds.heads import HEADS, Head
from quickstudy.kinds.task import TaskBatch, turned
from quickstudy.learners import State, VectorLearner, make_learner

CHUNK = 64  # rows
TAU = 10.0  # at the start


class MetaModel(nn.Module):
    """The part of the model for one kind: an encoder f_θ for each modality, into one space, and one learner α · g_φ for
    all of them, which the kind's head puts its tasks to."""

    def __init__(self, inputs: Inputs, shape: Model, modalities: Iterable[Modality], kind: str = "classify"):
        super().__init__()
        self.inputs, self.shape, self.kind = inputs, shape, kind
        self.encoders = nn.ModuleDict({m: make_encoder(m, inputs, shape) for m in sorted(modalities)})
        # τ of each modality: how sharply its vectors tell classes apart, in the squared length of the vectors.
        self.log_tau = nn.ParameterDict({m: nn.Parameter(torch.tensor(TAU).log()) for m in self.encoders})
        self.learner = make_learner(shape, self.encoders)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return cast(tuple[Modality, ...], tuple(self.encoders))

    def encoder(self, modality: Modality) -> Encoder:
        return cast(Encoder, self.encoders[modality])

    def encode(self, modality: Modality, arrays: Tensor) -> Tensor:
        """f_θ: arrays of the frozen front [n, ...] → [n, D], all of length √τ"""
        encoder = self.encoders[modality]
        # Without gradients nothing is kept, and what fits the processor's cache is much faster.
        chunks = [arrays] if torch.is_grad_enabled() else arrays.split(CHUNK)
        vectors = torch.cat([encoder(chunk) for chunk in chunks])
        if vectors.dtype == torch.bfloat16:  # an encoder may round, a learner does not
            vectors = vectors.float()
        return F.normalize(vectors, dim=-1) * (self.log_tau[modality] / 2).exp()

    @property
    def head(self) -> Head:
        """How the kind puts its tasks to the learner."""
        return HEADS[self.kind]

    @property
    def vector_learner(self) -> VectorLearner:
        """The learner, where it reads vectors; whoever asks knows that it does."""
        learner = self.learner.on_vectors
        assert learner is not None
        return learner

    def adapt(self, modality: Modality, support: Tensor, targets: Tensor, way: int) -> State:
        """Return what support sets teach.

        Args:
            support: arrays [B, S, ...]
            targets: [B, S, ...] of the kind.
            way: N

        Returns:
            tensors [B·F, ...], of the F choices that the kind makes of a task.
        """
        if (changes := self.learner.on_weights) is not None:
            return changes.adapt(self.encoder(modality), *self.head.pose(support, targets, way))
        vectors = self.encode(modality, support.flatten(0, 1)).unflatten(0, support.shape[:2])
        return self.vector_learner.adapt(*self.head.pose(vectors, targets, way))

    def score(self, modality: Modality, state: State, query: Tensor) -> Tensor:
        """Answer queries, arrays [B, Q, ...] → [B, Q, N]."""
        if (changes := self.learner.on_weights) is not None:
            logits = changes.score(self.encoder(modality), state, _for_each_choice(query, state))
            return self.head.read(logits, len(query))
        return self.answer(state, self.encode(modality, query.flatten(0, 1)).unflatten(0, query.shape[:2]))

    def answer(self, state: State, query: Tensor) -> Tensor:
        """Answer queries that are vectors already, [B, Q, D] → [B, Q, N]."""
        return self.head.read(self.vector_learner.score(state, _for_each_choice(query, state)), len(query))

    def forward(self, tasks: list[TaskBatch], turns: int = 1) -> list[Tensor]:
        """Answer the queries of a meta-batch that mixes modalities, ways and shots.

        One pass through each encoder and one through the learner: rows of smaller tasks are padded and masked. A
        learner that changes the encoder takes one entry after the other, and has one turn.

        Args:
            turns: ask each task so many times, at most K + Q (see `quickstudy.kinds.task.turned`). The encoder, which
                takes most of the time, runs once.

        Returns:
            for each entry of ``tasks`` the answers [R·B, N·Q, N], turn by turn: R is ``turns`` or K + Q.
        """
        if self.learner.on_vectors is None:
            return [self._answer(task) for task in tasks]
        supports, queries, targets, sizes = [], [], [], []
        for task, vectors in zip(tasks, self._encode_together(tasks), strict=True):
            b, s, q = len(task.support), task.support.shape[1], task.query.shape[1]
            rows, asked = (part.unflatten(0, (b, -1)) for part in vectors.split([b * s, b * q]))
            rows, asked = turned(rows, asked, task.way, turns)
            taught, _ = turned(task.support_targets, task.query_targets, task.way, turns)
            rows, taught, way = self.head.pose(rows, taught, task.way)
            sizes.append((len(asked), asked.shape[1], way))
            supports.append(rows)
            queries.append(asked.repeat_interleave(len(rows) // len(asked), 0))
            targets.append(taught)
        with torch.autocast(supports[0].device.type, enabled=False):
            most = max(way for _, _, way in sizes)
            logits = self.vector_learner(_pad(supports, 0.0), _pad(targets, -1), _pad(queries, 0.0), most)
        parts = logits.split([len(support) for support in supports])
        return [
            self.head.read(part[:, :asked, :way], tasks_posed)
            for part, (tasks_posed, asked, way) in zip(parts, sizes, strict=True)
        ]

    def _encode_together(self, tasks: list[TaskBatch]) -> list[Tensor]:
        """Of each entry the vectors of its support and then of its queries, [B·S + B·Q, D]; one pass a modality."""
        vectors: dict[int, Tensor] = {}
        for modality in dict.fromkeys(task.modality for task in tasks):
            own = [place for place, task in enumerate(tasks) if task.modality == modality]
            parts = [torch.cat([tasks[place].support.flatten(0, 1), tasks[place].query.flatten(0, 1)]) for place in own]
            encoded = self.encode(modality, torch.cat(parts)).split([len(part) for part in parts])
            vectors |= dict(zip(own, encoded, strict=True))
        return [vectors[place] for place in range(len(tasks))]

    def _answer(self, task: TaskBatch) -> Tensor:
        state = self.adapt(task.modality, task.support, task.support_targets, task.way)
        return self.score(task.modality, state, task.query)


def _for_each_choice(query: Tensor, state: State) -> Tensor:
    """Queries [B, Q, ...] → [B·F, Q, ...], F times over where a task became F choices."""
    return query.repeat_interleave(len(next(iter(state.values()))) // len(query), 0)


def _pad(blocks: list[Tensor], value: float) -> Tensor:
    """[B_i, L_i, ...] each → [ΣB_i, max L_i, ...]"""
    longest = max(block.shape[1] for block in blocks)
    padded = []
    for block in blocks:
        shape = (block.shape[0], longest - block.shape[1], *block.shape[2:])
        padded.append(torch.cat([block, block.new_full(shape, value)], dim=1))
    return torch.cat(padded)
