"""The learner that reads the whole task: against loops, with any number of ways, and where class means mislead."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.config import Settings
from quickstudy.learners.incontext import LAYERS, InContextLearner
from quickstudy.learners.protonet import ProtoNet
from quickstudy.model.metamodel import MetaModel
from quickstudy.training import Source, meta_train
from tests.unit.model.learners.tasks import TASKS, D, padded, task

HEADS = 3


@pytest.fixture
def model() -> InContextLearner:
    """No weight is 0, 1 or tied to another, as some are at the start."""
    torch.manual_seed(0)
    made = InContextLearner(D, HEADS).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        made.alpha.fill_(0.7)
    return made.eval()


def reference(model: InContextLearner, support: Tensor, targets: Tensor, queries: Tensor, codes: Tensor) -> Tensor:
    """The same, token by token and head by head."""
    weight = dict(model.named_parameters())

    def normal(x: Tensor, name: str) -> Tensor:
        spread = ((x - x.mean()) ** 2).mean() + 1e-5
        return (x - x.mean()) / spread.sqrt() * weight[f"{name}.weight"] + weight[f"{name}.bias"]

    def layer(i: int, token: Tensor, context: list[Tensor]) -> Tensor:
        here = f"layers.{i}"
        mixed = []
        for head in range(HEADS):
            rows = slice(head * D // HEADS, (head + 1) * D // HEADS)
            query, key, value = (weight[f"{here}.{name}.weight"][rows] for name in ("query", "key", "value"))
            asks = query @ normal(token, f"{here}.before")
            scores = [asks @ (key @ normal(other, f"{here}.before")) / (D / HEADS) ** 0.5 for other in context]
            total = sum(score.exp() for score in scores)
            read = [value @ normal(other, f"{here}.before") for other in context]
            mixed.append(sum(score.exp() / total * v for score, v in zip(scores, read, strict=True)))
        token = token + weight[f"{here}.out.weight"] @ torch.cat(mixed)
        hidden = weight[f"{here}.network.1.weight"] @ normal(token, f"{here}.network.0")
        hidden = hidden + weight[f"{here}.network.1.bias"]
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        return token + weight[f"{here}.network.3.weight"] @ hidden + weight[f"{here}.network.3.bias"]

    scale = D**0.5
    codes = torch.stack([weight["embed.weight"] @ code for code in codes])
    read = weight["read.weight"]
    tokens = [scale * (read @ (row / row.norm()) + codes[n]) for row, n in zip(support, targets, strict=True)]
    contexts = []
    for i in range(LAYERS):
        contexts.append(tokens)
        tokens = [layer(i, token, contexts[i]) for token in tokens]
    logits = []
    for query in queries:
        token = scale * (read @ query) / query.norm() + weight["unknown"]
        for i in range(LAYERS):
            token = layer(i, token, [*contexts[i], token])
        g = [normal(token, "norm") @ code for code in codes]
        distances = [(query - support[targets == n].mean(0)).square().sum() for n in range(len(codes))]
        logits.append([query.square().sum() - d + weight["alpha"] * a for d, a in zip(distances, g, strict=True)])
    return torch.tensor(logits)


def assigned(model: InContextLearner, support: Tensor, targets: Tensor, way: int) -> list[int]:
    """The number of the code that each class of a task has."""
    with torch.no_grad():
        codes = model.adapt(support[None], targets[None], way)["codes"][0]
        near = torch.cdist(codes, model.embed(model._table(way)))
    assert near.min(1).values.max() < 1e-9
    return near.argmin(1).tolist()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("counts", "queries"), TASKS)
def test_it_is_the_transformer_it_claims_to_be(
    model: InContextLearner, counts: list[int], queries: int, training: bool
) -> None:
    model.train(training)
    support, targets, query = task(counts, queries)
    codes = model.codes[assigned(model, support, targets, len(counts))]
    with torch.no_grad():
        logits = model(support[None], targets[None], query[None], len(counts))[0]
        expected = reference(model, support, targets, query, codes)
        plain = ProtoNet()(support[None], targets[None], query[None], len(counts))[0]
    assert (logits - expected).abs().max() < 1e-8
    assert (logits - plain).abs().max() > 0.1  # g does something


# Codes


def test_the_codes_are_alike_up_to_D_ways_and_nearly_so_beyond() -> None:
    model = InContextLearner(64, 4)
    table = model._table(96)
    assert table.shape == (96, 64) and torch.equal(table[:64], model.codes)
    gram = table @ table.T
    assert (gram[:64, :64] - torch.eye(64)).abs().max() < 1e-5
    assert (gram.diagonal() - 1).abs().max() < 1e-5
    rest = (gram - gram.diagonal().diag()).abs()
    assert rest.max() < 0.7 and rest[64:].square().mean().sqrt() == pytest.approx(1 / 8, rel=0.1)  # 1 / √D
    assert torch.equal(model._table(80), table[:80])  # a code does not depend on how many there are
    assert "codes" not in model.state_dict() and torch.equal(model.codes, InContextLearner(64, 4).codes)


@pytest.mark.parametrize("training", [True, False])
def test_more_ways_than_dimensions(model: InContextLearner, training: bool) -> None:
    model.train(training)
    many, few = task([1] * 17 + [2] * 3, 5, seed=1), task([2, 1, 3], 4, seed=2)
    with torch.no_grad():
        together = model(*padded([many, few]), 20)
        for row, (support, targets, query) in zip(together, (many, few), strict=True):
            way = int(targets.max()) + 1
            code = assigned(model, support, targets, way)
            assert len(set(code)) == way and max(code) < max(way, D)
            expected = reference(model, support, targets, query, model._table(way)[code])
            assert (row[: len(query), :way] - expected).abs().max() < 1e-8
            assert (row[: len(query), way:] == -torch.inf).all()


def test_codes_are_drawn_while_it_trains_and_fixed_after() -> None:
    model = InContextLearner(D, HEADS).double()
    drawn = []
    for seed in range(1200):
        support, targets, _ = task([1, 2, 1, 2], 1, seed)
        drawn.append(assigned(model, support, targets, 4))
        assert len(set(drawn[-1])) == 4
    counts = np.stack([np.bincount(column, minlength=D) for column in np.array(drawn).T])  # 100 ± 9.6 each
    assert counts.min() > 60 and counts.max() < 140
    steps = np.bincount((np.array(drawn)[:, 1] - np.array(drawn)[:, 0]) % D, minlength=D)
    assert steps[0] == 0 and steps[1:].min() > 65 and steps.max() < 155  # 109 ± 10 each
    model.eval()
    assert assigned(model, *task([1, 2, 1, 2], 1, 5)[:2], 4) == [0, 1, 2, 3]


def test_a_draw_depends_on_the_support_set_alone(model: InContextLearner) -> None:
    model.train()
    support, targets, _ = task([2, 3, 1, 2], 1)
    first = assigned(model, support, targets, 4)
    torch.manual_seed(99)
    torch.rand(7)
    assert assigned(model, support, targets, 4) == first
    rows = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    names = torch.tensor([2, 0, 3, 1])
    renamed = assigned(model, support[rows], names[targets[rows]], 4)
    assert [renamed[n] for n in names] == first
    moved = support.clone()
    moved[0, 0] = torch.nextafter(moved[0, 0], torch.tensor(9.0, dtype=torch.float64))  # by one bit
    assert assigned(model, moved, targets, 4) != first
    assert assigned(model, support[:7], targets[:7], 4) != first


def test_a_stopped_training_ends_as_one_that_was_not(toys, tiny: Settings, tmp_path: Path) -> None:
    texts = toys("text", classes=6, each=8)
    sentences = np.random.default_rng(0).normal(0, 1, (48, 384)).astype(np.float32)
    sources = [Source.of(texts, np.ones(48, dtype=bool), sentences)]
    shape = tiny.model.model_copy(update={"learner": "incontext"})

    def stop(done: int, total: int, text: str) -> None:
        if done == 4:  # a checkpoint was written at 3
            raise KeyboardInterrupt

    def made(seed: int) -> MetaModel:
        torch.manual_seed(seed)
        return MetaModel(tiny.inputs, shape, ("text",))

    whole, resumed = made(0), made(99)
    meta_train(whole, sources, sources, tiny)
    with pytest.raises(KeyboardInterrupt):
        meta_train(made(0), sources, sources, tiny, tmp_path / "key", stop)
    torch.manual_seed(1234)
    meta_train(resumed, sources, sources, tiny, tmp_path / "key")
    for (name, ours), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert whole.learner.alpha != 0


# Queries and state


@pytest.mark.parametrize("training", [True, False])
def test_an_answer_does_not_depend_on_what_else_is_asked(model: InContextLearner, training: bool) -> None:
    model.train(training)
    support, targets, query = task([2, 3, 1], 6)
    others = task([1], 5, seed=9)[2]
    with torch.no_grad():
        logits = model(support[None], targets[None], query[None], 3)[0]
        for i in range(6):
            alone = model(support[None], targets[None], query[None, i : i + 1], 3)[0]
            amid = model(support[None], targets[None], torch.cat([others, query[i : i + 1]])[None], 3)[0, 5:]
            assert (alone - logits[i]).abs().max() < 1e-12 and (amid - logits[i]).abs().max() < 1e-12
    asked = query.clone().requires_grad_()
    model(support[None], targets[None], asked[None], 3)[0, 2].sum().backward()
    assert asked.grad.abs().amax(1).nonzero().tolist() == [[2]]


def test_the_state_of_one_task_is_all_it_takes(model: InContextLearner) -> None:
    tasks = [task(counts, queries, seed) for seed, (counts, queries) in enumerate(TASKS)]
    support, targets, query = padded(tasks)
    with torch.no_grad():
        state = model.adapt(support, targets, 5)
        together = model.score(state, query)
        for i in range(len(tasks)):
            alone = model.score({name: tensor[i : i + 1] for name, tensor in state.items()}, query[i : i + 1])[0]
            real = slice(int(targets[i].max()) + 1)
            assert (alone[:, real] - together[i][:, real]).abs().max() < 1e-12


# Learning


def test_g_learns_from_the_first_step_on() -> None:
    torch.manual_seed(0)
    model = InContextLearner(D, HEADS).double()
    support, targets, query = task([2, 2, 2], 6)
    logits = model(support[None], targets[None], query[None], 3)
    assert torch.equal(logits, ProtoNet()(support[None], targets[None], query[None], 3))  # α is learned from 0
    F.cross_entropy(logits[0], torch.arange(6) % 3).backward()
    assert model.alpha.item() == 0 and model.alpha.grad.abs() > 1e-3
    assert [name for name, p in model.named_parameters() if p.grad.abs().max() < 1e-6] == []


@pytest.mark.parametrize(("alpha", "felt"), [(-0.3, 0.1), (0.0, 0.1), (0.1, 0.1), (0.7, 0.7)])
def test_g_learns_as_if_it_were_followed(model: InContextLearner, alpha: float, felt: float) -> None:
    support, targets, query = task([2, 1, 2], 4)
    weights = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        (weights * model(support[None], targets[None], query[None], 3)).sum().backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    with torch.no_grad():
        model.alpha.fill_(1.0)
    full = gradients()  # the sum is linear in α
    with torch.no_grad():
        model.alpha.fill_(alpha)
    for name, gradient in gradients().items():
        expected = full[name] * (1 if name == "alpha" else felt)
        assert (gradient - expected).abs().max() < 1e-10


def test_codes_come_out_as_they_went_in() -> None:
    """Untrained, g looks at no example in particular: a class has its say by how many examples it has."""
    torch.manual_seed(0)
    model = InContextLearner(64, 4).eval()
    generator = torch.Generator().manual_seed(0)
    support, query = torch.randn(1, 21, 64, generator=generator), torch.randn(1, 40, 64, generator=generator)
    targets = torch.tensor([0] * 4 + [1] * 16 + [2])[None]
    with torch.no_grad():
        plain = model(support, targets, query, 3)
        model.alpha.fill_(1.0)
        g = model(support, targets, query, 3) - plain
    assert (g.argsort(2) == torch.tensor([2, 0, 1])).float().mean() > 0.8  # 1 / 3 by chance


def draw(tasks: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """2-way 5-shot tasks whose classes differ in one direction, in which they vary little, amid others that say nothing
    and vary more. Support [B, 10, 64], targets [B, 10], and queries [B, 10, 64] of the same classes."""
    targets = torch.arange(2).repeat_interleave(5).expand(tasks, -1)
    side = torch.randint(2, (tasks, 1), generator=generator)  # of class 0

    def rows() -> Tensor:
        x = torch.randn(tasks, 10, 64, generator=generator)
        x[:, :, 0] = 2 * (targets ^ side) - 1 + 0.3 * x[:, :, 0]
        return F.normalize(x, dim=-1) * 5**0.5

    return rows(), targets, rows()


def test_it_learns_where_class_means_mislead() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = InContextLearner(64, 4)
    weights = [p for p in model.parameters() if p is not model.alpha]
    optimizer = torch.optim.AdamW([{"params": weights, "lr": 0.002}, {"params": [model.alpha], "lr": 0.02}])
    for _ in range(150):
        support, targets, query = draw(16, generator)
        loss = F.cross_entropy(model(support, targets, query, 2).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    support, targets, query = draw(400, torch.Generator().manual_seed(1))

    def accuracy(logits: Tensor) -> float:
        return (logits.argmax(-1) == targets).float().mean().item()

    with torch.no_grad():
        ours = model(support, targets, query, 2)
        assert accuracy(ours) > accuracy(ProtoNet()(support, targets, query, 2)) + 0.2
        assert model.alpha > 0.2
        # The codes mean nothing: with other ones the answers are the same but for chance.
        for names in ([1, 0], [40, 17]):
            other = model(support, torch.tensor(names)[targets], query, 64)[..., names]
            assert accuracy(other) == pytest.approx(accuracy(ours), abs=0.02)
            assert (other.softmax(-1) - ours.softmax(-1)).mean((0, 1)).abs().max() < 0.1
