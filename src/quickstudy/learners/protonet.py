"""Prototypical networks (Snell et al. 2017, https://arxiv.org/abs/1703.05175): f alone, α = 0."""

import torch
from torch import Tensor

from quickstudy.learners.learner import State, VectorLearner, class_sums, nearest


class ProtoNet(VectorLearner):
    """A class is the mean of its support vectors; a query belongs to the nearest one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("alpha", torch.zeros(()), persistent=False)

    def adapt(self, support: Tensor, targets: Tensor, way: int) -> State:
        """prototypes: [B, N, D]"""
        _, sums, count = class_sums(support, targets, way)
        prototypes = sums / count.clamp(min=1)[..., None]  # 0 / 0 would send NaN back through the gradient
        return {"prototypes": prototypes.masked_fill((count == 0)[..., None], torch.nan)}

    def score(self, state: State, query: Tensor) -> Tensor:
        return nearest(state["prototypes"], query)
