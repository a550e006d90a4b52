"""Datasets on disk: read as they are asked for they are what they are in memory, and no more is read than must be."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from quickstudy.config import Settings, load_settings
from quickstudy.data.contents import digests_of
from quickstudy.data.dataset import PLACES, Dataset, DatasetInfo, by_code, make_table, read_dataset, write_dataset
from quickstudy.encoders.features import features
from quickstudy.encoders.image_conv4 import Conv4
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.checks import check_datasets
from quickstudy.tasks.splits import meta_split

REPOSITORY = Path(__file__).parents[3]


def open_dataset(folder: Path, memory: Path | None = None) -> Dataset:
    return read_dataset(folder, PLACES, memory)


@pytest.fixture
def written(toys, tmp_path: Path) -> Callable[..., Path]:
    """A folder data/NAME with a dataset in several row groups."""

    def write(modality: str = "text", name: str = "toys", each: int = 6, rows: int = 7, **options: Any) -> Path:
        dataset = toys(modality, each=each, name=name, **options)
        folder = write_dataset(tmp_path / "data", dataset.info, dataset.table)
        pq.write_table(dataset.table, folder / "examples.parquet", row_group_size=rows)
        return folder

    return write


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the datasets whose examples were read from the first to the last, once for each time."""
    names: list[str] = []
    batches = Dataset.batches

    def note(dataset: Dataset, *size: int) -> Iterator[list[Any]]:
        names.append(dataset.name)
        yield from batches(dataset, *size)

    monkeypatch.setattr(Dataset, "batches", note)
    return names


@pytest.mark.parametrize("modality", ["text", "image", "audio"])
def test_an_opened_dataset_is_the_one_in_memory(written, modality: str) -> None:
    folder = written(modality, domains=2)
    opened, whole = open_dataset(folder), read_dataset(folder)
    assert modality not in opened.table.column_names and len(opened) == len(whole) == 36
    assert opened.raw() == whole.raw() and opened.raw(slice(5, 16)) == whole.raw()[5:16]
    rows = np.random.default_rng(0).integers(0, 36, 50)  # in any order, some twice
    assert opened.raw(rows) == whole.raw(rows) == [whole.raw()[row] for row in rows]
    assert opened.raw([]) == whole.raw([]) == []
    assert opened.classes == whole.classes and np.array_equal(opened.class_index, whole.class_index)
    for name in ("label", "group", "domain"):
        assert opened.column(name) == whole.column(name)
        assert opened.column(name, rows) == [whole.column(name)[row] for row in rows]
        values, codes = opened.codes(name)
        assert values == sorted(set(values)) and [values[code] for code in codes] == whole.column(name)
    assert np.array_equal(opened.digests, whole.digests)


def test_targets_that_are_lists_are_opened_as_they_are(tmp_path: Path) -> None:
    tags = [["old", "red"], [], ["red"]]
    table = make_table("text", ["one", "two", "three"], tags, ["a", "a", "b"], kind="tag")
    folder = write_dataset(tmp_path, DatasetInfo(name="toys", modality="text", kind="tag"), table)
    assert open_dataset(folder).table.column("labels").to_pylist() == tags
    assert open_dataset(folder).column("group") == ["a", "a", "b"]


@pytest.mark.parametrize("size", [1, 5, 7, 35, 36, 300])
def test_batches_are_full_whatever_the_row_groups(written, size: int) -> None:
    folder = written()
    for dataset in (open_dataset(folder), read_dataset(folder)):
        batches = list(dataset.batches(size))
        assert [example for batch in batches for example in batch] == dataset.raw()
        assert {len(batch) for batch in batches[:-1]} <= {size} and 0 < len(batches[-1]) <= size


def test_codes_are_those_of_the_rows_that_are_there(toys) -> None:
    dataset = toys(classes=5, each=3)
    some = Dataset(dataset.info, dataset.table.set_column(1, "label", dataset.table["label"].dictionary_encode())[6:])
    assert some.classes == ["class 02", "class 03", "class 04"]
    assert some.class_index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    none = Dataset(dataset.info, dataset.table[:0])
    assert none.classes == [] and none.class_index.shape == (0,) and list(none.batches()) == []


