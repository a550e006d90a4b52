"""ANIL: the head alone learns a task, by gradient steps (Raghu et al. 2020, https://arxiv.org/abs/1909.09157)."""

import torch
from torch import Tensor, nn

from quickstudy.learners.learner import State, VectorLearner, class_sums
from quickstudy.system.turns import give_way


class Anil(VectorLearner):
    """A linear head, W · q + b, that begins as a prototype classifier and follows −∇ of its support set's loss.

    The start is that of Proto-MAML (Triantafillou et al. 2020, https://arxiv.org/abs/1903.03096), for any number of
    ways: of a class with the mean p, W = 2 α₀ v∘p and b = −α₀ c p·(v∘p). v, a weight for each dimension, and c are
    learned from 1 and shared by all classes. (A vector and a bias that are added to those of all classes would never
    learn: the softmax does not see them, not even after the steps.) The step sizes α are learned, one a step
    (Meta-SGD, Li et al. 2017, https://arxiv.org/abs/1707.09835).

    Args:
        dimension: D of the encoders' vectors.
        steps: gradient steps.
    """

    def __init__(self, dimension: int, steps: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dimension))  # v - 1: weight decay pulls to prototypes
        self.bias = nn.Parameter(torch.zeros(()))  # c - 1
        self.start_alpha = nn.Parameter(torch.ones(()))
        self.alpha = nn.Parameter(torch.full((steps,), 0.1))

    def adapt(self, support: Tensor, targets: Tensor, way: int) -> State:
        """weights: [B, N, D]; bias: [B, N]"""
        onehot, sums, count = class_sums(support, targets, way)
        absent = count == 0
        count = count.clamp(min=1)
        means = sums / count[..., None]
        scaled = self.start_alpha * (1 + self.weight) * means
        weights, bias = 2 * scaled, -(1 + self.bias) * (scaled * means).sum(-1)

        # g = −∇ of the support set's cross-entropy, written out, so that gradients of any order pass through it by
        # plain autograd and all tasks take a step at once. The loss is the sum over classes of each one's mean: every
        # class weighs the same, whatever its shots. It is divided by τ, the curvature, so that one step size fits every
        # modality.
        tau = support.square().sum((1, 2), keepdim=True) / (targets >= 0).sum(1)[:, None, None]
        each = onehot @ (1 / count)[..., None] / tau  # [B, S, 1]; 0 where a row is padding
        for alpha in self.alpha:
            give_way()
            logits = support @ weights.transpose(1, 2) + bias[:, None]
            answers = logits.masked_fill(absent[:, None], -torch.inf).softmax(-1)
            g = (onehot - answers) * each  # [B, S, N], by the logits
            weights = weights + alpha * (g.transpose(1, 2) @ support)
            bias = bias + alpha * g.sum(1)
        return {
            "weights": weights.masked_fill(absent[..., None], torch.nan),
            "bias": bias.masked_fill(absent, torch.nan),
        }

    def effort(self, examples: int, way: int, dimension: int) -> float:
        """S·N·D for the means and for each way there and back of a step."""
        return float(examples) * way * dimension * (1 + 2 * len(self.alpha))

    def score(self, state: State, query: Tensor) -> Tensor:
        absent = state["bias"].isnan()
        weights = state["weights"].masked_fill(absent[..., None], 0.0)
        logits = query @ weights.transpose(1, 2) + state["bias"].masked_fill(absent, 0.0)[:, None]
        return logits.masked_fill(absent[:, None], -torch.inf)
