"""Reptile: g = −∇ of the support set's loss, as in MAML; the start moves towards where the steps lead.

Nichol et al. 2018, https://arxiv.org/abs/1803.02999. MAML asks how the start should change so that the queries are
answered better after the steps. Here the meta-gradient is θ − φ, from the weights φ after the steps to θ before them:
no history of the steps is kept, and nothing is differentiated twice.
"""

import math

import torch
from torch import Tensor, nn

from quickstudy.learners.learner import State, WeightLearner
from quickstudy.learners.maml import descend, encoder_weights, read

ALPHA = 0.1
TAU = 10.0


class Reptile(WeightLearner):
    """Gradient steps on the support set's mean cross-entropy, all of one fixed size α: θ − φ says nothing about α, nor
    about τ.

    The head is that of MAML, made of the support set; the paper's, which is a weight like others, knows one number of
    classes.

    Args:
        dimension: D of the encoders' vectors.
        steps: gradient steps.
    """

    alpha: Tensor
    log_tau: Tensor
    shared: Tensor

    def __init__(self, dimension: int, steps: int):
        super().__init__()
        self.steps = steps
        self.register_buffer("alpha", torch.tensor(ALPHA), persistent=False)
        self.register_buffer("log_tau", torch.tensor(math.log(TAU)), persistent=False)
        self.register_buffer("shared", torch.zeros(dimension), persistent=False)

    @torch.no_grad()
    def adapt(self, encoder: nn.Module, support: Tensor, targets: Tensor, way: int) -> State:
        """As `Maml.adapt`, without a history."""
        weights = encoder_weights(encoder)
        alpha = {**dict.fromkeys([*weights, "head.weight", "head.bias"], self.alpha), "log_tau": 0 * self.alpha}
        start = {**weights, "log_tau": self.log_tau}
        return descend(encoder, start, self.shared, alpha, support, targets, way, self.steps, second_order=False)

    def score(self, encoder: nn.Module, state: State, query: Tensor) -> Tensor:
        vectors, _ = read(encoder, state, query)
        return vectors @ state["head.weight"].mT + state["head.bias"][:, None]

    def loss(
        self, encoder: nn.Module, support: Tensor, targets: Tensor, query: Tensor, answers: Tensor, way: int
    ) -> Tensor:
        """½‖θ − φ‖², whose gradient by θ is θ − φ; φ, which counts as a constant, after steps on all examples."""
        after = self.adapt(encoder, torch.cat([support, query], 1), torch.cat([targets, answers], 1), way)
        moved = [(weight - after[name]).square().flatten(1).sum(1) for name, weight in encoder_weights(encoder).items()]
        return torch.stack(moved).sum(0).mean() / 2
