"""From the rows of a source to the table of a dataset: what is kept of them, and in which order."""

from collections.abc import Collection
from typing import Any

import pyarrow as pa

from quickstudy.data.dataset import Reading, make_table
from quickstudy.ingest.importers.options import Note
from quickstudy.ingest.importers.rows import Rows
from quickstudy.ingest.importers.spellings import join_spellings
from quickstudy.kinds.kind import Targets
from quickstudy.kinds.targets import targets_of

_CELLS = 32 << 20  # bytes of examples to an Arrow array: what is in one is dropped here, and its offsets end at 2 GB


def kept(rows: Rows, reading: Reading, note: Note, known: Collection[str] = ()) -> list[int]:
    """Return the rows that are kept, by target, then by path or row, whatever order the file system gives.

    Their targets are from here on in one spelling each and without the names that are left out, and those of an example
    that stands several times are joined, where that can be.

    Args:
        rows: of a source.
        reading: how it is read.
        note: told, in a line each, what was decided.
        known: names that the dataset has already.
    """
    targets = targets_of(rows.kind)
    if reading.exclude:
        rows.targets = [targets.without(target, reading.exclude) for target in rows.targets]
    join_spellings(rows, targets, known, reading.ignore_case, note)
    keep = _in_order(rows, targets, [i for i, target in enumerate(rows.targets) if target is not None])
    # In this order, and not in that of reading, so that of equal ones the same is kept everywhere.
    return _without_duplicates(rows, targets, keep, note) if reading.drop_duplicates else keep


def _in_order(rows: Rows, targets: Targets, keep: list[int]) -> list[int]:
    return sorted(keep, key=lambda i: (targets.key(rows.targets[i]), rows.order[i]))


def _without_duplicates(rows: Rows, targets: Targets, keep: list[int], note: Note) -> list[int]:
    targets_of_content: dict[bytes | str, dict[Any, Any]] = {}
    for i in keep:
        target = rows.targets[i]
        targets_of_content.setdefault(rows.contents[i], {})[targets.key(target)] = target
    several = {content: found for content, found in targets_of_content.items() if len(found) > 1}
    joined = {content: targets.joined(list(found.values())) for content, found in several.items()}
    contested = {content for content, target in joined.items() if target is None}
    single, seen = [], set(contested)
    for i in keep:
        if rows.contents[i] not in seen:
            seen.add(rows.contents[i])
            rows.targets[i] = joined.get(rows.contents[i], rows.targets[i])
            single.append(i)
    if left_out := len(keep) - len(single):
        note(f"left out {left_out} duplicates, {len(contested)} of them under two labels")
    if together := len(joined) - len(contested):
        note(f"joined the {targets.WORD} of {together} examples that stand several times")
    return _in_order(rows, targets, single)


def as_table(rows: Rows, groups: list[str], keep: list[int]) -> pa.Table:
    """Return the rows that are kept as the table of a dataset; ``rows`` holds their examples no longer.

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
        [rows.targets[i] for i in part],
        [groups[i] for i in part],
        [rows.domains[i] for i in part] if rows.domains else None,
        [rows.paths[i] for i in part] if rows.paths else None,
        kind=rows.kind,
    )
