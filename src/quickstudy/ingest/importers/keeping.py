"""From the rows of a source to the table of a dataset: what is kept of them, and in which order."""

import pyarrow as pa

from quickstudy.data.dataset import Reading, make_table
from quickstudy.ingest.importers.groups import tidy
from quickstudy.ingest.importers.options import Note
from quickstudy.ingest.importers.rows import Rows

_CELLS = 32 << 20  # bytes of examples to an Arrow array: what is in one is dropped here, and its offsets end at 2 GB


def kept(rows: Rows, reading: Reading, note: Note) -> list[int]:
    """The rows that are kept, by class, then by path or row, whatever order the file system gives."""
    keep = [i for i, label in enumerate(rows.labels) if label not in reading.exclude]
    keep.sort(key=lambda i: (rows.labels[i], rows.order[i]))
    # In this order, and not in that of reading, so that of equal ones the same is kept everywhere.
    return _without_duplicates(rows, keep, note) if reading.drop_duplicates else keep


def _without_duplicates(rows: Rows, keep: list[int], note: Note) -> list[int]:
    labels_of: dict[bytes | str, set[str]] = {}
    for i in keep:
        labels_of.setdefault(rows.contents[i], set()).add(rows.labels[i])
    contested = {content for content, labels in labels_of.items() if len(labels) > 1}
    single, seen = [], set(contested)
    for i in keep:
        if rows.contents[i] not in seen:
            seen.add(rows.contents[i])
            single.append(i)
    if left_out := len(keep) - len(single):
        note(f"left out {left_out} duplicates, {len(contested)} of them under two labels")
    return single


def as_table(rows: Rows, groups: list[str], keep: list[int]) -> pa.Table:
    """The rows that are kept as the table of a dataset; ``rows`` holds their examples no longer.

    Args:
        rows: of a source.
        groups: of every row.
        keep: numbers of rows, in the order of the table.
    """
    tables = []
    start = size = 0
    for end, i in enumerate(keep, 1):
        size += len(rows.contents[i])
        if size >= _CELLS or end == len(keep):
            tables.append(_part(rows, groups, keep[start:end]))
            for j in keep[start:end]:
                rows.contents[j] = None  # Arrow holds a copy
            start, size = end, 0
    return pa.concat_tables(tables)


def _part(rows: Rows, groups: list[str], part: list[int]) -> pa.Table:
    return make_table(
        rows.modality,
        [rows.contents[i] for i in part],
        [rows.labels[i] for i in part],
        [groups[i] for i in part],
        [tidy(rows.domains[i]) for i in part] if rows.domains else None,
        [rows.paths[i] for i in part] if rows.paths else None,
    )
