"""Examples as rows: CSV, TSV, JSON Lines, JSON, and Parquet in the Hugging Face layout."""

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from sys import intern
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import Files
from quickstudy.ingest.importers.rows import Rows, Wanted

CONTENT_COLUMNS = {
    "text": ("text", "sentence", "utterance", "query", "question", "content", "review", "message", "document", "title"),
    "image": ("image", "img", "picture"),
    "audio": ("audio", "recording", "speech"),
}
LABEL_COLUMNS = ("label_text", "label", "intent", "class", "category", "labels", "target", "topic", "sentiment")
MAX_ROWS = 5_000_000
MAX_LINE = 16 << 20  # bytes
_ABOUT_TEXT = "Name it by --text"
_ABOUT_LABEL = "Name it by --label"


@dataclass(frozen=True)
class Table:
    """A table being read: the columns it has, and rows as they come, each with its place ("line 7")."""

    columns: list[str]
    rows: Iterator[tuple[str, dict[str, Any]]]
    class_names: dict[str, list[str]]
    """Columns that hold numbers which stand for names."""
    media: list[str]
    """Columns of binary cells."""


def table_paths(files: Files) -> list[str]:
    """The files that hold tables. JSON beside other tables is about them, and Parquet stands alone."""
    by_suffix = {path: PurePosixPath(path).suffix.lower() for path in files.paths}
    tables = [path for path, suffix in by_suffix.items() if suffix in _READERS]
    for alone in ({".parquet"}, {".csv", ".tsv", ".jsonl", ".ndjson"}):
        if chosen := [path for path in tables if by_suffix[path] in alone]:
            return chosen
    if len(tables) > 1:
        what = f"holds {len(tables)} JSON files: {_listed(tables)}"
        raise QuickstudyError(what, where=files.source, fix="Name the one that holds the examples")
    return tables


def media_column(files: Files, path: str) -> str | None:
    """The modality that the binary cells of a Parquet file have by its column names, if there are such cells."""
    if not path.endswith(".parquet"):
        return None
    with files.open(path) as handle:
        table = _read_parquet(handle, files.place(path))
        for modality in ("image", "audio"):
            if any(name.lower() in CONTENT_COLUMNS[modality] for name in table.media):
                return modality
        return "image" if table.media else None


def read_tables(files: Files, paths: list[str], modality: str, wanted: Wanted) -> Rows:
    """Read tables one after the other as one dataset; a publisher's train, valid and test files are joined.

    Raises:
        QuickstudyError: for a file that cannot be read as what its suffix says, or that lacks a column. What is wrong
            with single rows is in ``Rows.bad``.
    """
    rows = Rows(modality)
    seen = 0
    for path in paths:
        place = files.place(path)
        with files.open(path) as handle:
            table = _READERS[PurePosixPath(path).suffix.lower()](handle, place)
            pick = _pick_columns(table, modality, wanted, rows, place)
            for at, record in table.rows:
                seen += 1
                if seen > MAX_ROWS:
                    raise QuickstudyError(f"more than {MAX_ROWS:,} rows", where=place, fix="Import a part of it")
                try:
                    content, label, group, domain = pick(record)
                    rows.check_content(content)
                except QuickstudyError as error:
                    rows.refuse(f"{place}, {at}", error)
                    continue
                files.count(len(content))
                rows.add(content, label, f"{path}, {at}", seen)
                if group is not None:
                    rows.groups.append(intern(group))
                if domain is not None:
                    rows.domains.append(intern(domain))
                if seen % 256 == 0:
                    wanted.progress(seen, 0)
    wanted.progress(seen, seen)
    for what, column in (("group", rows.groups), ("domain", rows.domains)):
        if column and len(column) != len(rows.contents):
            where = files.source
            raise QuickstudyError(f"some of its files have a {what} column and some have none", where=where)
    return rows


def read_lines(files: Files, path: str) -> Rows:
    """A text file of which each line is an example without a class; blank lines are skipped."""
    rows = Rows("text")
    with files.open(path) as handle:
        for number, line in enumerate(_lines(handle, files.place(path)), 1):
            if line.strip():
                rows.add(line.strip(), "", f"{path}, line {number}", number)
    return rows


# Columns