def test_rows_apart_by_code() -> None:
    codes = np.array([2, 0, 2, 3, 0, 2])
    apart = by_code(codes, np.array([0, 1, 2, 4, 5]), 4)
    assert [rows.tolist() for rows in apart] == [[1, 4], [], [0, 2, 5], []]


def test_what_is_remembered_is_not_read_again(written, read: list[str], tmp_path: Path) -> None:
    folder = written()
    first = open_dataset(folder, tmp_path / "memory").digests
    again = open_dataset(folder, tmp_path / "memory").digests
    assert read == ["toys"] and np.array_equal(first, again)


def test_an_example_is_known_by_its_content() -> None:
    one, same, other, empty = digests_of([["ab", b"ab"], ["abc", ""]]).tolist()
    assert one == same and len({one, other, empty}) == 3
    assert digests_of([]).shape == (0,)


def test_another_file_is_read_again(written, read: list[str], tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    folder = written(each=6)
    before = open_dataset(folder, memory).digests
    written(each=7)  # another file in its place
    assert len(open_dataset(folder, memory).digests) == 42
    written(each=6)
    assert np.array_equal(open_dataset(folder, memory).digests, before)
    # The same file with another example of the same length in it, and the old time of change.
    path = folder / "examples.parquet"
    stat = path.stat()
    table = pq.read_table(path)
    texts = table["text"].to_pylist()
    other = table.set_column(0, "text", [[texts[0][::-1], *texts[1:]]])
    with path.open("r+b") as file:
        pq.write_table(other, file, row_group_size=7)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert path.stat().st_ino == stat.st_ino
    after = open_dataset(folder, memory).digests
    assert (after != before).tolist() == [True] + [False] * 35 and read == ["toys"] * 4


@pytest.mark.parametrize("damage", [b"", b"x" * 500])
def test_a_damaged_memory_is_made_anew(written, read: list[str], tmp_path: Path, damage: bytes) -> None:
    folder = written()
    digests = open_dataset(folder, tmp_path / "memory").digests
    (kept,) = (tmp_path / "memory").iterdir()
    kept.write_bytes(damage)
    for _ in range(2):
        assert np.array_equal(open_dataset(folder, tmp_path / "memory").digests, digests)
    assert read == ["toys"] * 2


@pytest.mark.parametrize("modality", ["text", "image"])
def test_examples_added_to_one_dataset_make_no_other_be_read(
    written, read: list[str], tmp_path: Path, modality: str
) -> None:
    settings: Settings = load_settings(REPOSITORY / "params.yaml")

    def check() -> list[str]:
        read.clear()
        opened = [open_dataset(tmp_path / "data" / name, tmp_path / "contents") for name in ("grows", "stays")]
        split_of = partial(meta_split, splits=settings.splits)
        check_datasets(opened, settings, split_of, cache=tmp_path / "checks")
        if modality == "image":
            for dataset in opened:
                features(dataset, Conv4(settings.inputs.image, 4, 16), tmp_path / "features")
        return sorted(set(read))

    written(modality, "grows", 10)
    written(modality, "stays", 9)
    assert check() == ["grows", "stays"] and check() == []
    written(modality, "grows", 11)
    assert check() == ["grows"]


def test_a_column_of_other_targets_is_told(tmp_path: Path) -> None:
    table = make_table("text", ["x"], ["a"], ["g"])
    folder = write_dataset(tmp_path, DatasetInfo(name="mixed", modality="text"), table)
    about = folder / "dataset.yaml"
    about.write_text(about.read_text().replace("kind: classify", "kind: tag"))
    with pytest.raises(QuickstudyError, match=r"parquet: lacks the column 'labels'\. Import the dataset again"):
        read_dataset(folder)
    pq.write_table(table.rename_columns(["text", "labels", "group"]), folder / "examples.parquet")
    with pytest.raises(QuickstudyError, match="'labels' holds string, which are no targets of kind tag"):
        read_dataset(folder)
