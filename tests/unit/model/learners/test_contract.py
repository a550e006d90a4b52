"""What holds for every learner that reads vectors, whatever it makes of them."""

from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from quickstudy.learners.adapt import AdaptLearner
from quickstudy.learners.anil import Anil
from quickstudy.learners.incontext import InContextLearner
from quickstudy.learners.kernel import KernelRidge
from quickstudy.learners.learner import VectorLearner
from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.ridge import Ridge
from tests.unit.model.learners.tasks import TASKS, D, padded, task

# Each with its α away from 0, so that g has its say.
LEARNERS: dict[str, Callable[[], VectorLearner]] = {
    "protonet": ProtoNet,
    "adapt": lambda: AdaptLearner(D, 3, 3),
    "ridge": Ridge,
    "kernel": KernelRidge,
    "anil": lambda: Anil(D, 3),
    "incontext": lambda: InContextLearner(D, 3),
}


@pytest.fixture(params=LEARNERS)
def model(request: pytest.FixtureRequest) -> VectorLearner:
    torch.manual_seed(0)
    made = LEARNERS[request.param]().double()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("alpha"):
                parameter.add_(torch.linspace(0.3, 0.9, parameter.numel(), dtype=torch.float64).view_as(parameter))
    return made


@pytest.mark.parametrize("training", [True, False])  # attention has a path of its own where nothing is trained
def test_a_ragged_batch_answers_each_task_as_if_it_were_alone(model: VectorLearner, training: bool) -> None:
    model.train(training)
    tasks = [task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)]
    with torch.set_grad_enabled(training):
        together = model(*padded(tasks), 5)
        for row, (support, targets, query) in zip(together, tasks, strict=True):
            way = int(targets.max()) + 1
            alone = model(support[None], targets[None], query[None], way)[0]
            assert (row[: len(query), :way] - alone).abs().max() < 1e-10
            assert (row[: len(query), way:] == -torch.inf).all()


def test_padding_sends_no_gradient_astray(model: VectorLearner) -> None:
    tasks = [task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)]
    leaves = [*model.parameters(), *(support.requires_grad_() for support, _, _ in tasks)]

    def gradients(batches: list[list[tuple[Tensor, Tensor, Tensor]]]) -> list[Tensor]:
        for leaf in leaves:
            leaf.grad = None
        for batch in batches:
            logits = model(*padded(batch), max(int(t[1].max()) for t in batch) + 1)
            for row, (_, targets, query) in zip(logits, batch, strict=True):
                way = int(targets.max()) + 1
                F.cross_entropy(row[: len(query), :way], torch.arange(len(query)) % way).backward(retain_graph=True)
        return [leaf.grad.clone() for leaf in leaves if leaf.grad is not None]

    together, alone = gradients([tasks]), gradients([[t] for t in tasks])
    assert len(together) == len(alone) == len(leaves)
    for a, b in zip(together, alone, strict=True):
        assert torch.isfinite(a).all() and (a - b).abs().max() < 1e-10


def test_a_class_without_support_is_never_the_answer(model: VectorLearner) -> None:
    support, targets, query = task([2, 2, 2], 4)
    targets = torch.where(targets == 1, 3, targets)  # nobody is 1 any more, 3 is new
    logits = model(support[None], targets[None], query[None], 5)[0]
    assert (logits[:, [1, 4]] == -torch.inf).all() and torch.isfinite(logits[:, [0, 2, 3]]).all()
    assert torch.isfinite(logits.softmax(-1)).all()
    gap = task([2, 2, 2], 4)
    closed = model(gap[0][None], gap[1][None], gap[2][None], 3)[0]  # classes 0, 1, 2 are our 0, 3, 2
    assert (logits[:, [0, 3, 2]] - closed).abs().max() < 1e-10


@pytest.mark.parametrize("training", [True, False])
def test_order_carries_no_meaning(model: VectorLearner, training: bool) -> None:
    model.train(training)
    support, targets, query = task([2, 3, 1, 2], 6)
    logits = model(support[None], targets[None], query[None], 4)[0]
    rows = torch.randperm(len(support), generator=torch.Generator().manual_seed(1))
    shuffled = model(support[rows][None], targets[rows][None], query.flip(0)[None], 4)[0].flip(0)
    assert (logits - shuffled).abs().max() < 1e-10


@pytest.mark.parametrize("training", [True, False])
def test_names_carry_no_meaning(model: VectorLearner, training: bool) -> None:
    if isinstance(model, InContextLearner) and not training:
        pytest.skip("class n has code n, so that other names are other codes; test_incontext.py: no code is better")
    model.train(training)
    support, targets, query = task([2, 3, 1, 2], 6)
    logits = model(support[None], targets[None], query[None], 4)[0]
    names = torch.tensor([2, 0, 3, 1])
    renamed = model(support[None], names[targets][None], query[None], 4)[0]
    assert (renamed[:, names] - logits).abs().max() < 1e-10


@pytest.mark.parametrize("made", [lambda: Anil(64, 5), Ridge, KernelRidge], ids=["anil", "ridge", "kernel"])
@pytest.mark.parametrize("counts", [[1] * 10, [10] * 10, [1, 2, 5, 10, 10] * 2])
def test_untrained_it_is_no_worse_than_prototypes_on_pixels_of_digits(
    made: Callable[[], VectorLearner], counts: list[int]
) -> None:
    pixels, labels = load_digits(return_X_y=True)
    vectors = F.normalize(torch.from_numpy(pixels).float(), dim=1) * 10**0.5
    generator = torch.Generator().manual_seed(0)
    support, query = [], []
    for _ in range(100):
        for n, count in enumerate(counts):
            own = torch.from_numpy(labels == n).nonzero()[:, 0]
            own = vectors[own[torch.randperm(len(own), generator=generator)]]
            support.append(own[:count])
            query.append(own[10:15])
    supports, queries = torch.cat(support).unflatten(0, (100, -1)), torch.cat(query).unflatten(0, (100, -1))
    targets, answers = torch.arange(10).repeat_interleave(torch.tensor(counts)), torch.arange(10).repeat_interleave(5)
    with torch.no_grad():
        ours, prototypes = (
            (model(supports, targets.expand(100, -1), queries, 10).argmax(2) == answers).float().mean().item()
            for model in (made(), ProtoNet())
        )
    assert 0.5 < prototypes < 0.9 and ours > prototypes - 0.004