def _pick_columns(
    table: Table, modality: str, wanted: Wanted, rows: Rows, place: str
) -> Callable[[dict[str, Any]], tuple[Any, str, str | None, str | None]]:
    """How to take content, label, group and domain out of a row of this table."""
    if twice := [name for name, count in Counter(table.columns).items() if count > 1]:
        raise QuickstudyError(f"two columns are named {twice[0]!r}", where=place, fix="Rename one")
    if modality == "text":
        content = _find(table.columns, wanted.content, CONTENT_COLUMNS["text"], "text", place, _ABOUT_TEXT)
    else:
        only = table.media[0] if len(table.media) == 1 and wanted.content is None else wanted.content
        content = _find(table.columns, only, CONTENT_COLUMNS[modality], modality, place, "Name it by --content")
    others = [name for name in table.columns if name != content]
    label: str | None = None
    if wanted.labelled or wanted.label is not None or any(name.lower() in LABEL_COLUMNS for name in others):
        label = _find(others, wanted.label, LABEL_COLUMNS, "label", place, _ABOUT_LABEL)
    group = _group_column(others, label, wanted, place)
    domain = None
    if wanted.domain is not None:
        domain = _find(others, wanted.domain, (), "domain", place, "")
    elif _is_ours(table) and "domain" in others:
        domain = "domain"
    rows.group_word, rows.group_rule = group or "group", group
    rows.domain_word = rows.domain_rule = domain
    rows.content_columns.add(content)
    rows.label_columns.update([] if label is None else [label])

    def name(record: dict[str, Any], column: str) -> str:
        if not wanted.labelled and record[column] in (None, ""):
            return ""
        return _name(record[column], column, table.class_names.get(column))

    def pick(record: dict[str, Any]) -> tuple[Any, str, str | None, str | None]:
        cell = record[content]
        if modality != "text" and isinstance(cell, dict):
            if cell.get("bytes") is None and cell.get("path") is not None:
                raise QuickstudyError(f"the cell names the file {cell['path']!r} and does not hold it")
            cell = cell.get("bytes")
        return (
            cell,
            "" if label is None else name(record, label),
            None if group is None else name(record, group),
            None if domain is None else name(record, domain),
        )

    return pick


def _find(columns: list[str], named: str | None, known: Sequence[str], what: str, place: str, fix: str) -> str:
    if named is not None:
        if named in columns:
            return named
        raise QuickstudyError(f"no column {named!r}", where=place, fix=f"It has {_listed(columns) or 'no other'}")
    lower = {name.lower().strip(): name for name in reversed(columns)}
    for name in known:
        if name in lower:
            return lower[name]
    raise QuickstudyError(f"no {what} column among {_listed(columns)}", where=place, fix=fix)


def _group_column(columns: list[str], label: str | None, wanted: Wanted, place: str) -> str | None:
    if wanted.group is None:
        return "group" if "group" in columns else None
    if wanted.group in columns and wanted.group != label:
        return wanted.group
    if wanted.group in ("class", "none") or wanted.group.endswith(".json") or wanted.group == label:
        return None
    fix = f"It has {_listed(columns)}"
    raise QuickstudyError(f"no column {wanted.group!r}", where=place, fix=fix)


def _is_ours(table: Table) -> bool:
    """Whether the columns are those of a quickstudy dataset. In other people's tables "domain" means anything."""
    return bool({"text", "image", "audio"} & set(table.columns)) and {"label", "group"} <= set(table.columns)


def _listed(columns: list[str]) -> str:
    return ", ".join(repr(name) for name in columns[:20]) + (", …" if len(columns) > 20 else "")


def _name(value: Any, column: str, names: list[str] | None) -> str:
    """A cell that names a class, group or domain, as a string."""
    if names is not None and isinstance(value, int):
        if not 0 <= value < len(names):
            raise QuickstudyError(f"the {column} is {value}, outside the {len(names)} names of the schema")
        return names[value]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise QuickstudyError(f"the {column} is missing")
    if not isinstance(value, str | int | float):
        raise QuickstudyError(f"the {column} is {str(value)[:40]!r}, not a single name")
    if not str(value).strip():
        raise QuickstudyError(f"the {column} is empty")
    return str(value)


# Readers: (handle, place) -> Table


def _lines(handle: BinaryIO, place: str) -> Iterator[str]:
    """The lines of a text file, decoded one by one so that a bad byte has a line number."""
    number = 0
    while line := handle.readline(MAX_LINE + 1):
        number += 1
        if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise QuickstudyError("UTF-16, not UTF-8", where=place, fix=_RECODE.format("UTF-16"))
        if len(line) > MAX_LINE:
            raise QuickstudyError(f"line {number} is longer than {MAX_LINE >> 20} MB", where=place)
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            what = f"line {number} is not UTF-8 (byte {line[error.start]:#04x})"
            raise QuickstudyError(what, where=place, fix=_RECODE.format("WINDOWS-1252")) from None


_RECODE = "Save it as UTF-8, for example by `iconv -f {} -t UTF-8 OLD > NEW`"


def _read_csv(handle: BinaryIO, place: str) -> Table:
    lines = _lines(handle, place)
    first = next(lines, "")
    # A spreadsheet writes ; where , is the decimal mark.
    delimiter = max(",;\t", key=first.count)
    return _delimited(csv.reader(_again(first, lines), delimiter=delimiter, strict=True), place)


def _read_tsv(handle: BinaryIO, place: str) -> Table:
    # Many a .tsv holds bare quotes; a field is unquoted only where it is quoted as a whole.
    reader = csv.reader(_lines(handle, place), delimiter="\t", quoting=csv.QUOTE_NONE)
    return _delimited(reader, place, lambda field: _unquoted(field))


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    whole = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else field


