"""Which columns of a table hold what, told from their cells where their names tell nothing.

A text is what is longest, of several words, and another in nearly every row; a label is short, and the same few come
again and again. Where two columns might be it, neither is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quickstudy.data.dataset import Reading
from quickstudy.ingest.importers.records import Table
from quickstudy.ingest.importers.usual import is_header

LOOKED_AT = 1000
"""Rows."""
_FILLED = 0.8  # of the rows have something in a column that counts
_SPLITS = frozenset({"train", "training", "valid", "validation", "val", "dev", "test", "testing", "eval"})


@dataclass(frozen=True)
class Column:
    """What a column holds, in the first rows."""

    name: str
    values: dict[str, int]
    """How often each."""
    filled: float
    """Share of the rows in which it is not empty."""
    length: float
    """Characters of a cell, on average."""
    wordy: float
    """Share of cells of several words."""

    @property
    def count(self) -> int:
        return sum(self.values.values())

    @property
    def is_text(self) -> bool:
        return self.filled >= _FILLED and self.wordy >= 0.5 and len(self.values) > 0.5 * self.count

    @property
    def is_label(self) -> bool:
        several = 2 <= len(self.values) <= self.count / 2
        split = {value.strip().lower() for value in self.values} <= _SPLITS
        return self.filled >= _FILLED and several and self.length <= 60 and not split and not self.is_measured

    @property
    def is_measured(self) -> bool:
        """Whether it holds numbers with decimals, which name no classes."""
        numbers = [value for value in self.values if _number(value) is not None]
        return len(numbers) == len(self.values) and any("." in value.rstrip("0").rstrip(".") for value in numbers)


def columns_of(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[Column]:
    """Return what columns hold."""
    found = []
    for name in names:
        cells = [str(cell) for row in rows if isinstance(cell := row.get(name), str | int | float)]
        cells = [cell for cell in cells if cell.strip()]
        values: dict[str, int] = {}
        for cell in cells:
            values[cell] = values.get(cell, 0) + 1
        count = max(1, len(cells))
        length = sum(map(len, cells)) / count
        found.append(Column(name, values, len(cells) / max(1, len(rows)), length, sum(map(_wordy, cells)) / count))
    return found


def _wordy(cell: str) -> bool:
    """Chinese and Japanese have no blanks between words."""
    return any(map(str.isspace, cell.strip())) or (len(cell) >= 4 and any(ord(one) >= 0x2E80 for one in cell))


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def told_content(columns: Sequence[Column]) -> str | None:
    """Return the column of the longest texts, if it is by far."""
    texts = sorted((column for column in columns if column.is_text), key=lambda column: -column.length)
    if not texts or (len(texts) > 1 and texts[0].length < 1.5 * texts[1].length):
        return None
    return texts[0].name


def told_target(columns: Sequence[Column]) -> str | None:
    """Return the only column of few values."""
    labels = [column.name for column in columns if column.is_label]
    return labels[0] if len(labels) == 1 else None


def is_headless(table: Table, reading: Reading) -> bool:
    """Return whether the first row of a table is an example like the others.

    It is where no name in it is a usual one, or one that was said, and its cell in a column of few values is one of
    these, or is a number as all are.
    """
    if table.header is None or table.unheaded is None or is_header(list(table.header.values()), reading):
        return False
    rows = table.first(LOOKED_AT)
    columns = columns_of(table.columns, rows)
    if not any(column.is_text for column in columns):
        return False
    for column in columns:
        own = table.header[column.name]
        if column.is_label and own in column.values:
            return True
        numbers = column.count and all(_number(value) is not None for value in column.values)
        if numbers and _number(own) is not None:
            return True
    return False
