"""Prototypes with a task-conditioned correction: f + α · g, α learned from 0.

With α = 0 this is a prototypical network (Snell et al. 2017). g reads the whole support set: a set transformer
(Lee et al. 2019) as in embedding adaptation (FEAT, Ye et al. 2020, https://arxiv.org/abs/1812.03664), then gradient
steps on the support set's own loss, whose step sizes are learned (Meta-SGD, Li et al. 2017,
https://arxiv.org/abs/1707.09835). Both start at α = 0, so that training can only depart from prototypes where that
helps.
"""

import torch
from torch import Tensor, nn

from quickstudy.learners.learner import State, VectorLearner, class_sums, nearest


class AdaptLearner(VectorLearner):
    """Prototypes, corrected by attention over the support set and then by gradient steps.

    Args:
        dimension: D of the encoders' vectors.
        heads: attention heads of g.
        steps: gradient steps of g.
    """

    def __init__(self, dimension: int, heads: int, steps: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(dimension, heads, batch_first=True)
        self.alpha = nn.Parameter(torch.zeros(()))
        self.step_alpha = nn.Parameter(torch.zeros(steps))

    def adapt(self, support: Tensor, targets: Tensor, way: int) -> State:
        """prototypes: [B, N, D]"""
        real = targets >= 0
        onehot, sums, count = class_sums(support, targets, way)
        absent = count == 0
        prototypes = sums / count.clamp(min=1)[..., None]  # f

        length = support.norm(dim=-1).amax(1)[:, None, None]  # √τ; a padding row is 0
        unit = support / length
        g, _ = self.attention(prototypes / length, unit, unit, key_padding_mask=~real, need_weights=False)
        prototypes = prototypes + self.alpha * length * g

        # −∇ of the cross-entropy of the support set by the prototypes: the sum over classes of each one's mean, so that
        # every class weighs the same, whatever its shots. It is divided by τ, the curvature, so that one step size fits
        # every modality.
        each = onehot @ (1 / count.clamp(min=1))[..., None] / length.square()  # [B, S, 1]; 0 where a row is padding
        for alpha in self.step_alpha:
            logits = nearest(prototypes.masked_fill(absent[..., None], torch.nan), support)
            residual = (onehot - logits.softmax(-1)) * each  # [B, S, N]
            gradient = residual.transpose(1, 2) @ support - residual.sum(1)[..., None] * prototypes
            prototypes = prototypes + alpha * gradient
        return {"prototypes": prototypes.masked_fill(absent[..., None], torch.nan)}

    def score(self, state: State, query: Tensor) -> Tensor:
        return nearest(state["prototypes"], query)
