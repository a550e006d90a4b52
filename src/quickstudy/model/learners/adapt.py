"""Prototypes with a task-conditioned correction: f + α · g, α learned from 0.

With α = 0 this is a prototypical network (Snell et al. 2017). g reads the whole support set: a set transformer
(Lee et al. 2019) as in embedding adaptation (FEAT, Ye et al. 2020), then gradient steps on the support set's own
loss, whose step sizes are learned (Meta-SGD, Li et al. 2017). Both start at α = 0, so that training can only depart
from prototypes where that helps.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AdaptLearner(nn.Module):
    """All vectors of a task have one length, √τ: the sharper a modality's vectors tell classes apart, the longer.

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

    def adapt(self, support: Tensor, targets: Tensor, way: int) -> Tensor:
        """What a task's support set teaches.

        Args:
            support: [B, S, D]
            targets: int64 [B, S], 0 … way - 1; -1 where a row is padding.
            way: classes of the largest task; a smaller task leaves the last ones without support.

        Returns:
            prototypes [B, N, D]; NaN where a class has no support.
        """
        real = targets >= 0
        onehot = (F.one_hot(targets.clamp(min=0), way) * real[..., None]).to(support.dtype)  # [B, S, N]
        count = onehot.sum(1)  # [B, N]
        absent = count == 0
        prototypes = onehot.transpose(1, 2) @ support / count.clamp(min=1)[..., None]  # f

        length = support.norm(dim=-1).amax(1)[:, None, None]  # √τ; a padding row is 0
        unit = support / length
        g, _ = self.attention(prototypes / length, unit, unit, key_padding_mask=~real, need_weights=False)
        prototypes = prototypes + self.alpha * length * g

        # −∇ of the mean cross-entropy of the support set by the prototypes. It is divided by τ, the curvature, so that
        # one step size fits every modality.
        own_way = (~absent).sum(1)[:, None, None]
        each = own_way / (real.sum(1)[:, None, None] * length.square())
        for alpha in self.step_alpha:
            residual = onehot - self.score(prototypes, support, absent).softmax(-1) * real[..., None]  # [B, S, N]
            gradient = residual.transpose(1, 2) @ support - residual.sum(1)[..., None] * prototypes
            prototypes = prototypes + alpha * each * gradient
        return prototypes.masked_fill(absent[..., None], torch.nan)

    def score(self, prototypes: Tensor, query: Tensor, absent: Tensor | None = None) -> Tensor:
        """Logits [B, Q, N]: −‖q − p‖² without ‖q‖², which all classes share; −∞ for a class without support."""
        if absent is None:
            absent = prototypes[..., 0].isnan()
        p = prototypes.masked_fill(absent[..., None], 0.0)
        logits = 2 * query @ p.transpose(1, 2) - p.square().sum(-1)[:, None]
        return logits.masked_fill(absent[:, None], -torch.inf)

    def forward(self, support: Tensor, targets: Tensor, query: Tensor, way: int) -> Tensor:
        """[B, S, D], [B, S], [B, Q, D] → logits [B, Q, N]"""
        return self.score(self.adapt(support, targets, way), query)
