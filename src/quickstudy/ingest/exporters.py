"""A dataset as other tools read it: Label Studio, JSON Lines, CSV, folders of images or recordings.

Texts are one file. Of images and recordings the files are written as they came in, beside a table that names them; what
is written is read by `quickstudy data import` again. Examples are read batch by batch, so that they need not fit in
memory, and all appears at once or not at all.
"""

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.data.dataset import BATCH, Dataset
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import PLAIN, targets_of
from quickstudy.system.atomic import draft

Progress = Callable[[int, int], None]

FORMATS = ("label-studio", "jsonl", "csv", "imagefolder")
SEPARATORS = (";", "|", "\t", "§")
"""Between the tags in a cell of CSV: the first that is in none of them."""


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    examples: int
    again: str
    """The options by which `quickstudy data import` reads it as it was."""


def export(
    dataset: Dataset, form: str, out: Path | None = None, progress: Progress = lambda done, total: None
) -> Exported:
    """Write a dataset for another tool.

    Args:
        dataset: with its examples, which may lie in their file.
        form: one of `FORMATS`.
        out: the file, or of images and recordings the folder; None for one called as the dataset.
        progress: told (done, total).

    Raises:
        QuickstudyError: there is no such form, the dataset cannot be written as it, or there is something already.
    """
    if form not in FORMATS:
        raise QuickstudyError(f"no format {form!r}", where="--format", fix=f"There are {', '.join(FORMATS)}")
    targets_of(dataset.info.kind, dataset.name)
    is_text = dataset.modality == "text"
    if form == "imagefolder" and is_text:
        fix = "Texts are written by --format jsonl, csv or label-studio"
        raise QuickstudyError("holds texts, and no files", where=dataset.name, fix=fix)
    suffix = {"label-studio": ".json", "csv": ".csv", "jsonl": ".jsonl"}.get(form, "")
    path = out or Path(f"{dataset.name}{suffix}" if is_text else f"{dataset.name}-{form}")
    if os.path.lexists(path):
        raise QuickstudyError("there is something already", where=path, fix="Remove it, or name another --out")
    rows = _rows(dataset, progress)
    again = _again(dataset, form)
    if is_text:
        with draft(path) as part, part.open("w", encoding="utf-8", newline="") as file:
            _WRITERS[form](file, dataset, rows)
        return Exported(path, len(dataset), again)
    with _new_folder(path) as folder:
        if form == "imagefolder" and _folders_say_all(dataset):
            _class_folders(folder, rows)
            return Exported(path, len(dataset), "" if _has_plain_classes(dataset) else again)
        name = {"label-studio": "tasks.json", "csv": "metadata.csv"}.get(form, "metadata.jsonl")
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            _WRITERS["jsonl" if form == "imagefolder" else form](file, dataset, _with_files(folder, rows))
    return Exported(path, len(dataset), again)


@dataclass(frozen=True)
class _Row:
    """An example on its way out."""

    number: int
    content: Any
    """A text, or the bytes of a file."""
    file: str | None
    """What the file was called, where it is known; then, where it is now."""
    target: Any
    group: str
    domain: str | None


def _rows(dataset: Dataset, progress: Progress) -> Iterator[_Row]:
    column, modality = targets_of(dataset.info.kind).COLUMN, dataset.modality
    number = 0
    for batch in _batches(dataset):
        targets, groups = batch.column(column).to_pylist(), batch.column("group").to_pylist()
        domains = [None] * len(batch) if dataset.info.domain is None else batch.column("domain").to_pylist()
        cells = batch.column(modality).to_pylist()
        for cell, target, group, domain in zip(cells, targets, groups, domains, strict=True):
            number += 1
            content, path = (cell, None) if modality == "text" else (cell["bytes"], cell["path"])
            yield _Row(number, content, path, target, group, domain)
        progress(number, len(dataset))


def _batches(dataset: Dataset) -> Iterator[pa.RecordBatch]:
    if dataset.stored is None or dataset.modality in dataset.table.column_names:
        yield from dataset.table.to_batches(BATCH)
        return
    with pq.ParquetFile(dataset.stored.path, memory_map=True) as file:
        yield from file.iter_batches(BATCH)


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder that takes its place when the body ends, or goes with it when the body fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}-", suffix=".part", dir=path.parent))
    try:
        folder.chmod(0o755)
        yield folder
        os.rename(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Files


def _suffix(content: bytes, modality_path: str | None) -> str:
    """Of a file: the one that it had, else what its first bytes say."""
    known = PurePosixPath(modality_path or "").suffix.lower()
    if known and known[1:].isalnum():
        return known
    for begin, suffix in _MAGIC:
        if content.startswith(begin):
            return suffix
    return ".bin"


_MAGIC = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\0", ".tif"),
    (b"MM\0*", ".tif"),
    (b"fLaC", ".flac"),
    (b"OggS", ".ogg"),
    (b"ID3", ".mp3"),
    (b"RIFF", ".wav"),
)


