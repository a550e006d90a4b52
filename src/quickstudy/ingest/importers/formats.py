"""Files of tables: CSV, TSV, JSON, JSON Lines and Parquet, each read row by row."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import MAX_RATIO, MAX_TOTAL, RATIO_COUNTS_FROM

MAX_ROWS = 5_000_000
MAX_LINE = 16 << 20  # bytes
MAX_JSON = 256 << 20  # bytes of a JSON file, which is read as a whole: as objects it takes several times that
MAX_VALUES = 200_000_000  # of a Parquet file: numbers and texts in all columns, those in lists as well
AT_ONCE = 64 << 20  # bytes of rows that are objects at once, where one row has not more
PER_CELL = 64  # bytes of an object, about
_SPLIT = "Import a part of it"


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


def decoded_lines(handle: BinaryIO, place: str, most: int = MAX_TOTAL) -> Iterator[str]:
    """The lines of a text file, decoded one by one so that a bad byte has a line number."""
    number = total = 0
    while line := handle.readline(MAX_LINE + 1):
        number += 1
        if number == 1 and line.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise QuickstudyError("UTF-16, not UTF-8", where=place, fix=_RECODE.format("UTF-16"))
        if len(line) > MAX_LINE:
            raise QuickstudyError(f"line {number} is longer than {MAX_LINE >> 20} MB", where=place)
        total += len(line)
        if total > most:
            raise QuickstudyError(f"holds more than {most >> 20} MB", where=place, fix=_SPLIT)
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
    value = _parse("".join(decoded_lines(handle, place, MAX_JSON)), place)
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
    """Rows of a Parquet file. Texts and bytes are read as numbers of a dictionary, where the file has them so: a file
    of a kilobyte may stand for a megabyte in each of a million rows. They are counted before they are made."""
    try:
        file = pq.ParquetFile(handle, page_checksum_verification=True)
        _check_parquet(file.metadata, place)
        encodings = _encodings(file)
        coded = [path for path, used in encodings.items() if any(one.endswith("_DICTIONARY") for one in used)]
        a_few = any("DELTA_BYTE_ARRAY" in used for used in encodings.values())  # a text as what it adds to the last one
        file = pq.ParquetFile(handle, page_checksum_verification=True, read_dictionary=coded)
    except (pa.ArrowException, OSError) as error:
        what = f"not complete Parquet ({' '.join(str(error).split())[:100]})"
        raise QuickstudyError(what, where=place, fix="Download it again") from None
    schema = file.schema_arrow
    media = [field.name for field in schema if _holds_bytes(field.type)]

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        number = total = 0
        try:
            for batch in file.iter_batches(batch_size=64 if media or a_few else 4096):
                size = _size(pa.StructArray.from_arrays(batch.columns, batch.schema.names))
                total += size
                if total > MAX_TOTAL:
                    raise QuickstudyError(f"holds more than {MAX_TOTAL >> 20} MB", where=place, fix=_SPLIT)
                step = batch.num_rows if size <= AT_ONCE else 1
                for start in range(0, batch.num_rows, step):
                    for record in batch.slice(start, step).to_pylist():
                        number += 1
                        yield f"row {number}", record
        except (pa.ArrowException, OSError) as error:
            what = f"damaged after row {number} ({' '.join(str(error).split())[:100]})"
            raise QuickstudyError(what, where=place, fix="Download it again") from None

    lists = [field.name for field in schema if pa.types.is_list(field.type) or pa.types.is_large_list(field.type)]
    return Table(schema.names, records(), _class_names(schema), media, {name: [] for name in lists})


def _encodings(file: pq.ParquetFile) -> dict[str, set[str]]:
    """Of each column of texts or bytes how it is written."""
    found: dict[str, set[str]] = {}
    for i in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(i)
        for column in map(group.column, range(group.num_columns)):
            if column.physical_type == "BYTE_ARRAY":
                found.setdefault(column.path_in_schema, set()).update(column.encodings)
    return found


def _check_parquet(about: Any, place: str) -> None:
    """Refuse what the file says of itself, before any of it is read."""
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    if about.num_rows > MAX_ROWS:
        raise QuickstudyError(f"more than {MAX_ROWS:,} rows", where=place, fix=_SPLIT)
    size, packed = (
        sum(max(0, getattr(one, f"total_{what}_size")) for one in columns) for what in ("uncompressed", "compressed")
    )
    if size > MAX_TOTAL or sum(column.num_values for column in columns) > MAX_VALUES:
        what = f"holds more than {MAX_TOTAL >> 20} MB or {MAX_VALUES:,} values"
        raise QuickstudyError(what, where=place, fix=_SPLIT)
    if size > RATIO_COUNTS_FROM and size > MAX_RATIO * packed:
        what = f"unpacks to more than {MAX_RATIO} times its size, as files made to fill a memory do"
        raise QuickstudyError(what, where=place, fix="If you trust it, write it again without compression")


def _size(array: pa.Array) -> int:
    """Bytes of what an array's cells are as Python objects, about."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        lengths = pc.fill_null(pc.binary_length(array.dictionary), 0) if _is_text(kind.value_type) else None
        if lengths is None:
            return PER_CELL * len(array)
        return PER_CELL * len(array) + int(pc.sum(lengths.take(array.indices.drop_null())).as_py() or 0)
    if pa.types.is_struct(kind):
        return PER_CELL * len(array) + sum(_size(part) for part in array.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        return PER_CELL * len(array) + _size(array.flatten() if not pa.types.is_map(kind) else array.items)
    if _is_text(kind):
        return PER_CELL * len(array) + int(pc.sum(pc.binary_length(array)).as_py() or 0)
    return PER_CELL * len(array)


def _is_text(kind: pa.DataType) -> bool:
    return any(
        ask(kind)
        for ask in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
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
