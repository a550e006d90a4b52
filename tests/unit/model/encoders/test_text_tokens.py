"""Texts as tokens: what the frozen front makes of them, and that padding and cutting lose nothing else."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from quickstudy.config import Settings, TextInput
from quickstudy.encoders.text_tokens import PADDING, TokenEncoder, words

INPUTS = TextInput(encoder="all-MiniLM-L6-v2", max_tokens=8, max_bytes=12, word_buckets=1000)
NETWORKS = ("cnn", "gru", "lstm", "transformer")


def made(unit="bytes", network="cnn", inputs: TextInput = INPUTS) -> TokenEncoder:
    torch.manual_seed(0)
    return TokenEncoder(inputs, unit, network, 4, 16, 2)


def test_bytes_are_those_of_the_file() -> None:
    arrays = made().prepare(["aé", "", "0123456789abcdef", "\x00", "\ud800"])
    assert arrays.shape == (5, 12) and arrays.dtype == np.int32
    assert arrays[0].tolist() == [98, 0xC3 + 1, 0xA9 + 1] + [PADDING] * 9
    assert (arrays[1] == PADDING).all()
    assert bytes((arrays[2] - 1).tolist()) == b"0123456789ab"
    assert arrays[3].tolist() == [1] + [PADDING] * 11  # a zero byte is no padding
    assert arrays.max() <= 256


def test_words_are_the_same_in_every_process() -> None:
    texts = ["Hello, HELLO world!", "", "  \n", "a b c d e f g h i j", "naïve nai\u0308ve Straße STRASSE"]
    arrays = made("words").prepare(texts)
    assert arrays.shape == (5, 8) and arrays.dtype == np.int32
    hello, comma, again, world, mark, *rest = arrays[0]
    assert hello == again and len({hello, comma, world, mark, PADDING}) == 5 and rest == [PADDING] * 3
    assert (arrays[1:3] == PADDING).all() and (arrays[3] != PADDING).all()
    assert arrays[4, 0] == arrays[4, 1] != arrays[4, 2] == arrays[4, 3]
    assert arrays.min() >= 0 and arrays.max() <= 1000
    code = (
        "from tests.unit.model.encoders.test_text_tokens import made; "
        "print(made('words').prepare(['Hello, HELLO world!'])[0].tolist())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in "12"
    }
    assert said == {f"{arrays[0].tolist()}\n"}


def test_words_part_at_blanks_and_signs() -> None:
    assert words("Can't re-open №5 (v2.0)?") == [
        "can",
        "'",
        "t",
        "re",
        "-",
        "open",
        "no5",
        "(",
        "v2",
        ".",
        "0",
        ")",
        "?",
    ]
    many = made("words").prepare([f"word{i}" for i in range(2000)])[:, 0]
    assert len(set(many)) > 800  # of 1000 places, 865 are expected to be taken


@pytest.mark.parametrize("unit", ["bytes", "words"])
@pytest.mark.parametrize("network", NETWORKS)
def test_padding_changes_nothing(unit, network) -> None:
    texts = ["one", "two words", "", "a longer text"]
    short = made(unit, network).double().eval()
    longer = made(unit, network, INPUTS.model_copy(update={"max_bytes": 40, "max_tokens": 50})).double().eval()
    with torch.no_grad():
        vectors = short(torch.from_numpy(short.prepare(texts)))[:3]
        assert (vectors - longer(torch.from_numpy(longer.prepare(texts)))[:3]).abs().max() < 1e-10
        alone = torch.cat([short(torch.from_numpy(short.prepare([text]))) for text in texts[:3]])
        assert (vectors - alone).abs().max() < 1e-10
        assert torch.isfinite(vectors).all() and (vectors[0] - vectors[1]).abs().max() > 1e-3


@pytest.mark.parametrize("network", NETWORKS)
def test_texts_of_nothing_teach_no_nan(network) -> None:
    encoder = made("words", network)
    vectors = encoder(torch.from_numpy(encoder.prepare(["", " ", "\t"])))
    vectors.square().sum().backward()
    assert torch.isfinite(vectors).all()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_half_of_the_texts_lose_some_tokens_and_none_their_order() -> None:
    encoder = made()
    tokens = torch.arange(1, 41, dtype=torch.int32).repeat(400, 1)
    tokens[:, 30:] = PADDING
    tokens[7], tokens[8, 1:] = PADDING, PADDING
    torch.manual_seed(5)
    found = encoder.augment(tokens, torch.Generator().manual_seed(0), 2)
    torch.rand(3)
    assert torch.equal(found, encoder.augment(tokens, torch.Generator().manual_seed(0)))
    assert not torch.equal(found, encoder.augment(tokens, torch.Generator().manual_seed(1)))
    assert found.shape == tokens.shape and found.dtype == torch.int32
    assert (found[7] == PADDING).all() and found[8].sum() == tokens[8, 0]
    left = []
    for row in torch.cat([found[:7], found[9:]]):
        kept = row[row != PADDING].tolist()
        assert kept == sorted(set(kept)) and row[: len(kept)].tolist() == kept and max(kept) <= 30
        left.append(len(kept))
    whole = np.mean(np.array(left) == 30)
    assert 0.4 < whole < 0.7 and 30 * 0.93 < np.mean(left) < 30 * 0.97 and min(left) >= 15


def test_a_single_word_is_never_lost() -> None:
    encoder = made("words")
    tokens = torch.from_numpy(encoder.prepare(["word"] * 500))
    assert torch.equal(encoder.augment(tokens, torch.Generator().manual_seed(0)), tokens)


def test_tasks_are_mapped_where_no_length_can_be_looked_at(tiny: Settings) -> None:
    encoder = made("words", "gru").double().eval()
    tokens = torch.from_numpy(encoder.prepare(["one", "one two", "", "one two three"])).unflatten(0, (2, 2))
    with torch.no_grad():
        mapped = torch.func.vmap(encoder)(tokens)
        assert (mapped - torch.stack([encoder(task) for task in tokens])).abs().max() < 1e-10
