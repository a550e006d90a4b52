"""Reptile: what meta-training follows is θ − φ. (What it shares with MAML is in test_maml.)"""

import pytest
import torch
from torch.nn import functional as F

from quickstudy.config import Settings
from quickstudy.data.dataset import Modality
from quickstudy.learners.reptile import Reptile
from tests.unit.model.learners.test_maml import (
    ENCODERS,
    STEPS,
    D,
    made_encoder,
    made_reptile,
    plain_network,
    some_tasks,
)


@pytest.mark.parametrize(("modality", "name"), ENCODERS)
def test_the_meta_gradient_is_theta_minus_phi_of_a_plain_loop(tiny: Settings, modality: Modality, name: str) -> None:
    encoder = made_encoder(tiny, modality, name)
    learner = made_reptile(alpha=0.2)
    support, targets, query, answers = some_tasks(modality, name)
    theta = {name: weight.detach().clone() for name, weight in encoder.named_parameters()}

    distance, moves = 0.0, []
    for i in range(3):
        examples, labels = torch.cat([support[i], query[i]]), torch.cat([targets[i], answers[i]])
        phi = {name: weight.clone().requires_grad_() for name, weight in theta.items()}
        f, _ = plain_network(encoder, phi, examples, None)
        f = (f / f.norm(dim=1, keepdim=True) * 8**0.5).detach()
        rows = torch.stack([f[labels == n].mean(0) for n in range(3)])
        head, bias = (2 * rows).requires_grad_(), (-(rows**2).sum(1)).requires_grad_()
        descent = torch.optim.SGD([*phi.values(), head, bias], lr=0.2)
        for _ in range(STEPS):
            f, _ = plain_network(encoder, phi, examples, None)
            loss = F.cross_entropy(f / f.norm(dim=1, keepdim=True) * 8**0.5 @ head.T + bias, labels)
            descent.zero_grad()
            loss.backward()
            descent.step()
        moves.append({name: theta[name] - weight.detach() for name, weight in phi.items()})
        distance += sum(move.square().sum().item() for move in moves[i].values()) / 2 / 3

    ours = learner.loss(encoder, support, targets, query, answers, 3)
    assert ours.item() == pytest.approx(distance, rel=1e-8) and distance > 1e-6
    ours.backward()
    for name, weight in encoder.named_parameters():
        expected = sum(move[name] for move in moves) / 3
        assert (weight.grad - expected).abs().max() < 1e-9


def test_the_steps_are_first_order_steps_of_one_size(tiny: Settings) -> None:
    encoder = made_encoder(tiny, "text", "minilm")
    support, targets, _, _ = some_tasks("text", "minilm")
    moved = []
    for alpha in (0.0, 0.1, 0.2):
        learner = made_reptile(alpha)
        learner.steps = 1
        state = learner.adapt(encoder, support, targets, 3)
        moved.append({name: state[name] for name in ("encoder.project.weight", "head.weight", "head.bias")})
    for name in moved[0]:
        once, twice = moved[1][name] - moved[0][name], moved[2][name] - moved[0][name]
        assert (twice - 2 * once).abs().max() < 1e-9 and once.abs().max() > 1e-6
    assert torch.equal(moved[0]["encoder.project.weight"][0], encoder.project.weight)
    assert list(Reptile(D, 1).parameters()) == []  # θ − φ says nothing about α or τ
