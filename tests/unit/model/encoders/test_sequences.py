"""Networks over sequences, beside torch's own layers and plain loops, one sequence at a time and without padding."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quickstudy.encoders.sequences import Convolutions, Recurrent, Summary, Transformer, pool, positions

INSIDE, HIDDEN, HEADS = 6, 5, 2
LENGTHS = (7, 1, 4, 7, 2)

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: Convolutions(INSIDE, 3),
    "gru": lambda: Recurrent("gru", INSIDE, HIDDEN),
    "lstm": lambda: Recurrent("lstm", INSIDE, HIDDEN),
    "transformer": lambda: Transformer(INSIDE, HEADS),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    made = NETWORKS[request.param]().double()
    with torch.no_grad():
        for parameter in made.parameters():  # biases and gains too
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def sequences(longest: int = 7, lengths=LENGTHS) -> tuple[Tensor, Tensor]:
    """[n, longest, INSIDE] with noise for padding, and what is real. The same sequences whatever ``longest`` is."""
    generator = torch.Generator().manual_seed(0)
    x = torch.full((len(lengths), longest, INSIDE), 9.0, dtype=torch.float64)
    for row, length in zip(x, lengths, strict=True):
        row[:length] = torch.randn(length, INSIDE, generator=generator, dtype=torch.float64)
    return x, torch.arange(longest) < torch.tensor(lengths)[:, None]


def reference(network: nn.Module, x: Tensor) -> Tensor:
    """One sequence [L, INSIDE], without padding, through torch's layers and loops."""
    if isinstance(network, Recurrent):
        layer = (nn.GRU if network.memories == 1 else nn.LSTM)(INSIDE, HIDDEN, bidirectional=True).double()
        for direction, suffix in enumerate(("l0", "l0_reverse")):
            for ours, theirs in (
                ("weight_in", "weight_ih"),
                ("weight_again", "weight_hh"),
                ("bias_in", "bias_ih"),
                ("bias_again", "bias_hh"),
            ):
                ours_here = getattr(network, ours)[direction]
                getattr(layer, f"{theirs}_{suffix}").data = ours_here.T if ours_here.ndim == 2 else ours_here
        return layer(x)[0]
    if isinstance(network, Transformer):
        x = x + positions(*x.shape)
        for ours in network.layers:
            theirs = nn.TransformerEncoderLayer(INSIDE, HEADS, 4 * INSIDE, 0.0, F.gelu, norm_first=True).double()
            for source, target in (
                (ours.norm_attention, theirs.norm1),
                (ours.norm_places, theirs.norm2),
                (ours.answer, theirs.self_attn.out_proj),
                (ours.places[0], theirs.linear1),
                (ours.places[2], theirs.linear2),
            ):
                target.load_state_dict(source.state_dict())
            theirs.self_attn.in_proj_weight.data = ours.ask.weight
            theirs.self_attn.in_proj_bias.data = ours.ask.bias
            x = theirs(x)
        return network.norm(x)
    for i, (norm, convolution) in enumerate(zip(network.norms, network.convolutions, strict=True)):
        inside, out = norm(x), torch.zeros_like(x)
        for place in range(len(x)):
            for tap in range(3):
                seen = place + (tap - 1) * 2**i
                if 0 <= seen < len(x):
                    out[place] += convolution.weight[:, :, tap] @ inside[seen]
        x = x + (out + convolution.bias).clamp(min=0)
    return x


def test_each_sequence_as_alone_without_padding(network: nn.Module) -> None:
    x, real = sequences()
    with torch.no_grad():
        together = network(x, real)
        pooled = pool(together, real)
        for i, length in enumerate(LENGTHS):
            alone = reference(network, x[i, :length])
            assert (together[i, :length] - alone).abs().max() < 1e-10
            expected = torch.cat([alone.mean(0), alone.max(0).values])
            assert (pooled[i] - expected).abs().max() < 1e-10


def test_padding_changes_nothing_not_even_the_gradient(network: nn.Module) -> None:
    found = []
    for longest in (7, 12):
        network.zero_grad()
        x, real = sequences(longest)
        pooled = pool(network(x, real), real)
        pooled.square().sum().backward()
        found.append([pooled.detach(), *(p.grad.clone() for p in network.parameters())])
    for short, long in zip(*found, strict=True):
        assert (short - long).abs().max() < 1e-10


def test_nothing_but_padding_is_zero_and_its_gradient_a_number(network: nn.Module) -> None:
    x, real = sequences(7, (3, 0, 7))
    x.requires_grad_()
    pooled = pool(network(x, real), real)
    assert (pooled[1] == 0).all()
    pooled.sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad[1] == 0).all() and (x.grad[0, 3:] == 0).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_order_of_a_sequence_matters(network: nn.Module) -> None:
    x, real = sequences(5, (5,))
    assert (pool(network(x, real), real) - pool(network(x.flip(1), real), real)).abs().max() > 1e-3


def test_an_lstm_begins_by_remembering() -> None:
    bias = Recurrent("lstm", INSIDE, HIDDEN).bias_in
    assert (bias[:, HIDDEN : 2 * HIDDEN] == 1).all() and bias.sum() == 2 * HIDDEN


def test_tasks_are_mapped_and_differentiated_twice(network: nn.Module) -> None:
    """What second-order MAML asks for: the gradient, by the weights, of the loss after a step, of each task."""
    x, real = sequences(7, (7, 3, 5, 0))
    tasks, masks = x.unflatten(0, (2, 2)), real.unflatten(0, (2, 2))
    weights = dict(network.named_parameters())

    def loss(weights: dict[str, Tensor], x: Tensor, real: Tensor) -> Tensor:
        return pool(torch.func.functional_call(network, weights, (x, real)), real).sin().sum()

    def after_a_step(weights: dict[str, Tensor], x: Tensor, real: Tensor) -> Tensor:
        gradient = torch.func.grad(loss)(weights, x, real)
        return loss({name: weights[name] - 0.1 * gradient[name] for name in weights}, x, real)

    mapped = torch.func.vmap(torch.func.grad(after_a_step), in_dims=(None, 0, 0))(weights, tasks, masks)
    for i in range(2):
        first = torch.autograd.grad(loss(weights, tasks[i], masks[i]), list(weights.values()), create_graph=True)
        moved = {name: weights[name] - 0.1 * g for name, g in zip(weights, first, strict=True)}
        second = torch.autograd.grad(loss(moved, tasks[i], masks[i]), list(weights.values()))
        for name, expected in zip(weights, second, strict=True):
            assert (mapped[name][i] - expected).abs().max() < 1e-8


def test_a_summary_is_centred_and_scaled_over_the_batch(network: nn.Module) -> None:
    x, real = sequences()
    encoded = network(x, real)
    torch.manual_seed(1)
    summary = Summary(encoded.shape[2], 4).double()
    with torch.no_grad():
        projected = pool(encoded, real) @ summary.project.weight.T
        expected = (projected - projected.mean(0)) / (projected.var(0, unbiased=False) + 1e-5).sqrt()
        assert (summary(encoded, real) - expected).abs().max() < 1e-10
