"""Ridge regression in closed form (R2-D2, Bertinetto et al. 2019, https://arxiv.org/abs/1805.08136)."""

import torch
from torch import Tensor, nn

from quickstudy.learners.learner import State, VectorLearner, class_sums, solved

FLOOR = 1e-3  # of λ: float32 can still solve for a support set that holds an example twice


class Ridge(VectorLearner):
    """A task's head is the ridge regression of its support set: logits = α · (q · W + b), W = Xᵀ (XXᵀ + λI)⁻¹ Y.

    X are the support vectors at length 1, so that λ means the same in every modality. Y is one-hot: targets of ±1 or
    centred ones would move the weights of all classes by one vector, which a softmax does not see, and scale them,
    which is α's part. The paper's bias, one number for all classes, is not seen either; here b of a class is -β times
    what W answers to the mean of the class. As λ grows, W becomes the classes' means; with β = ½ and α = 2
    the head is then a prototypical network. α, β and λ are learned.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(()))
        self.beta = nn.Parameter(torch.full((), 0.35))  # below ½: W flatters the examples that it was fitted to
        self.log_lambda = nn.Parameter(torch.zeros(()))

    def adapt(self, support: Tensor, targets: Tensor, way: int) -> State:
        """weights: [B, N, D], in the vectors' unit √τ; bias: [B, N]"""
        onehot, sums, count = class_sums(support, targets, way)
        absent = count == 0
        count = count.clamp(min=1)
        real = (targets >= 0).sum(1)[:, None, None]
        tau = support.square().sum((1, 2), keepdim=True) / real

        # The examples of a class weigh 1 together: a class of many is not the likelier answer for that. λ is that of
        # an example, so that more shots rely on it less.
        root = (onehot @ (1 / count)[..., None]).sqrt()  # [B, S, 1]; 0 where a row is padding
        x, y = root * support, root * onehot
        shrink = (self.log_lambda.exp() + FLOOR) * (~absent).sum(1)[:, None, None] / real  # λ / shots
        gram = x @ x.transpose(1, 2) / tau + shrink * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        dual = solved(gram, y)  # [B, S, N]
        # 1 + λ undoes the shrinking of what stands alone, so that λ and α do not pull at one scale.
        weights = (1 + shrink) * (dual.transpose(1, 2) @ x)
        bias = -self.beta * (weights * sums).sum(-1) / count
        return {
            "weights": weights.masked_fill(absent[..., None], torch.nan),
            "bias": bias.masked_fill(absent, torch.nan),
        }

    def effort(self, examples: int, way: int, dimension: int) -> float:
        """S²·D for the Gram matrix, S³ / 3 to solve with it, S·N·D for the weights."""
        return float(examples) ** 2 * (dimension + examples / 3) + 2.0 * examples * way * dimension

    def score(self, state: State, query: Tensor) -> Tensor:
        absent = state["bias"].isnan()
        weights = state["weights"].masked_fill(absent[..., None], 0.0)
        bias = state["bias"].masked_fill(absent, 0.0)
        logits = self.alpha * (query @ weights.transpose(1, 2) + bias[:, None])
        return logits.masked_fill(absent[:, None], -torch.inf)
