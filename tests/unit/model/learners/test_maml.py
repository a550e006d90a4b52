"""MAML beside a plain loop over tasks, and what holds for every learner that takes gradient steps on all weights."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from quickstudy.adaptation.adapted import answers_of, learn
from quickstudy.adaptation.state import TaskState
from quickstudy.config import Settings
from quickstudy.data.dataset import Modality
from quickstudy.encoders import make_encoder
from quickstudy.encoders.blocks import ConvBlock
from quickstudy.encoders.encoder import Encoder
from quickstudy.learners import WeightLearner
from quickstudy.learners.maml import Maml
from quickstudy.learners.reptile import Reptile
from quickstudy.model.metamodel import MetaModel
from quickstudy.training import Source, meta_loss, meta_train, optimiser
from tests.toy.tasks import grouped

ENCODERS: list[tuple[Modality, str]] = [
    ("image", "conv4"),
    ("image", "resnet12"),
    ("audio", "cnn"),
    ("audio", "gru"),
    ("text", "minilm"),
    ("text", "bytes-cnn"),
    ("text", "words-lstm"),
    ("text", "bytes-transformer"),
]
D, STEPS = 16, 3


def made_encoder(settings: Settings, modality: Modality, name: str) -> Encoder:
    torch.manual_seed(0)
    encoders = settings.model.encoders.model_copy(update={modality: name})
    return make_encoder(modality, settings.inputs, settings.model.model_copy(update={"encoders": encoders})).double()


def made_maml(modality: Modality, encoder: nn.Module, second_order: bool = False, way: int | None = None) -> Maml:
    """Away from its start, so that every part has its say."""
    learner = Maml(D, nn.ModuleDict({modality: encoder}), STEPS, second_order, way).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.add_(0.1 * torch.rand(parameter.shape, generator=generator, dtype=torch.float64))
    return learner


def made_learner(name: str, modality: Modality, encoder: nn.Module) -> WeightLearner:
    return made_maml(modality, encoder) if name == "maml" else made_reptile()


def made_reptile(alpha: float = 0.05) -> Reptile:
    learner = Reptile(D, STEPS).double()
    learner.alpha.fill_(alpha)
    learner.log_tau.fill_(math.log(8))
    return learner


def arrays(modality: Modality, encoder: str, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if "-" in encoder:  # tokens, with padding behind them
        length = torch.randint(4, 12, (*shape, 1), generator=generator)
        return torch.randint(1, 200, (*shape, 12), generator=generator) * (torch.arange(12) < length)
    inside = {"image": (1, 16, 16), "audio": (1, 16, 21), "text": (384,)}[modality]
    return torch.rand(*shape, *inside, generator=generator, dtype=torch.float64)


def some_tasks(modality: Modality, encoder: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three tasks of 3 ways, 2 shots and 4 queries; rows in no order."""
    targets = torch.tensor([[0, 1, 2, 0, 1, 2], [2, 2, 0, 1, 0, 1], [1, 0, 0, 2, 2, 1]])
    answers = torch.tensor([[0, 1, 2, 0], [1, 1, 2, 0], [2, 2, 0, 1]])
    return arrays(modality, encoder, 3, 6), targets, arrays(modality, encoder, 3, 4, seed=1), answers


# Beside a plain loop


