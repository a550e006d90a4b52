"""A dataset on disk: one Parquet file of examples and one YAML file that describes it.

    data/NAME/examples.parquet   columns: image|audio|text, label (of kind tag labels), group, domain where there is one
    data/NAME/dataset.yaml       modality, licence, source, what a group and a domain are

The columns follow the Hugging Face convention (an image or audio cell is ``{bytes, path}``), so that
``datasets.load_dataset("parquet", data_files=...)`` reads ours and the importers read theirs.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from quickstudy.data.contents import FILE, Stored, digests_of, stored_at
from quickstudy.data.plain_yaml import read_yaml
from quickstudy.data.written import remember_written
from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import settle

Modality = Literal["image", "audio", "text"]
Split = Literal["train", "validation", "test"]
MODALITIES: tuple[Modality, ...] = ("image", "audio", "text")
TARGET_COLUMNS: dict[str, tuple[str, pa.DataType]] = {
    "classify": ("label", pa.string()),
    "tag": ("labels", pa.list_(pa.string())),
}
"""Where each kind's targets are, and of which type."""
PLACES = ("label", "labels", "group", "domain")
"""All columns but the examples."""
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""What a dataset may be called: it is the name of a folder, and of files in caches."""
BATCH = 256
"""Examples that are Python objects at once, where all of a dataset are read one after the other."""
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class Reading(BaseModel):
    """How a source was read as a dataset, so that more examples can be read alike. None: as the source says itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    content: str | None = None
    """Column of texts, images or recordings."""
    label: str | None = None
    """Column of targets: of class names, say."""
    separator: str | None = None
    """What is between the tags in a cell, or in the name of a folder."""
    label_columns: tuple[str, ...] | None = None
    """Columns of 0 and 1, one for each tag, called as it is."""
    group: str | None = None
    """A column, a field of the pattern, a folder level, the name of a .json file, ``class`` or ``none``."""
    domain: str | None = None
    """A column, a field of the pattern or a folder level."""
    pattern: str | None = None
    """How file names are made."""
    file: str | None = None
    """Of a table that names the files of examples: the column that does."""
    follow_links: bool = False
    """Whether links are followed that lead out of a folder."""
    ignore_case: bool = False
    """Whether names that differ in case alone are one."""
    levels: int | None = None
    """Folders above each file that say something: 1 of CLASS/file, 2 of GROUP/CLASS/file."""
    encoding: str | None = None
    """Of its text files, and of names in a .zip that do not say theirs."""
    delimiter: str | None = None
    """What is between the fields of a row."""
    header: bool | None = None
    """Whether the first row of a table names the columns."""
    exclude: tuple[str, ...] = ()
    """Classes, or tags, that are left out."""
    skip_bad: bool = False
    drop_duplicates: bool = False


