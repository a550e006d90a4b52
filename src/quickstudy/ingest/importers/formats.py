"""Files of tables: CSV, TSV, JSON, JSON Lines and Parquet, each read row by row."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.errors import QuickstudyError

MAX_ROWS = 5_000_000
MAX_LINE = 16 << 20  # bytes


@dataclass(frozen=True)
class Table:
    """A table being read: the columns it has, and rows as they come, each with its place ("line 7")."""

    columns: list[str]
    rows: Iterator[tuple[str, dict[str, Any]]]
    class_names: dict[str, list[str]]
    """Columns that hold numbers which stand for names."""
    media: list[str]
    """Columns of binary cells."""
    samples: dict[str, Any]
    """Of columns that hold more than texts, what shows what they hold: a cell, or [] of lists."""


def decoded_lines(handle: BinaryIO, place: str) -> Iterator[str]:
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
    lines = decoded_lines(handle, place)
    first = next(lines, "")
    # A spreadsheet writes ; where , is the decimal mark.
    delimiter = max(",;\t", key=first.count)
    return _delimited(csv.reader(_again(first, lines), delimiter=delimiter, strict=True), place)


def _read_tsv(handle: BinaryIO, place: str) -> Table:
    # Many a .tsv holds bare quotes; a field is unquoted only where it is quoted as a whole.
    reader = csv.reader(decoded_lines(handle, place), delimiter="\t", quoting=csv.QUOTE_NONE)
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

    return Table(columns, records(), {}, [], {})


class _Broken(dict):
    """A row of the wrong shape: whatever is taken from it, it says so."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def __missing__(self, key: str) -> Any:
        raise QuickstudyError(self.what)


def _read_jsonl(handle: BinaryIO, place: str) -> Table:
    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for number, line in enumerate(decoded_lines(handle, place), 1):
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

    return Table(list(first[1]), all_rows(), {}, [], first[1])


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
    value = _parse("".join(decoded_lines(handle, place)), place)
    shapes = 'It may be a list of objects, {"PART": [[text, label], …]} or {"CLASS": [text, …]}'
    if isinstance(value, list) and value:
        records = [_record(item) for item in value]
        if isinstance(records[0], _Broken):
            raise QuickstudyError(records[0].what, where=f"{place}, row 1", fix=shapes)
        rows = ((f"row {i}", record) for i, record in enumerate(records, 1))
        return Table(list(records[0]), rows, {}, [], records[0])
    if not isinstance(value, dict) or not value or not all(isinstance(part, list) for part in value.values()):
        raise QuickstudyError("JSON of no known shape", where=place, fix=shapes)
    items = [(key, number, item) for key, part in value.items() for number, item in enumerate(part, 1)]
    rows = ((f"{key} row {number}", _keyed(key, item)) for key, number, item in items)
    columns = ["text", "label", "split"] if items and isinstance(items[0][2], list) else ["text", "label"]
    return Table(columns, rows, {}, [], _keyed(items[0][0], items[0][2]) if items else {})


def _keyed(key: str, item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"text": item, "label": key, "split": None}
    if isinstance(item, list) and len(item) == 2:
        return {"text": item[0], "label": item[1], "split": key}
    if isinstance(item, dict) and isinstance(tokens := item.get("tokens"), list):
        return {"text": " ".join(map(str, tokens)), "label": key, "split": None}
    return _Broken(f"{str(item)[:40]!r} is neither a text nor [text, label]")


def read_parquet(handle: BinaryIO, place: str) -> Table:
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

    lists = [field.name for field in schema if pa.types.is_list(field.type) or pa.types.is_large_list(field.type)]
    return Table(schema.names, records(), _class_names(schema), media, {name: [] for name in lists})


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names behind numbers, from the note that Hugging Face's datasets leaves in the schema."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: _names_of(feature) for name, feature in features.items()}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}
    return {name: names for name, names in found.items() if names is not None}


def _names_of(feature: Any) -> list[str] | None:
    """Of a ClassLabel its names, and of lists of them: [ClassLabel], Sequence or List with a feature ClassLabel."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names_of(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _names_of(feature.get("feature"))
    return [str(name) for name in feature["names"]] if feature.get("_type") == "ClassLabel" else None


READERS: dict[str, Callable[[BinaryIO, str], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": read_parquet,
}