class PlainNorm(nn.Module):
    """A batch norm by hand, that is told its statistics or measures them."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.weight, self.bias, self.given, self.found = norm.weight, norm.bias, None, None

    def forward(self, x: Tensor) -> Tensor:
        columns = x.transpose(0, 1).flatten(1)
        mean = columns.sum(1) / columns.shape[1]
        self.found = (mean, ((columns - mean[:, None]) ** 2).sum(1) / columns.shape[1])
        mean, variance = self.found if self.given is None else self.given
        columns = (columns - mean[:, None]) / (variance[:, None] + 1e-5).sqrt() * self.weight[:, None]
        return (columns + self.bias[:, None]).unflatten(1, (len(x), *x.shape[2:])).transpose(0, 1)


def plain_network(encoder: Encoder, weights: dict[str, Tensor], x: Tensor, norms: list | None) -> tuple[Tensor, list]:
    """One task through the encoder: vectors [n, D], and the mean and variance of each batch norm."""
    plain = copy.deepcopy(encoder)
    layers = [(name, norm) for name, norm in plain.named_modules() if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)]
    own = [PlainNorm(norm) for _, norm in layers]
    for i, (name, _) in enumerate(layers):
        parent, _, last = name.rpartition(".")
        setattr(plain.get_submodule(parent), last, own[i])
        own[i].given = None if norms is None else norms[i]
    for block in [each for each in plain.modules() if isinstance(each, ConvBlock)]:
        block.forward = lambda x, _, layers=tuple(block): nn.Sequential(*layers)(x)  # one after the other
    return functional_call(plain, weights, (x,)), [norm.found for norm in own]


def plain_steps(
    encoder: Encoder, learner: Maml, modality: Modality, support: Tensor, targets: Tensor
) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor, list]:
    """Weights, log τ, the head's weight and bias, and the statistics of one task."""
    own = learner.own[modality]
    weights, log_tau = dict(encoder.named_parameters()), own.log_tau

    def vectors(weights: dict[str, Tensor], log_tau: Tensor) -> Tensor:
        plain, _ = plain_network(encoder, weights, support, None)
        return plain / plain.norm(dim=1, keepdim=True) * log_tau.exp().sqrt()

    f = vectors(weights, log_tau)
    rows = torch.stack([f[targets == n].mean(0) for n in range(int(targets.max()) + 1)]) + own.shared
    head, bias = 2 * rows, -(rows**2).sum(1)
    for _ in range(learner.steps):
        # Aliases, so that nothing reaches the encoder's weights by way of the head, which was made with them.
        at = {name: weight * 1 for name, weight in weights.items()}
        at_tau, at_head, at_bias = log_tau * 1, head * 1, bias * 1
        loss = F.cross_entropy(vectors(at, at_tau) @ at_head.T + at_bias, targets)
        g = torch.autograd.grad(loss, [*at.values(), at_tau, at_head, at_bias], create_graph=True)
        if not learner.second_order:
            g = [each.detach() for each in g]
        for name, slope in zip(weights, g, strict=False):
            weights[name] = weights[name] - own.alphas[f"encoder.{name}".replace(".", "_") + "_alpha"] * slope
        log_tau = log_tau - own.alphas["log_tau_alpha"] * g[-3]
        head = head - own.alphas["head_weight_alpha"] * g[-2]
        bias = bias - own.alphas["head_bias_alpha"] * g[-1]
    return weights, log_tau, head, bias, plain_network(encoder, weights, support, None)[1]


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize(("modality", "name"), ENCODERS)
def test_logits_and_meta_gradients_are_those_of_a_plain_loop(
    tiny: Settings, modality: Modality, name: str, second_order: bool
) -> None:
    encoder = made_encoder(tiny, modality, name)
    learner = made_maml(modality, encoder, second_order)
    support, targets, query, answers = some_tasks(modality, name)
    leaves = [*encoder.parameters(), *learner.parameters()]

    losses, expected = [], []
    for i in range(3):
        weights, log_tau, head, bias, norms = plain_steps(encoder, learner, modality, support[i], targets[i])
        f, _ = plain_network(encoder, weights, query[i], norms)
        expected.append(f / f.norm(dim=1, keepdim=True) * log_tau.exp().sqrt() @ head.T + bias)
        losses.append(F.cross_entropy(expected[i], answers[i]))
    loss = sum(losses) / 3
    gradients = torch.autograd.grad(loss, leaves)

    logits = learner.score(encoder, learner.adapt(encoder, support, targets, 3), query)
    assert (logits - torch.stack(expected)).abs().max() < 1e-8
    ours = learner.loss(encoder, support, targets, query, answers, 3)
    assert abs(ours - loss) < 1e-9
    for mine, theirs in zip(torch.autograd.grad(ours, leaves), gradients, strict=True):
        assert (mine - theirs).abs().max() < 1e-8
    # What shifts all vectors alike, before a batch norm, has none; there are few such weights.
    assert sum(bool(each.abs().max() > 1e-7) for each in gradients) > 0.9 * len(gradients)


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize(("modality", "name"), [("image", "conv4"), ("image", "resnet12"), ("text", "bytes-cnn")])
def test_with_a_linear_head_it_is_that_of_the_paper(
    tiny: Settings, modality: Modality, name: str, second_order: bool
) -> None:
    """Beside a loop: a head of its own, and queries normalised by their own statistics."""
    encoder = made_encoder(tiny, modality, name)
    learner = made_maml(modality, encoder, second_order, way=3)
    support, targets, query, answers = some_tasks(modality, name)
    own = learner.own[modality]
    start = {f"encoder.{name}": weight for name, weight in encoder.named_parameters()}
    start |= {"log_tau": own.log_tau, "head.weight": own.linear.weight, "head.bias": own.linear.bias}
    leaves = [*encoder.parameters(), *learner.parameters()]

    def answer(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        inside = {n.removeprefix("encoder."): w for n, w in weights.items() if n.startswith("encoder.")}
        f, _ = plain_network(encoder, inside, x, None)
        f = f / f.norm(dim=1, keepdim=True) * weights["log_tau"].exp().sqrt()
        return f @ weights["head.weight"].T + weights["head.bias"]

    losses = []
    for i in range(3):
        weights = start
        for _ in range(STEPS):
            loss = F.cross_entropy(answer(weights, support[i]), targets[i])
            g = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            steps = [
                own.alphas[n.replace(".", "_") + "_alpha"] * (s if second_order else s.detach())
                for n, s in zip(weights, g, strict=True)
            ]
            weights = {n: w - step for (n, w), step in zip(weights.items(), steps, strict=True)}
        losses.append(F.cross_entropy(answer(weights, query[i]), answers[i]))
    loss = sum(losses) / 3
    ours = learner.loss(encoder, support, targets, query, answers, 3)
    one_by_one = [
        learner.loss(encoder, *(each[i : i + 1] for each in (support, targets, query, answers)), 3) for i in range(3)
    ]
    assert abs(ours - loss) < 1e-9 and abs(sum(one_by_one) / 3 - loss) < 1e-9
    gradients = torch.autograd.grad(loss, leaves)
    for found in (ours, sum(one_by_one) / 3):
        for mine, theirs in zip(torch.autograd.grad(found, leaves), gradients, strict=True):
            assert (mine - theirs).abs().max() < 1e-8


def test_the_second_order_makes_a_difference_to_the_gradient_alone(tiny: Settings) -> None:
    encoder = made_encoder(tiny, "image", "conv4")
    losses, gradients = [], []
    for second_order in (False, True):
        learner = made_maml("image", encoder, second_order)
        loss = learner.loss(encoder, *some_tasks("image", "conv4"), 3)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, [encoder.blocks[1][0].weight])[0])
    assert losses[0] == losses[1]
    assert (gradients[0] - gradients[1]).norm() > 0.01 * gradients[1].norm()


