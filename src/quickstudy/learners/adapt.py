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
from quickstudy.system.turns import give_way

AT_ONCE = 1 << 18  # numbers of examples × classes that are computed at once where no gradients are kept


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
        give_way()

        length = support.norm(dim=-1).amax(1)[:, None, None]  # √τ; a padding row is 0
        unit = support / length
        g, _ = self.attention(prototypes / length, unit, unit, key_padding_mask=~real, need_weights=False)
        prototypes = prototypes + self.alpha * length * g
        give_way()

        # −∇ of the cross-entropy of the support set by the prototypes: the sum over classes of each one's mean, so that
        # every class weighs the same, whatever its shots. It is divided by τ, the curvature, so that one step size fits
        # every modality.
        each = onehot @ (1 / count.clamp(min=1))[..., None] / length.square()  # [B, S, 1]; 0 where a row is padding
        rows = support.shape[1] if torch.is_grad_enabled() else max(1, AT_ONCE // (way * len(support)))
        for alpha in self.step_alpha:
            now = prototypes.masked_fill(absent[..., None], torch.nan)
            gradient = torch.zeros_like(prototypes)
            for some in (slice(start, start + rows) for start in range(0, support.shape[1], rows)):
                logits = nearest(now, support[:, some])
                residual = (onehot[:, some] - logits.softmax(-1)) * each[:, some]  # [B, S, N]
                part = residual.transpose(1, 2) @ support[:, some] - residual.sum(1)[..., None] * prototypes
                gradient = gradient + part
                give_way()
            prototypes = prototypes + alpha * gradient
        return {"prototypes": prototypes.masked_fill(absent[..., None], torch.nan)}

    def effort(self, examples: int, way: int, dimension: int) -> float:
        """S·N·D for the means and for each way there and back of a step, D² for what the attention projects."""
        steps = len(self.step_alpha)
        return float(examples) * dimension * (way * (2 + 2 * steps) + 2 * dimension)

    def score(self, state: State, query: Tensor) -> Tensor:
        return nearest(state["prototypes"], query)
