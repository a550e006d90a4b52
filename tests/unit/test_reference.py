"""What a model remembers of its training examples comes back as it was written, or is refused in one line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from quickstudy.config import Settings
from quickstudy.data.dataset import Dataset
from quickstudy.drift.reference import FILE, Known, content_digests, read_reference, remember, units_of, write_reference
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import part_digest, save_model


@pytest.fixture
def model(tiny: Settings) -> MetaModel:
    torch.manual_seed(3)
    return MetaModel(tiny.inputs, tiny.model, {"image"}).eval()


@pytest.fixture
def folder(model: MetaModel, tmp_path: Path) -> Path:
    """Of the model's part for a kind."""
    save_model(model, tmp_path / "model", {})
    return tmp_path / "model/classify"


def known(model: MetaModel, dataset: Dataset, rows: np.ndarray, examples: int = 1000) -> Known:
    return remember(model, dataset, rows, model.encoder("image").prepare(dataset.raw()), examples)


def test_round_trip(model: MetaModel, folder: Path, toys) -> None:
    dataset = toys("image", classes=6, each=8, groups=3, domains=4, group="script")
    rows = np.flatnonzero(dataset.class_index < 4)
    written = known(model, dataset, rows)
    other = remember(model, toys("text", name="unlearned"), np.array([], dtype=int), None, 10)
    write_reference(folder, [other, written])
    back = read_reference(folder)
    assert list(back) == ["toys", "unlearned"]
    one = back["toys"]
    assert (one.name, one.modality, one.words) == (
        "toys",
        "image",
        {"domain": "voice", "group": "script", "class": "class"},
    )
    assert one.units == written.units and list(one.units) == ["domain", "group", "class"]
    assert np.array_equal(one.contents, written.contents) and np.array_equal(one.learned, written.learned)
    assert one.vectors.shape == (32, 16) and np.allclose(one.vectors, written.vectors, rtol=1e-3, atol=1e-3)
    with torch.inference_mode():
        vectors = model.encode("image", torch.from_numpy(model.encoder("image").prepare(dataset.raw(rows))))
    assert np.allclose(np.sort(written.vectors, 0), np.sort(vectors.numpy(), 0), atol=1e-5)
    assert back["unlearned"].vectors.shape == (0, 16) and len(back["unlearned"].contents) == 48


def test_it_tells_what_was_there_and_what_was_learned(model: MetaModel, toys) -> None:
    dataset, more = toys("image", classes=4, each=6), toys("image", classes=4, each=8)
    one = known(model, dataset, np.flatnonzero(dataset.class_index < 2))
    digests = content_digests(more)
    place = np.array([(c, i) for c in range(4) for i in range(8)])
    assert np.array_equal(one.is_there(digests), place[:, 1] < 6)
    assert np.array_equal(one.is_learned(digests), (place[:, 1] < 6) & (place[:, 0] < 2))


def test_which_examples_are_kept(model: MetaModel, toys) -> None:
    dataset = toys("image", classes=12, each=8)
    every = np.arange(len(dataset))
    few = known(model, dataset, every, 20)
    assert len(few.vectors) == 20
    counts = sorted(few.units["class"].count(name) for name in set(few.units["class"]))
    assert counts == [5, 5, 5, 5]  # whole handfuls of some classes, not one of each
    # Of another order, and beside another class, the same ones are kept.
    again = known(model, Dataset(dataset.info, dataset.table.take(every[::-1])), every, 20)
    assert sorted(again.units["class"]) == sorted(few.units["class"])
    assert np.allclose(np.sort(again.vectors, 0), np.sort(few.vectors, 0), atol=1e-6)
    larger = toys("image", classes=13, each=8)
    more = known(model, larger, np.arange(len(larger)), 20)
    assert len(set(more.units["class"]) & set(few.units["class"])) >= 3
    assert len(known(model, dataset, every, 60).vectors) == 60


def test_units(toys) -> None:
    rows = np.array([0, 9, 20])
    units, words = units_of(toys("text", classes=4, groups=2), rows)
    assert (list(units), words) == (["class"], {"class": "class"})  # its group is its class
    assert units["class"] == ["class 00", "class 01", "class 02"]
    units, words = units_of(toys("text", classes=4, groups=2, group="topic", episode_scope="group", domains=2), rows)
    assert (list(units), words["group"], words["domain"]) == (["domain", "group", "class"], "topic", "voice")
    assert units["class"] == ["group 0/class 00", "group 1/class 01", "group 0/class 02"]


def test_a_class_that_is_a_group_under_another_word_is_one_unit(model: MetaModel, toys) -> None:
    dataset = toys("image", classes=4, groups=4, group="word")
    assert list(known(model, dataset, np.arange(len(dataset))).units) == ["class"]


def test_the_bytes_are_the_same_each_time_and_the_weights_stay(model: MetaModel, folder: Path, toys) -> None:
    dataset = toys("image", groups=2, group="script", domains=3)
    before = part_digest(folder), sorted(path.name for path in folder.iterdir())
    write_reference(folder, [known(model, dataset, np.arange(len(dataset)))])
    first = (folder / FILE).read_bytes()
    write_reference(folder, [known(model, dataset, np.arange(len(dataset)))])
    assert (folder / FILE).read_bytes() == first
    assert (part_digest(folder), sorted(path.name for path in folder.iterdir() if path.name != FILE)) == before


def test_damage_is_one_line(model: MetaModel, folder: Path, toys, tiny: Settings) -> None:
    def refused() -> str:
        with pytest.raises(QuickstudyError) as caught:
            read_reference(folder, "models:/quickstudy/3")
        line = str(caught.value)
        assert "\n" not in line and line.startswith("models:/quickstudy/3: ") and "`quickstudy run`" in line
        return line

    assert "keeps no sample of what it learned from" in refused()
    dataset = toys("image")
    write_reference(folder, [known(model, dataset, np.arange(len(dataset)))])
    path, whole = folder / FILE, (folder / FILE).read_bytes()
    for bad in (b"", whole[:-9], b"\x80\x04pickle", b"{" + whole[1:]):
        path.write_bytes(bad)
        assert "is damaged" in refused()
    path.write_bytes(whole)
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        described = json.loads(file.metadata()["reference"])

    def write(tensors: dict, **changes: object) -> None:
        save_file(tensors, path, metadata={"reference": json.dumps(described | changes)})

    write(tensors, format=2)
    assert "has format 2, this version reads 1" in refused()
    write({name: array for name, array in tensors.items() if not name.endswith("/class")})
    assert "is damaged" in refused()
    write(tensors, datasets=[{"name": "toys"}])
    assert "is damaged" in refused()
    save_file(tensors, path)
    assert "is damaged" in refused()
    path.write_bytes(whole)
    save_model(MetaModel(tiny.inputs, tiny.model, {"image"}), folder.parent, {})
    assert "another model's weights" in refused()