# What α is


def test_with_every_alpha_0_it_is_a_prototypical_network(tiny: Settings) -> None:
    encoder = made_encoder(tiny, "text", "minilm")
    learner = Maml(D, nn.ModuleDict({"text": encoder}), STEPS, False).double()
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if name.endswith("alpha"):
                parameter.zero_()
    support, targets, query, _ = some_tasks("text", "minilm")
    logits = learner.score(encoder, learner.adapt(encoder, support, targets, 3), query)
    f, q = (F.normalize(encoder(each), dim=-1) * 10**0.5 for each in (support, query))
    for i in range(3):
        prototypes = torch.stack([f[i][targets[i] == n].mean(0) for n in range(3)])
        expected = (-torch.cdist(q[i], prototypes).square()).softmax(1)
        assert (logits[i].softmax(1) - expected).abs().max() < 1e-8


def test_it_has_an_alpha_for_each_weight_and_all_learn_fast(tiny: Settings) -> None:
    model = whole("maml", tiny, ("image", "text"))
    weights = sum(p.numel() for p in model.encoders.parameters())
    assert model.learner.alpha.shape == (weights + 2 * (16 + 2),)  # the head's row and bias, and τ, of each modality
    groups = optimiser(model, tiny.train).param_groups
    pace = {id(p): (group["pace"], group["weight_decay"]) for group in groups for p in group["params"]}
    found = {name: pace[id(p)] for name, p in model.learner.named_parameters()}
    assert {name for name, how in found.items() if how != (10.0, 0.0)} == {"own.image.shared", "own.text.shared"}
    assert model.learner.alpha.detach().unique().tolist() == pytest.approx([0.01])


