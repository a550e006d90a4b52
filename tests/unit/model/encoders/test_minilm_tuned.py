"""minilm-tuned beside a plain BERT, and under learners of every sort."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.config import Model, Settings
from quickstudy.encoders import Encoder, make_encoder
from quickstudy.model.metamodel import MetaModel
from quickstudy.training import meta_loss, optimiser
from tests.toy.tasks import grouped

TEXTS = ["hello", "what is the weather in Paris tomorrow?", "word " * 100, "", "I lost my card", "Ünïcödé 学 🙂"]
ALIKE = [f"wake me up at {hour} o'clock{' please' * (hour % 5)}" for hour in range(70)]  # of several buckets


def made(settings: Settings, name: str = "minilm-tuned", **changes: Any) -> Encoder:
    return make_encoder("text", settings.inputs, with_text(settings, name, **changes))


def with_text(settings: Settings, name: str, **changes: Any) -> Model:
    encoders = settings.model.encoders.model_copy(update={"text": name})
    return settings.model.model_copy(update={"encoders": encoders, **changes})


def tokens_of(encoder: Encoder, texts: list[str]) -> Tensor:
    return torch.from_numpy(encoder.prepare(texts))


def plain(weights: dict[str, Tensor], ids: list[int]) -> Tensor:
    """One text through BERT (Devlin et al. 2018), a head at a time: mean vector [384] of length 1."""

    def linear(x: Tensor, name: str) -> Tensor:
        return torch.einsum("lc,dc->ld", x, weights[f"bert.{name}.weight"]) + weights[f"bert.{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        scaled = centred / (centred.square().mean(1, keepdim=True) + 1e-12).sqrt()
        return scaled * weights[f"bert.{name}.weight"] + weights[f"bert.{name}.bias"]

    tables = [weights[f"bert.embeddings.{what}_embeddings.weight"] for what in ("word", "position", "token_type")]
    x = torch.stack([tables[0][i] + tables[1][place] + tables[2][0] for place, i in enumerate(ids)])
    x = norm(x, "embeddings.LayerNorm")
    for layer in (f"encoder.layer.{i}" for i in range(6)):
        query, key, value = (linear(x, f"{layer}.attention.self.{what}") for what in ("query", "key", "value"))
        heads = []
        for own in (slice(32 * head, 32 * head + 32) for head in range(12)):
            attended = (query[:, own] @ key[:, own].T / 32**0.5).exp()
            heads.append(attended / attended.sum(1, keepdim=True) @ value[:, own])
        x = norm(
            x + linear(torch.cat(heads, 1), f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm"
        )
        inner = linear(x, f"{layer}.intermediate.dense")
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        x = norm(x + linear(inner, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.sum(0) / len(ids)
    return mean / mean.square().sum().sqrt()


def test_it_begins_with_what_minilm_says(tiny: Settings) -> None:
    torch.manual_seed(0)
    frozen = made(tiny, "minilm", dimension=384)
    tuned = made(tiny, dimension=384)
    texts = TEXTS + ALIKE
    with torch.no_grad():
        expected = frozen(tokens_of(frozen, texts))
        assert (tuned(tokens_of(tuned, texts)) - expected).abs().max() < 1e-5


def test_it_is_bert_and_its_gradient(tiny: Settings) -> None:
    """In a batch of several buckets each text is read as if it were alone, whatever the weights have become."""
    encoder = made(tiny).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    tokens = tokens_of(encoder, [*TEXTS[:2], *ALIKE[:38], TEXTS[4]])
    weights = dict(encoder.state_dict(keep_vars=True))
    chosen = [0, 1, 9, 40]
    expected = torch.stack([plain(weights, [i for i in tokens[row].tolist() if i]) for row in chosen])
    expected = expected @ weights["project.weight"].T
    found = encoder(tokens)[chosen]
    assert (found - expected).abs().max() < 1e-9
    direction = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    names, leaves = zip(*encoder.named_parameters(), strict=True)
    by_hand, ours = (torch.autograd.grad(side, leaves, direction) for side in (expected, found))
    for name, a, b in zip(names, by_hand, ours, strict=True):
        assert (a - b).abs().max() < 1e-9, name


def test_all_but_the_table_of_words_is_trained_with_care_and_without_chance(tiny: Settings) -> None:
    torch.manual_seed(0)
    model = MetaModel(tiny.inputs, with_text(tiny, "minilm-tuned", learner="protonet"), {"text"}).train()
    encoder = model.encoder("text")
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    tokens = tokens_of(encoder, ALIKE[:12])
    task = grouped("text", tokens[:4][None], tokens[4:][None], 2)
    optimizer = optimiser(model, tiny.train)
    assert {id(p) for p in optimizer.param_groups[2]["params"]} == {id(p) for p in encoder.parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 1e-3 * group["pace"]
    loss = meta_loss(model, [task])
    assert loss.item() == meta_loss(model, [task]).item() == meta_loss(model.eval(), [task]).item()
    loss.backward()
    optimizer.step()
    table = "bert.embeddings.word_embeddings.weight"
    changed = {name for name, tensor in encoder.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name, _ in encoder.named_parameters()} == set(before) - {table}
    # no step is larger than what care allows
    assert all((encoder.state_dict()[name] - before[name]).abs().max() < 1e-4 for name in changed)


def test_a_text_that_names_the_padding_loses_nothing_else(tiny: Settings) -> None:
    encoder = made(tiny)
    with_name, without = tokens_of(encoder, ["a [PAD] cat [PAD] sat", "a cat sat"])
    assert torch.equal(with_name, without)


@pytest.mark.parametrize("learner", get_args(Model.model_fields["learner"].annotation))
def test_it_is_trained_under_every_learner(tiny: Settings, learner: str) -> None:
    torch.manual_seed(0)
    shape = with_text(tiny, "minilm-tuned", learner=learner, inner_steps=1, second_order=True)
    model = MetaModel(tiny.inputs, shape, {"text"}).train()
    encoder = model.encoder("text")
    tokens = tokens_of(encoder, ALIKE[:16]).unflatten(0, (2, 8))
    batch = grouped("text", tokens[:, :4], tokens[:, 4:], 2)
    meta_loss(model, [batch]).backward()
    slopes = [weight.grad for weight in encoder.parameters()]
    assert all(slope is not None and torch.isfinite(slope).all() for slope in slopes)
    assert max(float(slope.abs().max()) for slope in slopes if slope is not None) > 0
    model.eval()
    with torch.inference_mode():  # two tasks together are answered as each alone
        (both,) = model([batch])
        for b in range(2):
            (alone,) = model([grouped("text", tokens[b : b + 1, :4], tokens[b : b + 1, 4:], 2)])
            assert (both[b] - alone[0]).abs().max() < 1e-3 * both.abs().max()


def test_a_task_can_modulate_its_vectors(tiny: Settings) -> None:
    encoder = made(tiny)
    tokens = tokens_of(encoder, ALIKE[:3])
    gamma, beta = torch.rand(3, 16), torch.rand(3, 16)
    with torch.no_grad():
        assert torch.allclose(encoder(tokens, [(gamma, beta)]), gamma * encoder(tokens) + beta, atol=1e-6)
        assert F.cosine_similarity(encoder(tokens), encoder(tokens, [(gamma, beta)])).max() < 0.999
