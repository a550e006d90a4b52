"""The learner: prototypes where α = 0, the gradient it claims to follow, and padding that changes nothing."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.learners.adapt import AdaptLearner
from tests.unit.model.learners.tasks import TASKS, D, task


def learner(steps: int = 3, alpha: float = 0.4, seed: int = 0) -> AdaptLearner:
    torch.manual_seed(seed)
    made = AdaptLearner(D, 3, steps).double()
    with torch.no_grad():
        made.alpha.fill_(alpha)
        made.step_alpha.copy_(torch.linspace(0.3, 0.9, steps) if steps else torch.zeros(0))
    return made


def reference(model: AdaptLearner, support: Tensor, targets: Tensor, queries: Tensor, way: int) -> Tensor:
    """The same by loops and autograd: −∇ of the mean over classes of their mean cross-entropy by the prototypes, in
    units of way / 2τ, after the attention's correction."""
    prototypes = torch.stack([support[targets == n].mean(0) for n in range(way)])
    length = support[0].norm()
    g, _ = model.attention((prototypes / length)[None], (support / length)[None], (support / length)[None])
    prototypes = (prototypes + model.alpha * length * g[0]).detach()
    for alpha in model.step_alpha.tolist():
        prototypes.requires_grad_(True)
        logits = -torch.cdist(support, prototypes).square()
        loss = torch.stack([F.cross_entropy(logits[targets == n], targets[targets == n]) for n in range(way)]).mean()
        (gradient,) = torch.autograd.grad(loss, prototypes)
        prototypes = (prototypes - alpha * way / (2 * length**2) * gradient).detach()
    return torch.cdist(queries, prototypes).square().neg() + queries.square().sum(1, keepdim=True)


def test_with_every_alpha_0_it_is_a_prototypical_network() -> None:
    fresh = AdaptLearner(D, 3, 4).double()  # α is learned from 0
    for counts, queries in TASKS:
        support, targets, query = task(counts, queries)
        logits = fresh(support[None], targets[None], query[None], len(counts))[0]
        for i, q in enumerate(query):
            distances = []
            for n in range(len(counts)):
                own = [row for row, target in zip(support, targets, strict=True) if target == n]
                distances.append(((q - sum(own) / len(own)) ** 2).sum())
            expected = (-torch.stack(distances)).softmax(0)
            assert (logits[i].softmax(0) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("tau", [1.0, 10.0, 300.0])
@pytest.mark.parametrize(("counts", "queries"), TASKS)
def test_the_steps_follow_the_gradient_of_the_support_loss(counts: list[int], queries: int, tau: float) -> None:
    model = learner()
    support, targets, query = task(counts, queries, tau=tau)
    with torch.no_grad():
        logits = model(support[None], targets[None], query[None], len(counts))[0]
    expected = reference(model, support, targets, query, len(counts))
    assert (logits - expected).abs().max() < 1e-8 * tau
    plain = AdaptLearner(D, 3, 0).double()(support[None], targets[None], query[None], len(counts))[0]
    assert (logits - plain).abs().max() > 0.01 * tau  # the correction does something


def test_the_steps_lower_the_support_loss() -> None:
    support, targets, _ = task([3] * 4, 1)
    losses = []
    for steps in range(6):
        logits = learner(steps, alpha=0.0)(support[None], targets[None], support[None], 4)[0]
        losses.append(F.cross_entropy(logits, targets).item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]


def test_each_alpha_learns_from_0() -> None:
    torch.manual_seed(0)
    model = AdaptLearner(D, 3, 2).double()
    support, targets, query = task([2, 2, 2], 6)
    F.cross_entropy(model(support[None], targets[None], query[None], 3)[0], torch.arange(6) % 3).backward()
    assert model.alpha.item() == 0 and model.alpha.grad.abs() > 1e-6
    assert (model.step_alpha.grad.abs() > 1e-6).all()
