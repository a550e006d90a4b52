"""Files of tables by their suffixes, and Parquet, which says itself what its columns hold."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from quickstudy.data.dataset import Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.delimited import read_csv, read_tsv
from quickstudy.ingest.importers.documents import read_json, read_jsonl
from quickstudy.ingest.importers.records import NOTHING_SAID, Read, Table


def read_parquet(handle: BinaryIO, place: str, reading: Reading = NOTHING_SAID) -> Table:
    """Read a Parquet file."""
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
                for record in _records(batch):
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
