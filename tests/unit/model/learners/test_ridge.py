"""Ridge: the regression that scikit-learn solves, by the other side of Woodbury; prototypes at its limit; a λ that
means the same everywhere."""

import math

import pytest
import torch
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor
from torch.nn import functional as F

from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.ridge import FLOOR, Ridge
from tests.unit.model.learners.tasks import TASKS, D, padded, task


def learner(alpha: float = 1.3, beta: float = 0.7, penalty: float = 0.4) -> Ridge:
    made = Ridge().double()
    with torch.no_grad():
        made.alpha.fill_(alpha)
        made.beta.fill_(beta)
        made.log_lambda.fill_(math.log(penalty - FLOOR))
    return made


def reference(model: Ridge, support: Tensor, targets: Tensor, queries: Tensor) -> Tensor:
    """Logits of one task, class by class, from the normal equations in D dimensions."""
    way, examples = int(targets.max()) + 1, len(support)
    tau = sum((row * row).sum() for row in support) / examples
    unit = support / tau.sqrt()
    shrink = (model.log_lambda.exp() + FLOOR) / (examples / way)
    counts = [int((targets == n).sum()) for n in range(way)]
    moment = shrink * torch.eye(D, dtype=torch.float64)
    for row, target in zip(unit, targets.tolist(), strict=True):
        moment = moment + torch.outer(row, row) / counts[target]
    columns = []
    for n in range(way):
        mean = unit[targets == n].mean(0)
        weights = (1 + shrink) * (torch.linalg.inv(moment) @ mean)
        margin = model.beta * (mean @ weights)
        columns.append(torch.stack([model.alpha * tau * (q / tau.sqrt() @ weights - margin) for q in queries]))
    return torch.stack(columns, dim=1)


@pytest.mark.parametrize("tau", [1.0, 300.0])
@pytest.mark.parametrize(("counts", "queries"), TASKS)
def test_the_weights_are_those_of_scikit_learn(counts: list[int], queries: int, tau: float) -> None:
    support, targets, _ = task(counts, queries, tau=tau)
    weights = learner(penalty=0.4).adapt(support[None], targets[None], len(counts))["weights"][0].detach()
    each = 0.4 / (len(support) / len(counts))
    peer = SklearnRidge(alpha=each, fit_intercept=False)
    peer.fit(support / tau**0.5, F.one_hot(targets), sample_weight=[1 / counts[n] for n in targets])
    assert (weights / tau**0.5 / (1 + each) - torch.from_numpy(peer.coef_)).abs().max() < 1e-10


def test_a_ragged_batch_has_the_logits_and_the_gradients_of_loops_over_tasks_and_classes() -> None:
    model = learner()
    tasks = [task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)]
    leaves = [*model.parameters(), *(support.requires_grad_() for support, _, _ in tasks)]

    def loss(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])

    together = model(*padded(tasks), 5)
    ours = [row[: len(t[2]), : int(t[1].max()) + 1] for row, t in zip(together, tasks, strict=True)]
    theirs = [reference(model, *one) for one in tasks]
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() < 1e-10
    gradients = torch.autograd.grad(torch.stack([loss(logits) for logits in ours]).sum(), leaves)
    expected = torch.autograd.grad(torch.stack([loss(logits) for logits in theirs]).sum(), leaves)
    for a, b in zip(gradients, expected, strict=True):
        assert (a - b).abs().max() < 1e-10 and b.abs().max() > 1e-3


def test_a_large_penalty_makes_it_a_prototypical_network() -> None:
    model = learner(alpha=2.0, beta=0.5, penalty=1e9)
    batch = padded([task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)])
    logits, expected = model(*batch, 5), ProtoNet()(*batch, 5)
    assert (logits.isinf() == expected.isinf()).all()
    assert (logits - expected)[expected.isfinite()].abs().max() < 1e-6


def test_the_penalty_means_the_same_at_every_length_of_the_vectors() -> None:
    model = learner()
    short, long = (task([1, 3, 2], 4, tau=tau) for tau in (1.0, 90.0))
    first, second = (model(s[None], t[None], q[None], 3) for s, t, q in (short, long))
    assert (90 * first - second).abs().max() < 1e-9


def test_an_example_given_twice_and_no_penalty_left_stays_finite_and_exact() -> None:
    support, targets, query = task([2, 3, 2], 4)
    support[1], support[3] = support[0], support[2]
    results = []
    for dtype in (torch.float64, torch.float32):
        model = Ridge().to(dtype)
        with torch.no_grad():
            model.log_lambda.fill_(-60.0)
        leaf = support.to(dtype).requires_grad_()
        logits = model(leaf[None], targets[None], query.to(dtype)[None], 3)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits[0], torch.arange(4) % 3), leaf)
        results.append((logits.double(), gradient.double()))
    for exact, rounded in zip(*results, strict=True):
        assert (exact - rounded).abs().max() < 1e-2 * exact.abs().max()