class DatasetInfo(BaseModel):
    """What ``dataset.yaml`` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    modality: Modality
    kind: str = "classify"
    """What a target is (`quickstudy.kinds.targets`); a version that does not know it says so where it is used."""
    description: str = ""
    licence: str = "unknown"
    source: str = "unknown"
    citation: str = ""
    group: str = "class"
    """What the column ``group`` holds, in a word: script, package, alphabet. Groups never cross a meta-split."""
    domain: str | None = None
    """What the column ``domain`` holds (voice, speaker, camera), where there is one. Domains do not cross either."""
    meta_split: Split | dict[str, Split] | None = None
    """None: each group goes where its keyed hash says. A split: the whole dataset goes there. A mapping pins
    single groups (a publisher's official split, say); the others go by their hash."""
    episode_scope: Literal["dataset", "group"] = "dataset"
    """Whether the classes of one episode come from anywhere in the dataset or from one group."""
    reading: Reading | None = None
    """How the importer read it; None where no importer did."""


@dataclass(frozen=True)
class Dataset:
    """Examples with their labels, groups and domains; rows keep the order of the Parquet file."""

    info: DatasetInfo
    table: pa.Table
    """The columns of its file. Examples that are not among them are read from there as they are asked for, so that
    they need not fit in memory."""
    stored: Stored | None = None
    """Where it lies; None where it was made in memory."""

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def modality(self) -> Modality:
        return self.info.modality

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def classes(self) -> list[str]:
        """Class names, sorted."""
        return self._labels[0]

    @property
    def class_index(self) -> np.ndarray:
        """int64 [n]: the place of each row's label in ``classes``."""
        return self._labels[1]

    @cached_property
    def _labels(self) -> tuple[list[str], np.ndarray]:
        return self.codes("label")

    @cached_property
    def digests(self) -> np.ndarray:
        """uint64 [n]: a hash of each example as it is stored, its labels left out."""
        return digests_of(self.batches(), self.stored)

    def column(self, name: str, rows: np.ndarray | None = None) -> list[str]:
        """A column of strings: label, group or domain; of all rows, or of int [n] these."""
        column = self.table.column(name)
        return (column if rows is None else column.take(pa.array(rows))).to_pylist()

    def codes(self, name: str) -> tuple[list[str], np.ndarray]:
        """A column of strings as numbers: the strings in it, sorted, and int64 [n], the place of each row's in them.

        Of a million rows no million Python objects are made.
        """
        column = self.table.column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        parts = column.unify_dictionaries().chunks
        if not parts:
            return [], np.zeros(0, dtype=np.int64)
        values = parts[0].dictionary.to_pylist()
        found = np.concatenate([part.indices.to_numpy() for part in parts])
        present = np.flatnonzero(np.bincount(found, minlength=len(values)))
        order = sorted(present.tolist(), key=values.__getitem__)
        place = np.zeros(len(values), dtype=np.int64)
        place[order] = np.arange(len(order))
        return [values[number] for number in order], place[found]

    def raw(self, rows: Sequence[int] | np.ndarray | slice | None = None) -> list[Any]:
        """The examples as stored: file bytes of an image or a recording, or the text. [len(rows)]"""
        if isinstance(rows, slice):
            rows = np.arange(rows.start or 0, min(rows.stop or len(self), len(self)))
        return self._content(self._cells(np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)))

    def path(self, row: int) -> str | None:
        """The name that the file of an example had, where it is known."""
        cell = None if self.modality == "text" else self._cells(np.array([row]))[0].as_py()
        return cell and cell["path"]

    def batches(self, size: int = BATCH) -> Iterator[list[Any]]:
        """The examples in their order, as `raw` gives them, ``size`` at a time and fewer in the last; no more are in
        memory."""
        if self.modality in self.table.column_names:
            for start in range(0, len(self), size):
                yield self._content(self.table.column(self.modality).slice(start, size))
            return
        waiting: list[Any] = []
        with self._file() as file:
            for batch in file.iter_batches(min(size, BATCH), columns=[self.modality]):
                waiting += self._content(batch.column(0))
                if len(waiting) >= size:
                    yield waiting[:size]
                    waiting = waiting[size:]
        if waiting:
            yield waiting

    def _cells(self, rows: np.ndarray) -> pa.ChunkedArray:
        """Of the column of examples the int64 [n] rows. Of a file those row groups are read that hold them."""
        if self.modality in self.table.column_names:
            return self.table.column(self.modality).take(pa.array(rows))
        with self._file() as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            group = np.searchsorted(np.cumsum(sizes), rows, side="right")
            touched = np.unique(group)
            column = file.read_row_groups(touched.tolist(), columns=[self.modality]).column(0)
        before, kept = np.cumsum([0, *sizes]), np.cumsum([0, *np.array(sizes, dtype=np.int64)[touched]])
        return column.take(pa.array(rows - before[group] + kept[np.searchsorted(touched, group)]))

    @contextmanager
    def _file(self) -> Iterator[pq.ParquetFile]:
        assert self.stored is not None
        try:
            with pq.ParquetFile(self.stored.path, memory_map=True, page_checksum_verification=True) as file:
                yield file
        except (pa.ArrowInvalid, OSError) as error:
            folder = self.stored.path.parent
            raise QuickstudyError(f"cannot be read ({error})", where=folder, fix="Import the dataset again") from None

    def _content(self, cells: Any) -> list[Any]:
        found = cells.to_pylist()
        return found if self.modality == "text" else [cell["bytes"] for cell in found]


def by_code(codes: np.ndarray, rows: np.ndarray, count: int) -> list[np.ndarray]:
    """Rows apart by their codes, in time that does not grow with the number of codes.

    Args:
        codes: int64 [n], below ``count``.
        rows: int64 [m], of those.
        count: of codes.

    Returns:
        for each code its rows, in the order that they came in.
    """
    own = codes[rows]
    return np.split(rows[np.argsort(own, kind="stable")], np.cumsum(np.bincount(own, minlength=count))[:-1])


