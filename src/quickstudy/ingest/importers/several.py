"""Several names for one example, where a table has no column of lists: between separators, or in a column each."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.records import MAX_ROWS, Table
from quickstudy.kinds.names import name_of

_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_BETWEEN = re.compile(r"\S\s*[;|,]\s*\S")


def split(cell: Any, separator: str | None) -> Any:
    """Return a text as the list of the names in it, where there is a separator; of a cell that is no text, the cell."""
    if separator is None or not isinstance(cell, str):
        return cell
    return [part for part in cell.split(separator) if part.strip()]


def seems_several(cell: Any) -> bool:
    """Return whether a cell is a text with what may separate names in it."""
    return isinstance(cell, str) and _BETWEEN.search(cell) is not None


def is_pattern(name: str) -> bool:
    """Return whether the name of a column may mean several."""
    return "*" in name or "?" in name


def flag_of(cell: Any, column: str) -> bool:
    """Return what a cell of a column of 0 and 1 says.

    Raises:
        QuickstudyError: it is missing, or says neither.
    """
    if (flag := _flag(cell)) is None:
        name_of(cell, column)  # what is missing or empty says so
        raise QuickstudyError(f"the {column} is {str(cell)[:40]!r}, neither 0 nor 1")
    return flag


def only_flags(tables: Iterable[Table]) -> frozenset[str]:
    """Return the columns that hold nothing but 0 and 1 in every table that has them."""
    there: set[str] = set()
    others: set[str] = set()
    for table in tables:
        there |= set(table.columns)
        others |= set(table.media)
        for _, record in islice(table.rows, MAX_ROWS):
            left = there - others
            if not left:
                break
            if record:  # a row of the wrong shape says so when it is read
                others |= {name for name in left & set(table.columns) if _flag(record.get(name)) is None}
    return frozenset(there - others)


def flag_columns(columns: Sequence[str], asked: Sequence[str], flags: frozenset[str], place: str) -> tuple[str, ...]:
    """Return the columns that are asked for by their names or by patterns.

    Args:
        columns: that may be meant.
        asked: names, or patterns such as ``is_*``, which mean columns that hold nothing but 0 and 1.
        flags: the columns that do.
        place: the table, for the error.

    Raises:
        QuickstudyError: a name or a pattern means none.
    """
    found: list[str] = []
    for one in asked:
        if one in columns:
            found.append(one)
        elif fits := [name for name in columns if is_pattern(one) and name in flags and fnmatchcase(name, one)]:
            found += fits
        else:
            what = f"no column of 0 and 1 fits {one!r}" if is_pattern(one) else f"no column {one!r}"
            there = ", ".join(map(repr, columns[:20])) or "no other"
            raise QuickstudyError(what, where=place, fix=f"It has {there}")
    return tuple(dict.fromkeys(found))


def _flag(cell: Any) -> bool | None:
    return _FLAGS.get(str(cell).strip().lower()) if isinstance(cell, str | int | float) else None
