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
    """Args:
    dimension: D of the encoders' vectors.
    heads: attention heads of g.
    steps: gradient steps of g.
    """

    def __init__(self, dimension: int, heads: int, steps: int):
        super().__init__()
        self.attention = nn.MultiheadAttention(dimension, heads, batch_first=True)
        self.alpha = nn.Parameter(torch.zeros(()))
        self.step_alpha = nn.Parameter(torch.zeros(steps))
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

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
        onehot = F.one_hot(targets.clamp(min=0), way) * real[..., None]  # [B, S, N]
        onehot = onehot.to(support.dtype)
        count = onehot.sum(1)  # [B, N]
        z = F.normalize(support, dim=-1)
        prototypes = onehot.transpose(1, 2) @ z / count.clamp(min=1)[..., None]
        absent = count == 0

        g, _ = self.attention(prototypes, z, z, key_padding_mask=~real, need_weights=False)
        prototypes = prototypes + self.alpha * g
        weight = real.to(z.dtype) / real.sum(1, keepdim=True).to(z.dtype)
        for alpha in self.step_alpha:
            probability = self.score(prototypes, z, absent).softmax(-1)
            residual = (onehot - probability) * weight[..., None]  # [B, S, N]
            # −∇ of the mean cross-entropy by the prototypes, up to the scale that α learns.
            toward = residual.transpose(1, 2) @ z - residual.sum(1)[..., None] * prototypes
            prototypes = prototypes + alpha * way * toward
        return prototypes.masked_fill(absent[..., None], torch.nan)

    def score(self, prototypes: Tensor, query: Tensor, absent: Tensor | None = None) -> Tensor:
        """Logits [B, Q, N]: −τ ‖z − p‖² without the part that all classes share; −∞ for a class without support."""
        z = F.normalize(query, dim=-1)
        if absent is None:
            absent = prototypes[..., 0].isnan()
        p = prototypes.masked_fill(absent[..., None], 0.0)
        logits = self.log_scale.exp() * (2 * z @ p.transpose(1, 2) - p.square().sum(-1)[:, None])
        return logits.masked_fill(absent[:, None], -torch.inf)

    def forward(self, support: Tensor, targets: Tensor, query: Tensor, way: int) -> Tensor:
        """[B, S, D], [B, S], [B, Q, D] → logits [B, Q, N]"""
        return self.score(self.adapt(support, targets, way), query)