def make_table(
    modality: Modality,
    examples: Sequence[Any],
    targets: Sequence[Any],
    groups: Sequence[str],
    domains: Sequence[str] | None = None,
    paths: Sequence[str | None] | None = None,
    kind: str = "classify",
) -> pa.Table:
    """Arrange examples (file bytes, or strings for text) and their targets in the columns of a dataset of a kind."""
    if modality == "text":
        cells = pa.array(examples, pa.string())
        feature: dict[str, Any] = {"dtype": "string", "_type": "Value"}
    else:
        names = paths if paths is not None else [None] * len(examples)
        cells = pa.array([{"bytes": b, "path": p} for b, p in zip(examples, names, strict=True)], MEDIA)
        feature = {"_type": modality.capitalize()}
    column, of = TARGET_COLUMNS[kind]
    columns: dict[str, pa.Array] = {modality: cells, column: pa.array(targets, of)}
    columns["group"] = pa.array(groups, pa.string())
    if domains is not None:
        columns["domain"] = pa.array(domains, pa.string())
    table = pa.table(columns)
    string = {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = {
        name: [string] if pa.types.is_list(cells.type) else string for name, cells in columns.items()
    }
    features |= {modality: feature}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_dataset(root: Path, info: DatasetInfo, table: pa.Table) -> Path:
    """Write ``root/NAME`` so that a reader, or a kill, sees the old dataset or the new one and nothing between.

    The bytes written depend on the arguments and the pinned pyarrow alone.

    Raises:
        QuickstudyError: it cannot be called so.
    """
    folder = root / check_name(info.name)
    root.mkdir(parents=True, exist_ok=True)
    # Beside the data root and not in it, so that DVC never sees a half-written dataset.
    draft = Path(tempfile.mkdtemp(prefix=f".{info.name}-", suffix=".part", dir=root.parent))
    old = None
    try:
        _write_examples(table, draft / FILE)
        text = yaml.safe_dump(info.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True, width=100)
        (draft / "dataset.yaml").write_text(text, encoding="utf-8")
        draft.chmod(0o755)
        for path in (draft / "dataset.yaml", draft):
            settle(path)
        remember_written(folder, draft / FILE)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{info.name}-old-", suffix=".part", dir=root.parent))
            os.replace(folder, old / info.name)
        os.replace(draft, folder)
        settle(root)
    except BaseException:  # Ctrl-C too
        if old is not None and not folder.exists():
            os.replace(old / info.name, folder)
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if old is not None and folder.exists():
            shutil.rmtree(old, ignore_errors=True)
    return folder


def write_examples(root: Path, name: str, table: pa.Table) -> None:
    """Write the examples of a dataset anew, one writer at a time; what dataset.yaml says of them stays.

    One file takes the place of another in one step, so that not even kill -9 leaves a project without the dataset.
    """
    part = root.parent / f".{name}.part"  # always the same, so that what a kill leaves is written over the next time
    try:
        _write_examples(table, part)
        remember_written(root / name, part)
        os.replace(part, root / name / FILE)
        settle(root / name)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_examples(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", row_group_size=4096, write_page_checksum=True)
    settle(path)


def read_dataset(folder: Path, columns: Sequence[str] | None = None, memory: Path | None = None) -> Dataset:
    """Open ``data/NAME``; the Parquet file is memory-mapped.

    Args:
        folder: of the dataset.
        columns: only these, of those it has: a dataset without its examples (`PLACES`) is open at once.
        memory: a folder that remembers the hashes of the examples.
    """
    try:
        text = (folder / "dataset.yaml").read_text(encoding="utf-8")
        info = DatasetInfo.model_validate(read_yaml(text))
        stored = stored_at(folder, memory)
        schema = pq.read_schema(stored.path, memory_map=True)
        wanted = [name for name in schema.names if columns is None or name in columns]
        # Names that come again and again are kept once, where the table is not to be written as it was.
        single = [name for name in wanted if not pa.types.is_nested(schema.field(name).type)]
        repeated = None if info.modality in wanted else single
        with pq.ParquetFile(
            stored.path, memory_map=True, read_dictionary=repeated, page_checksum_verification=True
        ) as file:
            table = file.read(wanted)
    except FileNotFoundError as error:
        raise QuickstudyError(
            "not a dataset, a file is missing", where=error.filename, fix="`quickstudy data list` shows what there is"
        ) from None
    except (ValidationError, yaml.YAMLError, pa.ArrowInvalid, OSError) as error:
        raise QuickstudyError(f"cannot be read ({error})", where=folder, fix="Import the dataset again") from None
    check_name(info.name, folder / "dataset.yaml")
    column, holds = TARGET_COLUMNS.get(info.kind, ("group", pa.string()))  # of an unknown kind nothing is asked
    missing = {info.modality, column, "group"} - set(schema.names)
    if missing:
        raise QuickstudyError(f"lacks the column {min(missing)!r}", where=folder / FILE, fix="Import the dataset again")
    if pa.types.is_nested(held := schema.field(column).type) != pa.types.is_nested(holds):
        what = f"the column {column!r} holds {held}, which are no targets of kind {info.kind}"
        raise QuickstudyError(what, where=folder / FILE, fix="Import the dataset again")
    return Dataset(info, table, stored)


def check_name(name: str, where: object = None) -> str:
    """Return the name, where it may be that of a dataset.

    Raises:
        QuickstudyError: else.
    """
    if not NAME.fullmatch(name):
        fix = "Use lower-case letters, digits, - and _, at most 64, and begin with a letter or digit"
        raise QuickstudyError(f"{name[:80]!r} cannot be the name of a dataset", where=where, fix=fix)
    return name


def dataset_names(root: Path) -> list[str]:
    """The datasets under the data root, sorted."""
    if not root.is_dir():
        return []
    return sorted(path.parent.name for path in root.glob("*/dataset.yaml"))
