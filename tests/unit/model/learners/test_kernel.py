"""Kernel ridge: the regression that scikit-learn solves, prototypes without it, and what the open set claims."""

import math

import pytest
import torch
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from torch.nn import functional as F

from quickstudy.kinds import openset
from quickstudy.learners.kernel import RIDGE, SHARPNESS, KernelRidge
from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.ridge import FLOOR
from tests.unit.model.learners.tasks import TASKS, padded, task


def learner(alpha: float = 1.0, sharpness: float = 1.7, penalty: float = 0.3) -> KernelRidge:
    made = KernelRidge().double()
    with torch.no_grad():
        made.alpha.fill_(alpha)
        made.log_sharpness.fill_(math.log(sharpness))
        made.log_lambda.fill_(math.log(penalty - FLOOR))
    return made


@pytest.mark.parametrize("tau", [1.0, 300.0])
@pytest.mark.parametrize(("counts", "queries"), TASKS)
def test_beside_prototypes_it_says_what_scikit_learn_says(counts: list[int], queries: int, tau: float) -> None:
    support, targets, query = task(counts, queries, tau=tau)
    logits = learner()(support[None], targets[None], query[None], len(counts))[0].detach()
    prototypes = ProtoNet()(support[None], targets[None], query[None], len(counts))[0].detach()
    x, q = F.normalize(support, dim=1).numpy(), F.normalize(query, dim=1).numpy()
    peer = SklearnKernelRidge(alpha=0.3, kernel="rbf", gamma=1.7 / 2)  # ‖a − b‖² = 2 − 2 a·b
    weight = [len(support) / len(counts) / counts[n] for n in targets]
    peer.fit(x, F.one_hot(targets).double().numpy(), sample_weight=weight)
    assert ((logits - prototypes) / tau - torch.from_numpy(peer.predict(q))).abs().max() < 1e-9


def test_without_its_share_it_is_a_prototypical_network() -> None:
    batch = padded([task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)])
    logits, expected = learner(alpha=0.0)(*batch, 5), ProtoNet()(*batch, 5)
    assert (logits.isinf() == expected.isinf()).all()
    assert (logits - expected)[expected.isfinite()].abs().max() < 1e-9


def test_classes_are_claimed_as_the_open_set_does() -> None:
    support, targets, query = task([4] * 5, 9)
    model = learner(sharpness=SHARPNESS, penalty=RIDGE)
    g = model(support[None], targets[None], query[None], 5) - ProtoNet()(support[None], targets[None], query[None], 5)
    claims = openset.least_squares(openset.fit(support.float(), targets, 0.1), query.float())
    assert (g[0] / support[0].square().sum() - claims).abs().max() < 1e-5
