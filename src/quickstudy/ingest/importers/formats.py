"""Files of tables by their suffixes, and Parquet, which says itself what its columns hold."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from quickstudy.data.dataset import Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import MAX_RATIO, MAX_TOTAL, RATIO_COUNTS_FROM
from quickstudy.ingest.importers.delimited import read_csv, read_tsv
from quickstudy.ingest.importers.documents import read_json, read_jsonl
from quickstudy.ingest.importers.records import MAX_ROWS, NOTHING_SAID, Read, Table

MAX_VALUES = 200_000_000  # of a Parquet file: numbers and texts in all columns, those in lists as well
AT_ONCE = 64 << 20  # bytes of rows that are objects at once, where one row has not more
PER_CELL = 64  # bytes of an object, about
_SPLIT = "Import a part of it"


def read_parquet(handle: BinaryIO, place: str, reading: Reading = NOTHING_SAID) -> Table:
    """Read a Parquet file.

    Texts and bytes are read as numbers of a dictionary, where the file has them so: a file of a kilobyte may stand for
    a megabyte in each of a million rows. They are counted before they are made.
    """
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
                    for record in _records(batch.slice(start, step)):
                        number += 1
                        yield f"row {number}", record
        except (pa.ArrowException, OSError) as error:
            what = f"damaged after row {number} ({' '.join(str(error).split())[:100]})"
            raise QuickstudyError(what, where=place, fix="Download it again") from None

    lists = [field.name for field in schema if pa.types.is_list(field.type) or pa.types.is_large_list(field.type)]
    return Table(schema.names, records(), _class_names(schema), media, {name: [] for name in lists})


def _records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = [cells_of(batch.column(name)) for name in batch.schema.names]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def cells_of(column: pa.Array) -> list[Any]:
    """Return the cells of a column; of texts that are not UTF-8, such as say so (`encoding.half`)."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # which Arrow says of no row
        return [_cell(cell) for cell in column]


def _cell(cell: pa.Scalar) -> Any:
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        return error.object.decode("utf-8", "surrogateescape")


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


READERS: dict[str, Read] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".tab": read_tsv,
    ".psv": read_csv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
}
