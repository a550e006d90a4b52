"""A dataset on disk: one Parquet file of examples and one YAML file that describes it.

    data/NAME/examples.parquet   columns: image|audio|text, label, group, and domain where there is one
    data/NAME/dataset.yaml       modality, licence, source, what a group and a domain are

The columns follow the Hugging Face convention (an image or audio cell is ``{bytes, path}``), so that
``datasets.load_dataset("parquet", data_files=...)`` reads ours and the importers read theirs.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from quickstudy.errors import QuickstudyError

Modality = Literal["image", "audio", "text"]
Split = Literal["train", "validation", "test"]
MODALITIES: tuple[Modality, ...] = ("image", "audio", "text")
MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class Reading(BaseModel):
    """How a source was read as a dataset, so that more examples can be read alike. None: as the source says itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    content: str | None = None
    """Column of texts, images or recordings."""
    label: str | None = None
    """Column of class names."""
    group: str | None = None
    """A column, a field of the pattern, a folder level, the name of a .json file, ``class`` or ``none``."""
    domain: str | None = None
    """A column, a field of the pattern or a folder level."""
    pattern: str | None = None
    """How file names are made."""
    levels: int | None = None
    """Folders above each file that say something: 1 of CLASS/file, 2 of GROUP/CLASS/file."""
    exclude: tuple[str, ...] = ()
    """Classes that are left out."""
    skip_bad: bool = False
    drop_duplicates: bool = False


class DatasetInfo(BaseModel):
    """What ``dataset.yaml`` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    modality: Modality
    kind: Literal["classify"] = "classify"
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
class Stored:
    """The Parquet file that a dataset was read from, and how to tell that it is still the same."""

    path: Path
    stamp: tuple[int, int, int]
    """size in bytes, time of the last change in nanoseconds, inode"""


@dataclass(frozen=True)
class Dataset:
    """Examples with their labels, groups and domains; rows keep the order of the Parquet file."""

    info: DatasetInfo
    table: pa.Table
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

    @cached_property
    def classes(self) -> list[str]:
        """Class names, sorted."""
        return sorted(set(self.column("label")))

    @cached_property
    def class_index(self) -> np.ndarray:
        """int64 [n]: the place of each row's label in ``classes``."""
        place = {name: i for i, name in enumerate(self.classes)}
        return np.array([place[label] for label in self.column("label")], dtype=np.int64)

    def column(self, name: str) -> list[str]:
        """A column of strings: label, group or domain."""
        return self.table.column(name).to_pylist()

    @cached_property
    def cells(self) -> pa.ChunkedArray:
        """The column of examples; of a dataset that was opened without them it is read now."""
        if self.stored is None or self.modality in self.table.column_names:
            return self.table.column(self.modality)
        try:
            with pq.ParquetFile(self.stored.path, memory_map=True) as file:
                return file.read([self.modality]).column(self.modality)
        except (pa.ArrowInvalid, OSError) as error:
            folder = self.stored.path.parent
            raise QuickstudyError(f"cannot be read ({error})", where=folder, fix="Import the dataset again") from None

    def raw(self, rows: Sequence[int] | np.ndarray | slice | None = None) -> list[Any]:
        """The examples as stored: file bytes of an image or a recording, or the text. [len(rows)]"""
        column = self.cells
        if isinstance(rows, slice):
            column = column.slice(rows.start or 0, (rows.stop or len(self)) - (rows.start or 0))
        elif rows is not None:
            column = column.take(pa.array(np.asarray(rows, dtype=np.int64)))
        cells = column.to_pylist()
        return cells if self.modality == "text" else [cell["bytes"] for cell in cells]


def make_table(
    modality: Modality,
    examples: Sequence[Any],
    labels: Sequence[str],
    groups: Sequence[str],
    domains: Sequence[str] | None = None,
    paths: Sequence[str | None] | None = None,
) -> pa.Table:
    """Arrange examples (file bytes, or strings for text) in the columns of a dataset."""
    if modality == "text":
        cells = pa.array(examples, pa.string())
        feature: dict[str, Any] = {"dtype": "string", "_type": "Value"}
    else:
        names = paths if paths is not None else [None] * len(examples)
        cells = pa.array([{"bytes": b, "path": p} for b, p in zip(examples, names, strict=True)], MEDIA)
        feature = {"_type": modality.capitalize()}
    columns: dict[str, pa.Array] = {modality: cells, "label": pa.array(labels, pa.string())}
    columns["group"] = pa.array(groups, pa.string())
    if domains is not None:
        columns["domain"] = pa.array(domains, pa.string())
    table = pa.table(columns)
    features = {name: {"dtype": "string", "_type": "Value"} for name in columns} | {modality: feature}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_dataset(root: Path, info: DatasetInfo, table: pa.Table) -> Path:
    """Write ``root/NAME`` so that a reader, or a kill, sees the old dataset or the new one and nothing between.

    The bytes written depend on the arguments and the pinned pyarrow alone.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = root / info.name
    # Beside the data root and not in it, so that DVC never sees a half-written dataset.
    draft = Path(tempfile.mkdtemp(prefix=f".{info.name}-", suffix=".part", dir=root.parent))
    old = None
    try:
        _write_examples(table, draft / "examples.parquet")
        text = yaml.safe_dump(info.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True, width=100)
        (draft / "dataset.yaml").write_text(text, encoding="utf-8")
        draft.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{info.name}-old-", suffix=".part", dir=root.parent))
            os.replace(folder, old / info.name)
        os.replace(draft, folder)
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
        os.replace(part, root / name / "examples.parquet")
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_examples(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression="zstd", row_group_size=4096)


def read_dataset(folder: Path, columns: Sequence[str] | None = None) -> Dataset:
    """Open ``data/NAME``; the Parquet file is memory-mapped.

    Args:
        folder: of the dataset.
        columns: only these, of those it has: a dataset without its examples is open at once.
    """
    try:
        text = (folder / "dataset.yaml").read_text(encoding="utf-8")
        info = DatasetInfo.model_validate(yaml.safe_load(text))
        stored = stored_at(folder)
        with pq.ParquetFile(stored.path, memory_map=True) as file:
            names = file.schema_arrow.names
            table = file.read([name for name in names if columns is None or name in columns])
    except FileNotFoundError as error:
        raise QuickstudyError(
            "not a dataset, a file is missing", where=error.filename, fix="`quickstudy data list` shows what there is"
        ) from None
    except (ValidationError, yaml.YAMLError, pa.ArrowInvalid, OSError) as error:
        raise QuickstudyError(f"cannot be read ({error})", where=folder, fix="Import the dataset again") from None
    missing = {info.modality, "label", "group"} - set(names)
    if missing:
        raise QuickstudyError(
            f"lacks the column {min(missing)!r}", where=folder / "examples.parquet", fix="Import the dataset again"
        )
    return Dataset(info, table, stored)


def stored_at(folder: Path) -> Stored:
    """The Parquet file in a dataset's folder, as it is now."""
    path = folder / "examples.parquet"
    now = path.stat()
    return Stored(path, (now.st_size, now.st_mtime_ns, now.st_ino))


def dataset_names(root: Path) -> list[str]:
    """The datasets under the data root, sorted."""
    if not root.is_dir():
        return []
    return sorted(path.parent.name for path in root.glob("*/dataset.yaml"))