def _with_files(folder: Path, rows: Iterator[_Row]) -> Iterator[_Row]:
    """Write the file of each row into ``files/``, numbered."""
    (folder / "files").mkdir()
    for row in rows:
        name = f"files/{row.number:06}{_suffix(row.content, row.file)}"
        (folder / name).write_bytes(row.content)
        yield _Row(row.number, None, name, row.target, row.group, row.domain)


def _folders_say_all(dataset: Dataset) -> bool:
    """Whether the names of folders can say each target and, where there are any, its group."""
    if dataset.info.kind != PLAIN or dataset.info.domain is not None:
        return False
    if _has_plain_classes(dataset):
        return True
    classes, groups = dataset.column("label"), dataset.column("group")
    return all(
        _is_folder_name(group) and name.startswith(f"{group}/") and _is_folder_name(name[len(group) + 1 :])
        for name, group in set(zip(classes, groups, strict=True))
    )


def _has_plain_classes(dataset: Dataset) -> bool:
    return dataset.info.group in ("class", "dataset") and all(map(_is_folder_name, dataset.classes))


def _is_folder_name(name: str) -> bool:
    """Whether a folder may be called so on every system, and is none that an import leaves out."""
    if name != name.strip() or name.startswith(".") or name in ("", "__MACOSX") or len(name.encode()) > 200:
        return False
    return all(one.isprintable() and one not in '/\\:<>|"?*' for one in name)


def _class_folders(folder: Path, rows: Iterator[_Row]) -> None:
    for row in rows:
        own = folder / row.target
        own.mkdir(parents=True, exist_ok=True)
        (own / f"{row.number:06}{_suffix(row.content, row.file)}").write_bytes(row.content)


# Tables


def _fields(dataset: Dataset, row: _Row) -> dict[str, Any]:
    """Of a table: the text or the file, the target, the group and the domain."""
    example = {"text": row.content} if dataset.modality == "text" else {"file_name": row.file}
    fields = {**example, targets_of(dataset.info.kind).COLUMN: row.target}
    if dataset.info.group not in ("class", "dataset"):
        fields["group"] = row.group
    return fields if row.domain is None else {**fields, "domain": row.domain}


def _write_jsonl(file: TextIO, dataset: Dataset, rows: Iterator[_Row]) -> None:
    for row in rows:
        file.write(json.dumps(_fields(dataset, row), ensure_ascii=False) + "\n")


def _write_csv(file: TextIO, dataset: Dataset, rows: Iterator[_Row]) -> None:
    separator = _separator(dataset)
    writer: Any = None
    for row in rows:
        fields = _fields(dataset, row)
        if writer is None:
            writer = csv.writer(file)
            writer.writerow(fields)
        writer.writerow(separator.join(cell) if isinstance(cell, list) else cell for cell in fields.values())


def _separator(dataset: Dataset) -> str:
    names = targets_of(dataset.info.kind).names(dataset)
    for separator in SEPARATORS:
        if not any(separator in name for name in names):
            return separator
    fix = "Write it by --format jsonl, which has lists"
    raise QuickstudyError("every sign that could separate its tags is in one of them", where=dataset.name, fix=fix)


def _write_label_studio(file: TextIO, dataset: Dataset, rows: Iterator[_Row]) -> None:
    """Tasks with their annotations; the field of the labels is called as the column is in a dataset."""
    targets, key = targets_of(dataset.info.kind), dataset.modality
    file.write("[")
    for row in rows:
        # Files lie below Label Studio's local root (LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT), in this folder.
        data: dict[str, Any] = {key: row.content if key == "text" else f"/data/local-files/?d={row.file}"}
        data |= {} if dataset.info.group in ("class", "dataset") else {"group": row.group}
        data |= {} if row.domain is None else {"domain": row.domain}
        chosen = row.target if isinstance(row.target, list) else [row.target]
        result = {"from_name": targets.COLUMN, "to_name": key, "type": "choices", "value": {"choices": chosen}}
        task = {"id": row.number, "data": data, "annotations": [{"result": [result]}]}
        file.write(("," if row.number > 1 else "") + "\n" + json.dumps(task, ensure_ascii=False))
    file.write("\n]\n")


_WRITERS: dict[str, Callable[[TextIO, Dataset, Iterator[_Row]], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "label-studio": _write_label_studio,
}


def _again(dataset: Dataset, form: str) -> str:
    """The options that read it again as it was."""
    options = [] if dataset.info.kind == PLAIN else [f"--kind {dataset.info.kind}"]
    if form == "csv" and dataset.info.kind != PLAIN:
        options.append(f"--separator '{_separator(dataset)}'")
    if dataset.info.group in ("class", "dataset"):
        options.append(f"--group {'class' if dataset.info.group == 'class' else 'none'}")
    else:
        options.append("--group group")
    if dataset.info.domain is not None:
        options.append("--domain domain")
    return " ".join(options)
