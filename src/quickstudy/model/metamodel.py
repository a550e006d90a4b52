"""The whole model: model(data, task) = f_θ(data) + α · g_φ(task)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.config import Inputs, Model
from quickstudy.data.dataset import Modality
from quickstudy.encoders import Encoder, make_encoder
from quickstudy.learners import State, VectorLearner, make_learner

CHUNK = 64  # rows
TAU = 10.0  # at the start


@dataclass(frozen=True)
class TaskBatch:
    """Tasks of one modality, way and shot, ready for the encoder. Rows come class by class."""

    modality: Modality
    support: Tensor
    """[B, N·K, ...] arrays of the modality's frozen front"""
    query: Tensor
    """[B, N·Q, ...]"""
    way: int

    def targets(self) -> tuple[Tensor, Tensor]:
        """int64 [B, N·K], [B, N·Q]: the class of each row."""
        labels = torch.arange(self.way, device=self.support.device)
        b = len(self.support)
        support = labels.repeat_interleave(self.support.shape[1] // self.way).expand(b, -1)
        query = labels.repeat_interleave(self.query.shape[1] // self.way).expand(b, -1)
        return support, query


class MetaModel(nn.Module):
    """An encoder f_θ for each modality, into one space, and one learner α · g_φ for all of them."""

    def __init__(self, inputs: Inputs, shape: Model, modalities: Iterable[Modality]):
        super().__init__()
        self.inputs, self.shape = inputs, shape
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

    def adapt(self, modality: Modality, support: Tensor, targets: Tensor, way: int) -> State:
        """What support sets teach: arrays [B, S, ...] and int64 [B, S] → State"""
        if isinstance(self.learner, VectorLearner):
            vectors = self.encode(modality, support.flatten(0, 1)).unflatten(0, support.shape[:2])
            return self.learner.adapt(vectors, targets, way)
        return self.learner.adapt(self.encoder(modality), support, targets, way)

    def score(self, modality: Modality, state: State, query: Tensor) -> Tensor:
        """Arrays [B, Q, ...] → logits [B, Q, N]"""
        if isinstance(self.learner, VectorLearner):
            return self.learner.score(state, self.encode(modality, query.flatten(0, 1)).unflatten(0, query.shape[:2]))
        return self.learner.score(self.encoder(modality), state, query)

    def forward(self, tasks: list[TaskBatch], turns: int = 1) -> list[Tensor]:
        """Answer the queries of a meta-batch that mixes modalities, ways and shots.

        One pass through each encoder and one through the learner: rows of smaller tasks are padded and masked. A
        learner that changes the encoder takes one entry after the other, and has one turn.

        Args:
            turns: ask each task so many times, at most K + Q. At turn r the examples of a class are moved on by r
                places, so that others are support and query. The encoder, which takes most of the time, runs once.

        Returns:
            for each entry of ``tasks`` the logits [B·R, N·Q, N], turn by turn: R is ``turns`` or K + Q.
        """
        if not isinstance(self.learner, VectorLearner):
            return [self._answer(task) for task in tasks]
        supports, queries, targets = [], [], []
        for task, vectors in zip(tasks, self._encode_together(tasks), strict=True):
            b, s, q = len(task.support), task.support.shape[1], task.query.shape[1]
            support, query = vectors.split([b * s, b * q])
            shot = s // task.way
            examples = torch.cat([support.view(b, task.way, shot, -1), query.view(b, task.way, q // task.way, -1)], 2)
            rolled = torch.cat([examples.roll(-turn, 2) for turn in range(min(turns, examples.shape[2]))])
            supports.append(rolled[:, :, :shot].flatten(1, 2))
            queries.append(rolled[:, :, shot:].flatten(1, 2))
            targets.append(task.targets()[0][:1].expand(len(rolled), -1))
        way = max(task.way for task in tasks)
        with torch.autocast(supports[0].device.type, enabled=False):
            logits = self.learner(_pad(supports, 0.0), _pad(targets, -1), _pad(queries, 0.0), way)
        parts = logits.split([len(support) for support in supports])
        return [part[:, : task.query.shape[1], : task.way] for part, task in zip(parts, tasks, strict=True)]

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
        state = self.adapt(task.modality, task.support, task.targets()[0], task.way)
        return self.score(task.modality, state, task.query)


def _pad(blocks: list[Tensor], value: float) -> Tensor:
    """[B_i, L_i, ...] each → [ΣB_i, max L_i, ...]"""
    longest = max(block.shape[1] for block in blocks)
    padded = []
    for block in blocks:
        shape = (block.shape[0], longest - block.shape[1], *block.shape[2:])
        padded.append(torch.cat([block, block.new_full(shape, value)], dim=1))
    return torch.cat(padded)
