"""What a file of a table is read as: columns, and rows as they come."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO, Protocol

from quickstudy.data.dataset import Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.encoding import UTF8, Encoding

MAX_ROWS = 5_000_000
NOTHING_SAID = Reading()
_UTF8 = Encoding(UTF8)
_AHEAD = 32 << 20  # characters that are held of rows before they are taken

Rows = Iterator[tuple[str, dict[str, Any]]]
"""Rows with their places ("line 7")."""


@dataclass
class Table:
    """A table being read: the columns it has, and rows as they come."""

    columns: list[str]
    rows: Rows
    class_names: dict[str, list[str]] = field(default_factory=dict)
    """Columns that hold numbers which stand for names."""
    media: list[str] = field(default_factory=list)
    """Columns of binary cells."""
    samples: dict[str, Any] = field(default_factory=dict)
    """Of columns that hold more than texts, what shows what they hold: a cell, or [] of lists."""
    encoding: Encoding = _UTF8
    twice: list[str] = field(default_factory=list)
    """Names that two columns have; the second is called otherwise here."""
    unnamed: frozenset[str] = frozenset()
    """Columns without a name, called by their numbers here."""
    numbered: bool = False
    """Whether no row names the columns, so that all are called by their numbers."""
    header: dict[str, str] | None = None
    """Of a table of texts: its first row, which may name the columns and may be one of the others."""
    unheaded: "Callable[[Table], Table] | None" = None
    """Gives the same table with its first row as one of the others."""
    content: tuple[str, ...] = ()
    """Columns that hold the examples, as the format says."""
    targets: tuple[str, ...] = ()
    """Columns that hold targets, as the format says."""
    several: bool = False
    """Whether a target may be several names, as the format says."""
    about: str | None = None
    """What the file is, where that is worth telling: whose export."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Of the rows so far: how many are no examples, and why."""

    def first(self, count: int) -> list[dict[str, Any]]:
        """Return the first rows, which are not taken by that; broken ones are left out."""
        held, self.rows = ahead(self.rows, count)
        return [row for _, row in held if not isinstance(row, Broken)]


def ahead(rows: Rows, count: int) -> tuple[list[tuple[str, dict[str, Any]]], Rows]:
    """Return so many of the first rows, or fewer where they are large, and all of them."""
    held: list[tuple[str, dict[str, Any]]] = []
    size = 0
    for row in rows:
        held.append(row)
        size += sum(len(cell) for cell in row[1].values() if isinstance(cell, str | bytes))
        if len(held) >= count or size > _AHEAD:
            break
    return held, chain(held, rows)


class Broken(dict):
    """A row of the wrong shape: whatever is taken from it, it says so."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def __missing__(self, key: str) -> Any:
        raise QuickstudyError(self.what)


class Read(Protocol):
    """Reads a file of a table."""

    def __call__(self, handle: BinaryIO, place: str, reading: Reading = NOTHING_SAID) -> Table:
        """Raise QuickstudyError for a file that cannot be read as what it should be."""