@pytest.mark.parametrize("name", ["maml", "reptile"])
def test_the_steps_lower_the_support_loss(tiny: Settings, name: str) -> None:
    encoder = made_encoder(tiny, "image", "conv4")
    learner = made_learner(name, "image", encoder)
    support, targets, _, _ = some_tasks("image", "conv4")
    losses = []
    for learner.steps in range(5):
        with torch.no_grad():
            logits = learner.score(encoder, learner.adapt(encoder, support, targets, 3), support)
        losses.append(F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item())
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.95 * losses[0]


# What holds for both


@pytest.mark.parametrize("name", ["maml", "reptile"])
@pytest.mark.parametrize(("modality", "encoder_name"), ENCODERS)
def test_tasks_and_queries_together_are_answered_as_if_each_were_alone(
    tiny: Settings, modality: Modality, encoder_name: str, name: str
) -> None:
    encoder = made_encoder(tiny, modality, encoder_name)
    learner = made_learner(name, modality, encoder)
    support, targets, query, _ = some_tasks(modality, encoder_name)
    state = learner.adapt(encoder, support, targets, 3)
    together = learner.score(encoder, state, query)
    for i in range(3):
        alone = learner.adapt(encoder, support[i : i + 1], targets[i : i + 1], 3)
        assert set(alone) == set(state)
        assert max((alone[key][0] - state[key][i]).abs().max() for key in state) < 1e-9
        for j in range(4):
            logits = learner.score(encoder, alone, query[i : i + 1, j : j + 1])[0, 0]
            assert (logits - together[i, j]).abs().max() < 1e-8


@pytest.mark.parametrize("name", ["maml", "reptile"])
def test_order_carries_no_meaning(tiny: Settings, name: str) -> None:
    encoder = made_encoder(tiny, "image", "conv4")
    learner = made_learner(name, "image", encoder)
    support, targets, query, _ = some_tasks("image", "conv4")
    logits = learner.score(encoder, learner.adapt(encoder, support, targets, 3), query)
    rows, names = torch.tensor([3, 5, 0, 1, 4, 2]), torch.tensor([2, 0, 1])
    state = learner.adapt(encoder, support[:, rows], names[targets[:, rows]], 3)
    assert (learner.score(encoder, state, query)[..., names] - logits).abs().max() < 1e-8


