"""ANIL: the steps are those of autograd, and so are the gradients through them, of first and second order."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.learners.anil import Anil
from quickstudy.learners.protonet import ProtoNet
from tests.unit.model.learners.tasks import TASKS, D, padded, task


def learner(steps: int) -> Anil:
    """Every parameter away from where it starts."""
    torch.manual_seed(0)
    made = Anil(D, steps).double()
    with torch.no_grad():
        made.weight.copy_(0.3 * torch.randn(D))
        made.bias.fill_(-0.2)
        made.start_alpha.fill_(0.8)
        made.alpha.copy_(torch.linspace(0.5, 2.0, steps) if steps else torch.zeros(0))
    return made


def reference(model: Anil, support: Tensor, targets: Tensor, queries: Tensor) -> Tensor:
    """Logits of one task: a head for each class, autograd for each step."""
    way = int(targets.max()) + 1
    tau = torch.stack([row @ row for row in support]).mean()
    weights, bias = [], []
    for n in range(way):
        own = [row for row, target in zip(support, targets, strict=True) if target == n]
        mean = sum(own) / len(own)
        weights.append(model.start_alpha * 2 * (1 + model.weight) * mean)
        bias.append(-model.start_alpha * (1 + model.bias) * ((1 + model.weight) * mean * mean).sum())
    head = torch.stack(weights), torch.stack(bias)
    for alpha in model.alpha:
        logits = F.linear(support, *head)
        loss = sum(F.cross_entropy(logits[targets == n], targets[targets == n]) for n in range(way)) / tau
        slope = torch.autograd.grad(loss, head, create_graph=True)
        head = head[0] - alpha * slope[0], head[1] - alpha * slope[1]
    return F.linear(queries, *head)


def meta_loss(logits: list[Tensor]) -> Tensor:
    return torch.stack([F.cross_entropy(z, torch.arange(len(z)) % z.shape[1]) for z in logits]).sum()


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_a_ragged_batch_has_the_logits_and_the_gradients_of_a_loop_with_autograd(steps: int) -> None:
    model = learner(steps)
    tasks = [task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)]
    supports = [support.requires_grad_() for support, _, _ in tasks]
    together = model(*padded(tasks), 5)
    ours = [row[: len(t[2]), : int(t[1].max()) + 1] for row, t in zip(together, tasks, strict=True)]
    theirs = [reference(model, *one) for one in tasks]
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-8

    leaves = [*(p for p in model.parameters() if p.numel()), *supports]
    first, expected = (torch.autograd.grad(meta_loss(z), leaves, create_graph=True) for z in (ours, theirs))
    for a, b in zip(first, expected, strict=True):
        assert (a - b).abs().max() < 1e-8 and b.abs().max() > 1e-4
    # and of the gradient's own length
    second, expected = (torch.autograd.grad(sum(g.square().sum() for g in z), leaves) for z in (first, expected))
    for a, b in zip(second, expected, strict=True):
        assert (a - b).abs().max() < 1e-8 * max(1.0, b.abs().max().item())


def test_without_steps_it_begins_as_a_prototypical_network() -> None:
    batch = padded([task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)])
    logits, expected = Anil(D, 0).double()(*batch, 5), ProtoNet()(*batch, 5)
    assert (logits.isinf() == expected.isinf()).all()
    assert (logits - expected)[expected.isfinite()].abs().max() < 1e-10


def test_the_steps_lower_the_support_loss() -> None:
    support, targets, _ = task([3] * 4, 1)
    losses = []
    for steps in range(0, 60, 10):
        logits = Anil(D, steps).double()(support[None], targets[None], support[None], 4)[0]  # untrained
        losses.append(F.cross_entropy(logits, targets).item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.9 * losses[0]


def test_every_parameter_learns_from_its_start() -> None:
    model = Anil(D, 3).double()
    support, targets, query = task([2, 2, 2], 6)
    meta_loss([model(support[None], targets[None], query[None], 3)[0]]).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad.abs() > 1e-6).all(), name
