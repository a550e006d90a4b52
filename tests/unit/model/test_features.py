"""The cache of what the frozen fronts compute."""

from pathlib import Path

import numpy as np
import pytest

from quickstudy.config import ImageInput, Settings
from quickstudy.encoders.features import CHUNK, features
from quickstudy.encoders.image_conv4 import Conv4
from quickstudy.encoders.text_tokens import TokenEncoder
from quickstudy.errors import QuickstudyError


class Counting(Conv4):
    """Counts the examples that it had to prepare."""

    prepared = 0

    def prepare(self, raw):
        self.prepared += len(raw)
        return super().prepare(raw)


@pytest.fixture
def encoder(tiny: Settings) -> Counting:
    return Counting(tiny.inputs.image, 4, 16)


def test_rows_are_those_of_the_dataset(toys, encoder: Counting) -> None:
    dataset = toys("image", classes=3, each=4)
    told = []
    array, digest = features(dataset, encoder, None, lambda done, total: told.append((done, total)))
    assert np.array_equal(array, np.stack([encoder.prepare([data])[0] for data in dataset.raw()]))
    assert told == [(12, 12)] and len(digest) == 32


def test_a_dataset_of_several_chunks_keeps_its_order(toys, encoder: Counting) -> None:
    dataset = toys("image", classes=6, each=CHUNK // 5)
    told = []
    array, _ = features(dataset, encoder, None, lambda done, total: told.append(done))
    assert len(array) == len(dataset) > CHUNK and told == [CHUNK, len(dataset)]
    for i in (0, CHUNK - 1, CHUNK, len(dataset) - 1):
        assert np.array_equal(array[i], encoder.prepare(dataset.raw([i]))[0])


def test_what_was_computed_once_is_read_again(toys, encoder: Counting, tmp_path: Path) -> None:
    first, digest = features(toys("image"), encoder, tmp_path / "cache")
    assert encoder.prepared == 48 and isinstance(first, np.memmap)
    again, same = features(toys("image"), encoder, tmp_path / "cache")
    assert encoder.prepared == 48 and same == digest and np.array_equal(first, again)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"toys-{digest}.npy"]


def test_other_content_order_or_settings_are_computed_anew(toys, encoder: Counting, tmp_path: Path) -> None:
    dataset = toys("image")
    digests = {features(dataset, encoder, tmp_path)[1]}
    backwards = type(dataset)(dataset.info, dataset.table.take(list(range(len(dataset)))[::-1]))
    for other in (toys("image", each=7), toys("image", classes=7), backwards):
        digests.add(features(other, encoder, tmp_path)[1])
    digests.add(features(dataset, Counting(ImageInput(size=20, channels=1), 4, 16), tmp_path)[1])
    assert len(digests) == 5 == len(list(tmp_path.iterdir()))
    # labels are no part of it: a renamed class computes nothing
    before = encoder.prepared
    labels = dataset.table.set_column(1, "label", [[f"other {i}" for i in range(len(dataset))]])
    features(type(dataset)(dataset.info, labels), encoder, tmp_path)
    assert encoder.prepared == before


@pytest.mark.parametrize("damage", ["empty", "truncated", "header", "garbage"])
def test_a_damaged_file_is_computed_anew(toys, encoder: Counting, tmp_path: Path, damage: str) -> None:
    expected = np.array(features(toys("image"), encoder, tmp_path)[0])
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    path.write_bytes({"empty": b"", "truncated": data[:-100], "header": data[:40], "garbage": b"x" * 500}[damage])
    array, _ = features(toys("image"), encoder, tmp_path)
    assert np.array_equal(array, expected) and encoder.prepared == 96
    assert path.read_bytes() == data


def test_a_stop_leaves_no_half_written_file(toys, encoder: Counting, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features(toys("image", classes=6, each=CHUNK // 5), encoder, tmp_path, stop)
    assert list(tmp_path.iterdir()) == []  # the first of two chunks was written


class Lengths(TokenEncoder):
    """Notes how many texts it had to prepare at once."""

    seen: list[int]

    def prepare(self, raw):
        self.seen.append(len(raw))
        return super().prepare(raw)


def test_texts_are_prepared_and_written_part_by_part(toys, tiny: Settings, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("quickstudy.encoders.features.TEXTS", 20)
    dataset, encoder = toys("text", classes=6, each=8), Lengths(tiny.inputs.text, "words", "cnn", 4, 16, 1)
    encoder.seen = []
    kept, _ = features(dataset, encoder, tmp_path)
    assert encoder.seen == [20, 20, 8]
    assert isinstance(kept, np.memmap) and np.array_equal(kept, encoder.prepare(dataset.raw()))
    assert np.array_equal(features(dataset, encoder, None)[0], kept)


def test_what_is_no_number_is_named_by_its_first_row(toys, encoder: Counting, tmp_path: Path, monkeypatch) -> None:
    dataset = toys("image", classes=6, each=CHUNK // 5)
    bad = {5, 6, CHUNK + 3}

    def prepare(raw) -> np.ndarray:
        start = 0 if raw[0] == dataset.raw([0])[0] else CHUNK
        return np.array([[np.nan if start + i in bad else 1.0] for i in range(len(raw))])

    monkeypatch.setattr(encoder, "prepare", prepare)
    for cache in (None, tmp_path):
        with pytest.raises(QuickstudyError, match="toys, row 5: 3 examples hold values that are no finite numbers"):
            features(dataset, encoder, cache)
    assert list(tmp_path.iterdir()) == []
