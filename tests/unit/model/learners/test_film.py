"""Task-conditioned modulation: a prototypical network at α = 0, and what it says it computes beyond."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.adaptation.adapted import answers_of, learn
from quickstudy.adaptation.state import TaskState
from quickstudy.config import ImageInput, Settings
from quickstudy.data.dataset import MODALITIES
from quickstudy.encoders.blocks import Modulated
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.task import TaskBatch
from quickstudy.model.metamodel import MetaModel
from quickstudy.training import Source, learning_rate, meta_loss, meta_train, optimiser
from tests.toy.tasks import grouped


def made(settings: Settings, modalities=MODALITIES, seed: int = 0, **shape) -> MetaModel:
    torch.manual_seed(seed)
    encoders = settings.model.encoders.model_copy(update={"image": "conv4", "audio": "cnn", "text": "minilm"})
    chosen = settings.model.model_copy(update={"learner": "film", "encoders": encoders, **shape})
    return MetaModel(settings.inputs, chosen, modalities)


@pytest.fixture
def model(tiny: Settings) -> MetaModel:
    """In float64, with an α, a τ and running averages that make a difference, ready to answer."""
    model = made(tiny, width=8).double().eval()
    with torch.no_grad():
        model.learner.alpha.fill_(0.7)
        for modality, tau in (("image", 2.0), ("audio", 4.0), ("text", 8.0)):
            model.learner.log_tau[modality].fill_(np.log(tau))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.3, 2.0)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return model


def arrays(modality: str, *shape: int, seed: int = 0) -> Tensor:
    """float64 [B, n, ...]; the tasks are unlike in contrast."""
    generator = torch.Generator().manual_seed(seed)
    size = {"image": (1, 16, 16), "audio": (1, 16, 21), "text": (384,)}[modality]
    x = torch.randn(*shape, *size, generator=generator, dtype=torch.float64)
    x = x if modality == "text" else x.clamp(0, 1)
    return x * torch.linspace(0.2, 1, shape[0], dtype=torch.float64).view(-1, *[1] * (x.ndim - 1))


def batch(modality: str, tasks: int = 3, way: int = 3, shot: int = 2, query: int = 3, seed: int = 0) -> TaskBatch:
    support, asked = (arrays(modality, tasks, way * n, seed=seed + n) for n in (shot, query))
    return grouped(modality, support, asked, way)


# Encoders


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("modality", MODALITIES)
def test_a_modulation_by_1_and_0_changes_nothing_and_any_other_something(tiny: Settings, modality, training) -> None:
    encoder = made(tiny).train(training).encoder(modality)
    x = arrays(modality, 5, 1)[:, 0].float()
    assert isinstance(encoder, Modulated)
    nothing = [(torch.ones(5, channels), torch.zeros(5, channels)) for channels in encoder.channels]
    plain = encoder(x)
    assert torch.equal(encoder(x, nothing), plain)
    for layer, (gamma, beta) in enumerate(nothing):
        for first in ((gamma[:1] + 2, beta[:1]), (gamma[:1], beta[:1] + 2)):  # that of the first example alone
            changed = tuple(torch.cat([own, rest[1:]]) for own, rest in zip(first, (gamma, beta), strict=True))
            apart = (encoder(x, [*nothing[:layer], changed, *nothing[layer + 1 :]]) - plain).abs().amax(1)
            assert apart[0] > 1e-3
            if not training:
                assert apart[1:].max() < 1e-6


@pytest.mark.parametrize(("modality", "name"), [("audio", "gru"), ("text", "words-cnn")])
def test_an_encoder_that_cannot_be_modulated_is_told(tiny: Settings, modality: str, name: str) -> None:
    encoders = tiny.model.encoders.model_copy(update={modality: name})
    told = rf"model\.learner = film: the {modality} encoder \w+ has no channels .*another encoder"
    with pytest.raises(QuickstudyError, match=told):
        MetaModel(tiny.inputs, tiny.model.model_copy(update={"learner": "film", "encoders": encoders}), MODALITIES)


# What it computes


@pytest.mark.parametrize("modality", MODALITIES)
def test_with_alpha_0_it_is_a_prototypical_network(tiny: Settings, modality) -> None:
    film, protonet = made(tiny).double().eval(), made(tiny, seed=1, learner="protonet").double().eval()
    assert film.learner.alpha == 0  # it is learned from there
    protonet.encoders.load_state_dict(film.encoders.state_dict())
    with torch.no_grad():
        for log_tau in (film.learner.log_tau, protonet.log_tau):
            log_tau[modality].fill_(1.3)
        task = batch(modality)
        expected = protonet([task])[0]
        assert (film([task])[0] - expected).abs().max() < 1e-10 and expected.std() > 1e-3
        film.learner.alpha.fill_(0.5)
        assert (film([task])[0] - expected).abs().max() > 1e-4


def seen(encoder: nn.Module, example: Tensor, modulation: list[tuple[Tensor, Tensor]]) -> Tensor:
    """One example [...] → [D], layer by layer and channel by channel; without a modulation where the list is empty."""

    def modulated(x: Tensor, layer: int) -> Tensor:
        if not modulation:
            return x
        gamma, beta = modulation[layer]
        return torch.stack([gamma[c] * x[c] + beta[c] for c in range(len(x))])

    if hasattr(encoder, "project"):
        return modulated(encoder.project.weight @ example, 0)
    x = example
    for layer, (convolution, norm, *rest) in enumerate(encoder.blocks):
        x = F.conv2d(x[None], convolution.weight, padding=1)[0]
        mean, var, weight, bias = (
            each[:, None, None] for each in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        x = modulated((x - mean) / (var + 1e-5).sqrt() * weight + bias, layer).clamp(min=0)
        if len(rest) == 2:
            x = F.max_pool2d(x[None], 2)[0]
    mean, largest = x.flatten(1).mean(1), x.flatten(1).amax(1)
    return mean if type(encoder).__name__ == "Conv4" else (mean + largest) / 2


def dense(network: nn.Sequential, x: Tensor) -> Tensor:
    first, _, last = network
    return last.weight @ (first.weight @ x + first.bias).clamp(min=0) + last.bias


def reference(model: MetaModel, task: TaskBatch) -> Tensor:
    """The same by loops over tasks, examples, layers, channels and classes."""
    learner, encoder = model.learner, model.encoder(task.modality)
    tau = learner.log_tau[task.modality].exp()
    answers = []
    for support, query, targets in zip(task.support, task.query, task.support_targets, strict=True):
        vectors = [seen(encoder, example, []) for example in support]
        read = [dense(learner.set_encoder, v * len(v) ** 0.5 / v.norm()) for v in vectors]
        modulation = []
        for generator in learner.generators[task.modality]:
            g = dense(generator, sum(read) / len(read))
            half = len(g) // 2
            modulation.append((1 + learner.alpha * g[:half], learner.alpha * g[half:]))
        rows, asked = ([seen(encoder, example, modulation) for example in part] for part in (support, query))
        prototypes = []
        for n in range(task.way):
            own = [v / v.norm() * tau.sqrt() for v, target in zip(rows, targets, strict=True) if target == n]
            prototypes.append(sum(own) / len(own))
        for v in asked:
            q = v / v.norm() * tau.sqrt()
            answers.append(torch.stack([tau - (q - p).square().sum() for p in prototypes]))
    return torch.stack(answers).unflatten(0, task.query.shape[:2])


@pytest.mark.parametrize("modality", MODALITIES)
def test_it_agrees_with_a_plain_reference(model: MetaModel, modality) -> None:
    task = batch(modality)
    parameters = [
        *model.encoders[modality].parameters(),
        *model.learner.set_encoder.parameters(),
        *model.learner.generators[modality].parameters(),
        model.learner.log_tau[modality],
        model.learner.alpha,
    ]
    both = [model([task])[0], reference(model, task)]
    assert (both[0] - both[1]).abs().max() < 1e-8
    answers = task.query_targets.flatten()
    gradients = [torch.autograd.grad(F.cross_entropy(x.flatten(0, 1), answers), parameters) for x in both]
    for ours, expected in zip(*gradients, strict=True):
        assert (ours - expected).abs().max() < 1e-8 < expected.abs().max()
    state = model.adapt(modality, task.support, task.support_targets, task.way)
    for name, start in (("gamma", 1), ("beta", 0)):  # each task is looked at in a way of its own
        assert (state[name] - start).abs().amax(1).min() > 0.02
        assert min((state[name][i] - state[name][i - 1]).abs().max() for i in range(3)) > 1e-4


@pytest.mark.parametrize("modality", MODALITIES)
def test_in_training_too_the_gradient_is_that_of_the_loss(model: MetaModel, modality) -> None:
    """Batch statistics, running averages that move, and two passes of a support set: by differences, not by hand."""
    model.train()
    task = batch(modality, query=2)
    start = copy.deepcopy(model.state_dict())
    parameters = [*model.encoders[modality].parameters(), *model.learner.parameters()]
    directions = [
        torch.randn(p.shape, generator=torch.Generator().manual_seed(i), dtype=p.dtype)
        for i, p in enumerate(parameters)
    ]

    def loss(step: float) -> Tensor:
        model.load_state_dict(start)
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(step * direction)
        return meta_loss(model, [task])

    gradients = torch.autograd.grad(loss(0.0), parameters, allow_unused=True)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True) if g is not None)
    difference = (loss(1e-6).item() - loss(-1e-6).item()) / 2e-6
    assert abs(difference) > 1e-3 and slope == pytest.approx(difference, rel=1e-6)


def test_the_running_averages_are_of_modulated_passes_alone(model: MetaModel) -> None:
    model.train()
    task = batch("image")
    norm = model.encoders["image"].blocks[0][1]
    before = norm.running_mean.clone()
    with torch.no_grad():
        model([task])
        inside = [
            model.encoders["image"].blocks[0][0](part.flatten(0, 1)).mean((0, 2, 3))
            for part in (task.support, task.query)
        ]
    expected = 0.9 * (0.9 * before + 0.1 * inside[0]) + 0.1 * inside[1]
    assert model.training and all(module.training for module in model.modules())
    assert (norm.running_mean - expected).abs().max() < 1e-10


@pytest.mark.parametrize("modality", MODALITIES)
def test_tasks_queries_and_chunks_do_not_see_each_other(model: MetaModel, modality) -> None:
    many = batch(modality, tasks=2, way=2, shot=1, query=70)  # more than go through the encoder at once
    with torch.no_grad():
        together = model([many])[0]
        for i in range(2):
            for j in (0, 69, 139):
                alone = grouped(modality, many.support[i : i + 1], many.query[i : i + 1, j : j + 1], 2)
                state = model.adapt(modality, alone.support, many.support_targets[:1], 2)
                assert (model.score(modality, state, alone.query)[0, 0] - together[i, j]).abs().max() < 1e-10
    assert (model([many])[0] - together).abs().max() < 1e-10  # with a gradient it is one pass


def test_every_parameter_learns_in_the_end_and_alpha_from_the_start(tiny: Settings) -> None:
    model = made(tiny).double()
    tasks = [batch(modality) for modality in MODALITIES]
    learning = {**dict(model.encoders.named_parameters()), **dict(model.learner.named_parameters())}
    meta_loss(model, tasks).backward()
    assert model.learner.alpha.item() == 0 and model.learner.alpha.grad.abs() > 1e-6
    assert all(p.grad.abs().max() == 0 for p in model.learner.generators.parameters())  # α = 0 shuts them off
    model.zero_grad()
    with torch.no_grad():
        model.learner.alpha.fill_(0.1)
    meta_loss(model, tasks).backward()
    assert [name for name, p in learning.items() if p.grad is None or p.grad.abs().max() == 0] == []


# What it learns

WAY = 4


def painted(which: Tensor, generator: torch.Generator) -> Tensor:
    """0: nothing, 1: stripes down, 2: stripes across, 3: all of it. [...] → [..., 16, 16]"""
    stripes = (torch.arange(16) + torch.randint(0, 4, (*which.shape, 1), generator=generator)) % 4 < 2
    down, across = stripes[..., None, :].expand(*stripes.shape, 16), stripes[..., None].expand(*stripes.shape, 16)
    which = which[..., None, None]
    return torch.where(which == 1, down, torch.where(which == 2, across, which == 3)).float()


def coloured(tasks: int, query: int, generator: torch.Generator) -> TaskBatch:
    """Classes are patterns of red in one task and of green in another, where the other colour's pattern says nothing.
    Blue, in one picture of the support set, says which.

    Who looks at the support set picture by picture can heed it where that picture is of the right class or of the one
    that the other colour speaks for: 1/4 + 3/4 · (1/2 + 1/2 · 1/2) = 0.81 are the most that prototypes reach.
    """
    kind = torch.randint(0, 2, (tasks,), generator=generator)
    pattern = torch.rand(tasks, WAY, 2, generator=generator).argsort(1)  # of each class, red and green
    own = pattern[torch.arange(tasks), :, kind].repeat_interleave(query, 1)
    other = torch.randint(0, WAY, own.shape, generator=generator)
    asked = torch.where(kind[:, None, None] == 0, torch.stack([own, other], -1), torch.stack([other, own], -1))
    blue = torch.full((tasks, WAY), 0.5)
    blue[torch.arange(tasks), torch.randint(0, WAY, (tasks,), generator=generator)] = kind.float()

    def pictures(patterns: Tensor, blue: Tensor) -> Tensor:
        red, green = painted(patterns, generator).unbind(2)
        return torch.stack([red, green, blue[..., None, None].expand_as(red)], 2)

    return grouped("image", pictures(pattern, blue), pictures(asked, torch.full(asked.shape[:2], 0.5)), WAY)


def test_it_learns_to_look_at_what_the_task_is_about(tiny: Settings) -> None:
    inputs = tiny.inputs.model_copy(update={"image": ImageInput(size=16, channels=3)})
    train = tiny.train.model_copy(update={"steps": 300, "learning_rate": 0.004})
    judged = coloured(100, 2, torch.Generator().manual_seed(1))
    accuracy = {}
    for learns in (True, False):
        model = made(tiny.model_copy(update={"inputs": inputs}), ("image",), width=8)
        model.learner.alpha.requires_grad_(learns)
        weights, generator = optimiser(model, train), torch.Generator().manual_seed(0)
        for step in range(train.steps):
            for group in weights.param_groups:
                group["lr"] = learning_rate(step, train) * group["pace"]
            loss = meta_loss(model, [coloured(8, 1, generator)])
            weights.zero_grad()
            loss.backward()
            weights.step()
        with torch.no_grad():
            (logits,) = model.eval()([judged])
        accuracy[learns] = (logits.argmax(-1) == judged.query_targets).double().mean()
    assert accuracy[True] > 0.95 and 0.6 < accuracy[False] < 0.87


# As a product


def test_a_task_is_learned_kept_and_asked(tiny: Settings, png, tmp_path: Path) -> None:
    model = made(tiny, ("image",)).eval()
    with torch.no_grad():
        model.learner.alpha.fill_(0.7)
    support, queries = [png(i) for i in range(6)], [png(i) for i in range(10, 16)]
    labels = ["x", "x", "y", "y", "z", "z"]
    order = [4, 0, 3, 1, 5, 2]
    state = learn(model, "image", [support[i] for i in order], [labels[i] for i in order], "digest")
    assert {name: tuple(value.shape) for name, value in state.learned.items()} == {
        "prototypes": (1, 3, 16),
        "gamma": (1, 2 + 4 + 8 + 16),
        "beta": (1, 2 + 4 + 8 + 16),
    }
    (tmp_path / "task").write_bytes(state.to_bytes())
    back = TaskState.read(tmp_path / "task")
    assert back.to_bytes() == state.to_bytes()
    chances = answers_of(model, back, queries).probabilities
    assert np.array_equal(chances, answers_of(model, state, queries).probabilities)
    for i, query in enumerate(queries):  # each by itself
        assert np.abs(answers_of(model, back, [query]).probabilities[0] - chances[i]).max() < 1e-6
    prepared = torch.from_numpy(model.encoder("image").prepare([*support, *queries]))
    with torch.no_grad():
        (logits,) = model([grouped("image", prepared[None, :6], prepared[None, 6:], 3)])
    assert np.abs(chances - logits[0].double().softmax(-1).numpy()).max() < 1e-5


def test_twenty_classes_fit_into_64_kib(tiny: Settings, png) -> None:
    model = made(tiny, ("image",), dimension=384, width=64).eval()  # that of the repository's params.yaml
    state = learn(model, "image", [png(i) for i in range(20)], [f"class number {i}" for i in range(20)], "0" * 64)
    assert len(state.to_bytes()) <= 64 * 1024


def test_a_copy_of_a_model_answers_by_its_own_weights(model: MetaModel) -> None:
    task = batch("image")
    other = copy.deepcopy(model)
    with torch.no_grad():
        expected = model([task])[0]
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.equal(other([task])[0], expected)
    assert list(other.state_dict()) == list(model.state_dict())
    ours = {name.split(".")[0] for name in model.learner.state_dict()}  # the encoders are the model's
    assert ours == {"set_encoder", "generators", "log_tau", "alpha"}


def sources(tiny: Settings, toys) -> list[Source]:
    images, texts = toys("image", classes=8, each=8, name="pictures"), toys("text", classes=6, each=8, name="texts")
    random = np.random.default_rng(0)
    sentences = random.normal(0, 1, (6, 384))[texts.class_index] + random.normal(0, 0.5, (48, 384))
    prepared = made(tiny).encoder("image").prepare(images.raw())
    return [
        Source.of(dataset, np.ones(len(dataset), dtype=bool), rows)
        for dataset, rows in ((images, prepared), (texts, sentences.astype(np.float32)))
    ]


@pytest.mark.parametrize("stop", [2, 5])  # before the first checkpoint (3) and after it
def test_a_training_that_was_stopped_ends_as_one_that_was_not(tiny: Settings, toys, tmp_path: Path, stop: int) -> None:
    def interrupt(step: int, steps: int, text: str) -> None:
        if step == stop:
            raise KeyboardInterrupt

    pools = sources(tiny, toys)
    whole = made(tiny, ("image", "text"))
    expected = meta_train(whole, pools, pools, tiny)
    with pytest.raises(KeyboardInterrupt):
        meta_train(made(tiny, ("image", "text")), pools, pools, tiny, tmp_path / "key", interrupt)
    resumed = made(tiny, ("image", "text"), seed=0 if stop < 3 else 9)
    result = meta_train(resumed, pools, pools, tiny, tmp_path / "key")
    assert whole.learner.alpha.item() != 0
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert [(look.step, look.loss, look.scores) for look in result.curve] == [
        (look.step, look.loss, look.scores) for look in expected.curve
    ]
