"""Prototypes and kernel ridge regression: f + α · g, with g in closed form.

With α = 0 this is a prototypical network (Snell et al. 2017). g is the least-squares classifier with a Gaussian kernel
(Rifkin et al. 2003, Regularized least-squares classification): 1 at the examples of a class, 0 at those of the others,
near 0 far from all. With many classes and many shots it tells apart what prototypes cannot; with one shot they agree.
Differentiable closed-form heads in meta-training: Bertinetto et al. 2019, https://arxiv.org/abs/1805.08136.
"""

import math

import torch
from torch import Tensor, nn

from quickstudy.learners.learner import State, VectorLearner, class_sums, nearest, solved
from quickstudy.learners.ridge import FLOOR

# Chosen on the validation part of CLINC150 and on HWU64: benchmarks/open_set.py. The learner begins with them.
SHARPNESS = 2.0
RIDGE = 0.1


class KernelRidge(VectorLearner):
    """logits = τ · (2 p·q − ‖p‖² + α · k(q, X) (K + λI)⁻¹ Y) of vectors of length 1, with k(a, b) = exp(−σ(1 − a·b)).

    α, σ and λ are learned. A class of many examples is not the likelier answer for that: an example weighs 1 / the
    shots of its class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(2.0))
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        self.log_lambda = nn.Parameter(torch.tensor(math.log(RIDGE)))

    def adapt(self, support: Tensor, targets: Tensor, way: int) -> State:
        """prototypes: [B, N, D]; support: [B, S, D], of length 1; weights: [B, S, N], of its rows, in the unit τ"""
        onehot, sums, count = class_sums(support, targets, way)
        absent = count == 0
        prototypes = sums / count.clamp(min=1)[..., None]

        tau = support.square().sum(-1).amax(1)[:, None, None]
        unit = support / tau.sqrt()  # a padding row is 0
        # Weighted: minimise Σ wᵢ (yᵢ − g(xᵢ))² + λ‖g‖², the weights of a task's examples 1 on average.
        shots = (count.sum(1) / (~absent).sum(1))[:, None, None]  # of a class, on average
        root = (onehot @ (1 / count.clamp(min=1))[..., None] * shots).sqrt()
        gram = root * self._kernel(unit, unit) * root.transpose(1, 2)
        penalty = (self.log_lambda.exp() + FLOOR) * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        # A padding row has weight 0 and no target, so that nothing of it is left.
        weights = root * solved(gram + penalty, root * onehot)
        return {
            "prototypes": prototypes.masked_fill(absent[..., None], torch.nan),
            "support": unit,
            "weights": tau * self.alpha * weights,
        }

    def effort(self, examples: int, way: int, dimension: int) -> float:
        """S²·D for the Gram matrix, S³ / 3 to solve with it, S·N·D for the weights."""
        return float(examples) ** 2 * (dimension + examples / 3) + 2.0 * examples * way * dimension

    def score(self, state: State, query: Tensor) -> Tensor:
        unit = nn.functional.normalize(query, dim=-1)
        return nearest(state["prototypes"], query) + self._kernel(unit, state["support"]) @ state["weights"]

    def _kernel(self, a: Tensor, b: Tensor) -> Tensor:
        return gaussian(a, b, self.log_sharpness.exp())


def gaussian(a: Tensor, b: Tensor, sharpness: float | Tensor) -> Tensor:
    """exp(−sharpness · (1 − cosine)) of vectors of length 1: [..., n, D], [..., m, D] → [..., n, m]"""
    return (sharpness * (a @ b.mT - 1)).exp()