@pytest.mark.parametrize("name", ["maml", "reptile"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_adapting_without_gradients_leaves_no_history_and_the_encoder_as_it_is(tiny: Settings, name: str, mode) -> None:
    encoder = made_encoder(tiny, "image", "conv4").train()
    learner = made_learner(name, "image", encoder)
    support, targets, query, _ = some_tasks("image", "conv4")
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    state = learner.adapt(encoder, support, targets, 3)
    logits = learner.score(encoder, state, query)
    with mode():
        bare = learner.adapt(encoder, support.clone(), targets.clone(), 3)
        learner.score(encoder, bare, query.clone())
    assert not any(tensor.requires_grad for tensor in bare.values())
    assert max((bare[key] - state[key]).abs().max() for key in state) < 1e-12
    encoder.eval()  # of running averages neither mode knows
    assert torch.equal(learner.score(encoder, learner.adapt(encoder, support, targets, 3), query), logits)
    assert all(torch.equal(before[key], tensor) for key, tensor in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in [*encoder.parameters(), *learner.parameters()])


# In the whole model


def whole(name: str, settings: Settings, modalities=("image", "text"), seed: int = 0) -> MetaModel:
    torch.manual_seed(seed)
    return MetaModel(settings.inputs, settings.model.model_copy(update={"learner": name}), modalities)


@pytest.mark.parametrize("name", ["maml", "reptile"])
def test_a_task_goes_through_its_bytes(tiny: Settings, png, tmp_path: Path, name: str) -> None:
    model = whole(name, tiny).eval()
    support, queries = [png(i) for i in range(6)], [png(i) for i in range(10, 16)]
    state = learn(model, "image", support, ["x", "x", "y", "y", "z", "z"], "digest")
    (tmp_path / "task").write_bytes(state.to_bytes())
    back = TaskState.read(tmp_path / "task")
    chances = answers_of(model, back, queries).probabilities
    assert np.array_equal(chances, answers_of(model, state, queries).probabilities)
    assert back.to_bytes() == state.to_bytes()
    alone = np.concatenate([answers_of(model, back, [query]).probabilities for query in queries])
    assert np.abs(alone - chances).max() < 1e-4
    prepared = torch.from_numpy(model.encoder("image").prepare([*support, *queries]))
    with torch.no_grad():
        (logits,) = copy.deepcopy(model)([grouped("image", prepared[None, :6], prepared[None, 6:], 3)])
    assert np.abs(chances - logits[0].double().softmax(-1).numpy()).max() < 1e-4


@pytest.fixture
def sources(toys, tiny: Settings) -> list[Source]:
    images, texts = toys("image", classes=8, each=8, name="pictures"), toys("text", classes=6, each=8, name="texts")
    random = np.random.default_rng(0)
    sentences = random.normal(0, 1, (6, 384))[texts.class_index] + random.normal(0, 0.5, (48, 384))
    pixels = whole("maml", tiny).encoder("image").prepare(images.raw())
    pairs = ((images, pixels), (texts, sentences.astype(np.float32)))
    return [Source.of(dataset, np.ones(len(dataset), dtype=bool), arrays) for dataset, arrays in pairs]


@pytest.mark.parametrize(("name", "second_order"), [("maml", False), ("maml", True), ("reptile", False)])
def test_a_training_that_was_stopped_ends_as_one_that_was_not(
    sources: list[Source], tiny: Settings, tmp_path: Path, name: str, second_order: bool
) -> None:
    settings = tiny.model_copy(update={"model": tiny.model.model_copy(update={"second_order": second_order})})
    unbroken, start = whole(name, settings), whole(name, settings)
    meta_train(unbroken, sources, sources, settings)

    def stop(done: int, total: int, text: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meta_train(whole(name, settings), sources, sources, settings, tmp_path / "key", stop)
    resumed = whole(name, settings, seed=9)
    meta_train(resumed, sources, sources, settings, tmp_path / "key")
    expected, begun = unbroken.state_dict(), start.state_dict()
    assert [key for key, tensor in resumed.state_dict().items() if not torch.equal(tensor, expected[key])] == []
    assert any(key.startswith("encoders") and not torch.equal(begun[key], expected[key]) for key in expected)


@pytest.mark.parametrize("second_order", [False, True])
def test_a_meta_batch_weighs_tasks_alike_and_all_weights_learn(tiny: Settings, second_order: bool) -> None:
    shape = tiny.model.model_copy(update={"second_order": second_order})
    model = whole("maml", tiny.model_copy(update={"model": shape}), ("image", "audio", "text"))
    tasks = [
        grouped("image", arrays("image", "conv4", 1, 4).float(), arrays("image", "conv4", 1, 6, seed=1).float(), 2),
        grouped("audio", arrays("audio", "cnn", 1, 3).half(), arrays("audio", "cnn", 1, 3, seed=1).half(), 3),
        grouped("text", arrays("text", "minilm", 1, 3).float(), arrays("text", "minilm", 1, 3, seed=1).float(), 3),
    ]
    alone = [meta_loss(model, [task]).item() for task in tasks]
    loss = meta_loss(model, tasks, turns=3)
    assert loss.item() == pytest.approx(sum(alone) / 3, rel=1e-5)
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None and not name.startswith("log_tau")] == []
