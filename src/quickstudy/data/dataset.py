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


@dataclass(frozen=True)
class Dataset:
    """Examples with their labels, groups and domains; rows keep the order of the Parquet file."""

    info: DatasetInfo
    table: pa.Table

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

    def raw(self, rows: Sequence[int] | np.ndarray | slice | None = None) -> list[Any]:
        """The examples as stored: file bytes of an image or a recording, or the text. [len(rows)]"""
        column = self.table.column(self.modality)
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
    draft = Path(tempfile.mkdtemp(prefix=f".{info.name}-", dir=root.parent))
    old = None
    try:
        pq.write_table(table, draft / "examples.parquet", compression="zstd", row_group_size=4096)
        text = yaml.safe_dump(info.model_dump(exclude_none=True), sort_keys=False, allow_unicode=True, width=100)
        (draft / "dataset.yaml").write_text(text, encoding="utf-8")
        draft.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{info.name}-old-", dir=root.parent))
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


def read_dataset(folder: Path, columns: Sequence[str] | None = None) -> Dataset:
    """Open ``data/NAME``; the Parquet file is memory-mapped.

    Args:
        folder: of the dataset.
        columns: only these, of those it has: a dataset without its examples is open at once.
    """
    try:
        text = (folder / "dataset.yaml").read_text(encoding="utf-8")
        info = DatasetInfo.model_validate(yaml.safe_load(text))
        with pq.ParquetFile(folder / "examples.parquet", memory_map=True) as file:
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
    return Dataset(info, table)


def dataset_names(root: Path) -> list[str]:
    """The datasets under the data root, sorted."""
    if not root.is_dir():
        return []
    return sorted(path.parent.name for path in root.glob("*/dataset.yaml"))
