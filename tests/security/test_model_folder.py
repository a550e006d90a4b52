"""A model's folder that somebody else has made asks for no more memory than its own files have."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from quickstudy.config import Model, Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import WEIGHTS, load_model, save_model
from quickstudy.system.limits import GB, memory_limit


@pytest.fixture
def part(tmp_path: Path, tiny: Settings) -> Path:
    save_model(MetaModel(tiny.inputs, tiny.model, ("image", "audio", "text")), tmp_path / "model", {})
    return tmp_path / "model/classify"


def describe(part: Path, section: str, **values: Any) -> None:
    config = yaml.safe_load((part / "config.yaml").read_text())
    config[section] |= values
    (part / "config.yaml").write_text(yaml.safe_dump(config))


def large(part: Path) -> None:
    describe(part, "model", dimension=8192, width=2048, heads=1)


def larger_than_any(part: Path) -> None:
    describe(part, "model", dimension=2_000_000, width=100_000)


def many_words(part: Path) -> None:
    describe(part, "model", encoders={"image": "conv4", "audio": "cnn", "text": "words-lstm"}, width=2048)
    describe(
        part,
        "inputs",
        text={**yaml.safe_load((part / "config.yaml").read_text())["inputs"]["text"], "word_buckets": 2**20},
    )


def deep(part: Path) -> None:
    describe(part, "model", encoders={"image": "resnet12", "audio": "lstm", "text": "minilm"}, width=2048)


def many_steps(part: Path) -> None:
    describe(part, "model", learner="maml", inner_steps=10**9)


def header_of(part: Path, length: int, header: bytes = b"{}") -> None:
    (part / WEIGHTS).write_bytes(struct.pack("<Q", length) + header)


def endless_header(part: Path) -> None:
    header_of(part, 2**62)


def header_beyond_the_file(part: Path) -> None:
    header_of(part, 90_000_000)


def weights_beyond_the_file(part: Path) -> None:
    about = {"x": {"dtype": "F32", "shape": [2**32], "data_offsets": [0, 2**34]}}
    header = json.dumps(about).encode()
    header_of(part, len(header), header)


@pytest.mark.parametrize(
    "spoil",
    [
        large,
        larger_than_any,
        many_words,
        deep,
        many_steps,
        endless_header,
        header_beyond_the_file,
        weights_beyond_the_file,
    ],
)
def test_what_the_files_do_not_hold_is_not_asked_for(part: Path, spoil: Callable[[Path], None]) -> None:
    spoil(part)
    with memory_limit(0.25 * GB), pytest.raises(QuickstudyError, match="the model is damaged") as refused:
        load_model(part.parent, "classify")
    assert "\n" not in str(refused.value) and "allocate" not in str(refused.value)


@pytest.mark.parametrize(
    "learner", ["protonet", "adapt", "film", "ridge", "kernel", "anil", "maml", "reptile", "incontext"]
)
@pytest.mark.parametrize(
    "encoders",
    [
        {"image": "conv4", "audio": "cnn", "text": "minilm"},
        {"image": "resnet12", "audio": "gru", "text": "bytes-cnn"},
        {"image": "conv4", "audio": "lstm", "text": "words-transformer"},
        {"image": "conv4", "audio": "cnn", "text": "bytes-gru"},
    ],
)
def test_every_model_of_ours_is_read_as_it_was_saved(
    tmp_path: Path, tiny: Settings, learner: str, encoders: dict[str, str]
) -> None:
    if learner == "film":  # it modulates channels, which not every encoder has
        encoders = {"image": "resnet12", "audio": "cnn", "text": "minilm"}
    shape = Model.model_validate(tiny.model.model_dump() | {"learner": learner, "encoders": encoders})
    torch.manual_seed(3)
    model = MetaModel(tiny.inputs, shape, ("image", "audio", "text"))
    save_model(model, tmp_path / "model", {})
    read = load_model(tmp_path / "model", "classify").state_dict()
    assert all(torch.equal(value, read[name]) for name, value in model.state_dict().items())


def test_so_is_one_whose_sentence_encoder_was_trained(tmp_path: Path, tiny: Settings) -> None:
    encoders = tiny.model.encoders.model_copy(update={"text": "minilm-tuned"})
    model = MetaModel(tiny.inputs, tiny.model.model_copy(update={"encoders": encoders}), ("text",))
    save_model(model, tmp_path / "model", {})
    read = load_model(tmp_path / "model", "classify").state_dict()
    assert all(torch.equal(value, read[name]) for name, value in model.state_dict().items())