def _delimited(reader: Any, place: str, clean: Callable[[str], str] = lambda field: field) -> Table:
    def rows() -> Iterator[tuple[int, list[str]]]:
        while True:
            begin = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                at = f"the row that begins in line {begin} cannot be read ({error})"
                raise QuickstudyError(at, where=place, fix="Check its quotes") from None
            if row:
                yield begin, row

    numbered = rows()
    header = next(numbered, None)
    if header is None:
        raise QuickstudyError("empty", where=place, fix="The first line names the columns, text,label for example")
    columns = [clean(name) for name in header[1]]

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for begin, row in numbered:
            if len(row) != len(columns):
                yield f"line {begin}", _Broken(f"{len(row)} fields, the header has {len(columns)}")
            else:
                yield f"line {begin}", dict(zip(columns, map(clean, row), strict=True))

    return Table(columns, records(), {}, [])


class _Broken(dict):
    """A row of the wrong shape: whatever is taken from it, it says so."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def __missing__(self, key: str) -> Any:
        raise QuickstudyError(self.what)


def _read_jsonl(handle: BinaryIO, place: str) -> Table:
    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for number, line in enumerate(_lines(handle, place), 1):
            if line.strip():
                yield f"line {number}", _record(_parse(line, f"{place}, line {number}"))

    rows = records()
    first = next(rows, None)
    fix = 'Every line is an object: {"text": "…", "label": "…"}'
    if first is None:
        raise QuickstudyError("empty", where=place, fix=fix)
    if isinstance(first[1], _Broken):
        raise QuickstudyError(first[1].what, where=f"{place}, {first[0]}", fix=fix)

    def all_rows() -> Iterator[tuple[str, dict[str, Any]]]:
        yield first
        yield from rows

    return Table(list(first[1]), all_rows(), {}, [])


def _record(value: Any) -> dict[str, Any]:
    return _Object(value) if isinstance(value, dict) else _Broken(f"{str(value)[:40]!r} is no object with named fields")


class _Object(dict):
    """A JSON object, in which a field may be missing."""

    def __missing__(self, key: str) -> Any:
        return None


def _parse(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = f"not JSON ({error.msg}, line {error.lineno} column {error.colno})"
        raise QuickstudyError(what, where=place, fix="Mend or download it again") from None
    except RecursionError:
        raise QuickstudyError("JSON nested too deeply", where=place) from None


def _read_json(handle: BinaryIO, place: str) -> Table:
    """JSON of one of these shapes.

    [{"text": …, "label": …}, …]      rows
    {KEY: [[text, label], …], …}      rows in named parts, as CLINC150 has them; the column ``split`` holds the key
    {CLASS: [text, …], …}             texts by class
    {CLASS: [{"tokens": […]}, …], …}  tokenised texts by class, as FewRel has them
    """
    value = _parse("".join(_lines(handle, place)), place)
    shapes = 'It may be a list of objects, {"PART": [[text, label], …]} or {"CLASS": [text, …]}'
    if isinstance(value, list) and value:
        records = [_record(item) for item in value]
        if isinstance(records[0], _Broken):
            raise QuickstudyError(records[0].what, where=f"{place}, row 1", fix=shapes)
        return Table(list(records[0]), ((f"row {i}", record) for i, record in enumerate(records, 1)), {}, [])
    if not isinstance(value, dict) or not value or not all(isinstance(part, list) for part in value.values()):
        raise QuickstudyError("JSON of no known shape", where=place, fix=shapes)
    items = [(key, number, item) for key, part in value.items() for number, item in enumerate(part, 1)]
    rows = ((f"{key} row {number}", _keyed(key, item)) for key, number, item in items)
    columns = ["text", "label", "split"] if items and isinstance(items[0][2], list) else ["text", "label"]
    return Table(columns, rows, {}, [])


def _keyed(key: str, item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"text": item, "label": key, "split": None}
    if isinstance(item, list) and len(item) == 2:
        return {"text": item[0], "label": item[1], "split": key}
    if isinstance(item, dict) and isinstance(tokens := item.get("tokens"), list):
        return {"text": " ".join(map(str, tokens)), "label": key, "split": None}
    return _Broken(f"{str(item)[:40]!r} is neither a text nor [text, label]")


def _read_parquet(handle: BinaryIO, place: str) -> Table:
    try:
        file = pq.ParquetFile(handle)
    except (pa.ArrowException, OSError) as error:
        what = f"not complete Parquet ({' '.join(str(error).split())[:100]})"
        raise QuickstudyError(what, where=place, fix="Download it again") from None
    schema = file.schema_arrow
    media = [field.name for field in schema if _holds_bytes(field.type)]

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        number = 0
        try:
            for batch in file.iter_batches(batch_size=64 if media else 4096):
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record
        except (pa.ArrowException, OSError) as error:
            what = f"damaged after row {number} ({' '.join(str(error).split())[:100]})"
            raise QuickstudyError(what, where=place, fix="Download it again") from None

    return Table(schema.names, records(), _class_names(schema), media)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names behind numbers, from the note that Hugging Face's datasets leaves in the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(item) for item in feature["names"]]
            for name, feature in features.items()
            if feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


_READERS: dict[str, Callable[[BinaryIO, str], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
