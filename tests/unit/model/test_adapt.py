"""The learner: prototypes where α = 0, the gradient it claims to follow, and padding that changes nothing."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.model.learners.adapt import AdaptLearner

D = 12
TAU = 7.0


def learner(steps: int = 3, alpha: float = 0.4, seed: int = 0) -> AdaptLearner:
    torch.manual_seed(seed)
    made = AdaptLearner(D, 3, steps).double()
    with torch.no_grad():
        made.alpha.fill_(alpha)
        made.step_alpha.copy_(torch.linspace(0.3, 0.9, steps) if steps else torch.zeros(0))
    return made


def task(counts: list[int], queries: int, seed: int = 0, tau: float = TAU) -> tuple[Tensor, Tensor, Tensor]:
    """Support [S, D], targets [S] and queries [Q, D]; so many examples of each class, all of length √τ."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor([n for n, count in enumerate(counts) for _ in range(count)])

    def vectors(n: int) -> Tensor:
        return F.normalize(torch.randn(n, D, generator=generator, dtype=torch.float64), dim=1) * tau**0.5

    return vectors(len(targets)), targets, vectors(queries)


def reference(model: AdaptLearner, support: Tensor, targets: Tensor, queries: Tensor, way: int) -> Tensor:
    """The same by loops and autograd: −∇ of the mean cross-entropy of the support set by the prototypes, in units of
    way / 2τ, after the attention's correction."""
    prototypes = torch.stack([support[targets == n].mean(0) for n in range(way)])
    length = support[0].norm()
    g, _ = model.attention((prototypes / length)[None], (support / length)[None], (support / length)[None])
    prototypes = (prototypes + model.alpha * length * g[0]).detach()
    for alpha in model.step_alpha.tolist():
        prototypes.requires_grad_(True)
        loss = F.cross_entropy(-torch.cdist(support, prototypes).square(), targets)
        (gradient,) = torch.autograd.grad(loss, prototypes)
        prototypes = (prototypes - alpha * way / (2 * length**2) * gradient).detach()
    return torch.cdist(queries, prototypes).square().neg() + queries.square().sum(1, keepdim=True)


TASKS = [([1, 1], 3), ([2, 2, 2], 5), ([1, 3, 2, 4, 1], 2), ([5] * 4, 8)]


def padded(tasks: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    s, q = max(len(t[0]) for t in tasks), max(len(t[2]) for t in tasks)
    support = torch.stack([F.pad(t[0], (0, 0, 0, s - len(t[0]))) for t in tasks])
    targets = torch.stack([F.pad(t[1], (0, s - len(t[1])), value=-1) for t in tasks])
    return support, targets, torch.stack([F.pad(t[2], (0, 0, 0, q - len(t[2]))) for t in tasks])


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


@pytest.mark.parametrize("training", [True, False])  # attention has a path of its own where nothing is trained
def test_a_ragged_batch_answers_each_task_as_if_it_were_alone(training: bool) -> None:
    model = learner().train(training)
    tasks = [task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)]
    with torch.set_grad_enabled(training):
        together = model(*padded(tasks), 5)
        for row, (support, targets, query) in zip(together, tasks, strict=True):
            way = int(targets.max()) + 1
            alone = model(support[None], targets[None], query[None], way)[0]
            assert (row[: len(query), :way] - alone).abs().max() < 1e-10
            assert (row[: len(query), way:] == -torch.inf).all()


def test_padding_sends_no_gradient_astray() -> None:
    model = learner()
    tasks = [task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)]

    def gradients(batches: list[list[tuple[Tensor, Tensor, Tensor]]]) -> list[Tensor]:
        model.zero_grad()
        for batch in batches:
            logits = model(*padded(batch), max(int(t[1].max()) for t in batch) + 1)
            for row, (_, targets, query) in zip(logits, batch, strict=True):
                way = int(targets.max()) + 1
                F.cross_entropy(row[: len(query), :way], torch.arange(len(query)) % way).backward(retain_graph=True)
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    together, alone = gradients([tasks]), gradients([[t] for t in tasks])
    assert len(together) == len(alone) == len(list(model.parameters()))
    for a, b in zip(together, alone, strict=True):
        assert torch.isfinite(a).all() and (a - b).abs().max() < 1e-10


def test_a_class_without_support_is_never_the_answer() -> None:
    model = learner()
    support, targets, query = task([2, 2, 2], 4)
    targets = torch.where(targets == 1, 3, targets)  # nobody is 1 any more, 3 is new
    prototypes = model.adapt(support[None], targets[None], 5)
    assert prototypes[0].isnan().all(1).tolist() == [False, True, False, False, True]
    logits = model.score(prototypes, query[None])[0]
    assert (logits[:, [1, 4]] == -torch.inf).all() and torch.isfinite(logits[:, [0, 2, 3]]).all()
    assert torch.isfinite(logits.softmax(-1)).all()
    gap = task([2, 2, 2], 4)
    closed = model(gap[0][None], gap[1][None], gap[2][None], 3)[0]  # classes 0, 1, 2 are our 0, 3, 2
    assert (logits[:, [0, 3, 2]] - closed).abs().max() < 1e-10


def test_order_carries_no_meaning() -> None:
    model = learner()
    support, targets, query = task([2, 3, 1, 2], 6)
    logits = model(support[None], targets[None], query[None], 4)[0]
    rows = torch.randperm(len(support), generator=torch.Generator().manual_seed(1))
    shuffled = model(support[rows][None], targets[rows][None], query.flip(0)[None], 4)[0].flip(0)
    assert (logits - shuffled).abs().max() < 1e-10
    names = torch.tensor([2, 0, 3, 1])
    renamed = model(support[None], names[targets][None], query[None], 4)[0]
    assert (renamed[:, names] - logits).abs().max() < 1e-10


def test_each_alpha_learns_from_0() -> None:
    torch.manual_seed(0)
    model = AdaptLearner(D, 3, 2).double()
    support, targets, query = task([2, 2, 2], 6)
    F.cross_entropy(model(support[None], targets[None], query[None], 3)[0], torch.arange(6) % 3).backward()
    assert model.alpha.item() == 0 and model.alpha.grad.abs() > 1e-6
    assert (model.step_alpha.grad.abs() > 1e-6).all()
