"""CSV, TSV and their kin: rows of fields between delimiters, as spreadsheets and people write them."""

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, BinaryIO

from quickstudy.data.dataset import Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.encoding import MAX_LINE, Encoding, decoded_lines, encoding_of
from quickstudy.ingest.importers.labelling import flattened
from quickstudy.ingest.importers.records import NOTHING_SAID, Broken, Table
from quickstudy.ingest.importers.usual import is_header

_LOOKED_AT = 200  # lines
_SEP = re.compile(r'"?sep=(.)"?\r?\n?\Z', re.IGNORECASE)
_WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}

Raw = Iterator[tuple[str, "list[str] | str"]]
"""Rows with their places: fields, or what is wrong with one."""


def read_csv(handle: BinaryIO, place: str, reading: Reading = NOTHING_SAID) -> Table:
    """Read a table with quotes around fields that need them, whatever is between its fields."""
    encoding = encoding_of(handle, reading.encoding)
    lines, skipped, sep = _beginning(handle, place, encoding)
    delimiter = _said(reading) or sep or told_delimiter(lines, reading)
    rest = decoded_lines(handle, place, encoding, skipped=skipped)
    table = _table(_quoted(_Lines(rest, skipped), delimiter), place, encoding)
    return flattened(table, table.first(_LOOKED_AT))


def read_tsv(handle: BinaryIO, place: str, reading: Reading = NOTHING_SAID) -> Table:
    """Read a table of which the fields have tabs between them.

    Many a .tsv holds bare quotes; a field is unquoted only where it is quoted as a whole.
    """
    encoding = encoding_of(handle, reading.encoding)
    lines, skipped, sep = _beginning(handle, place, encoding)
    has_none = bool(lines) and not any("\t" in line for line in lines) and told_delimiter(lines, reading) in lines[0]
    if (_said(reading) or sep or "\t") != "\t" or has_none:
        return read_csv(handle, place, reading)
    rest = decoded_lines(handle, place, encoding, skipped=skipped)
    table = _table(_bare(rest, skipped), place, encoding, _unquoted)
    return flattened(table, table.first(_LOOKED_AT))


def _beginning(handle: BinaryIO, place: str, encoding: Encoding) -> tuple[list[str], int, str | None]:
    """The first lines; how many before them are none of the table; and the delimiter that such a one says."""
    lines = list(islice(decoded_lines(handle, place, encoding), _LOOKED_AT))
    if lines and (said := _SEP.match(lines[0])) is not None:  # Excel's own
        return lines[1:], 1, said[1]
    return lines, 0, None


def _said(reading: Reading) -> str | None:
    if reading.delimiter is None:
        return None
    delimiter = _WORDS.get(reading.delimiter.lower(), reading.delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        what = f"{reading.delimiter!r} is not a single character"
        raise QuickstudyError(what, where="--delimiter", fix="Say , or ; or | or tab")
    return delimiter


def told_delimiter(lines: list[str], reading: Reading = NOTHING_SAID) -> str:
    """Return what is between the fields, by whether it gives the first rows as many as the first of them has.

    Where several do, it is the one that makes names of columns of the first row; else what is rarer in texts.
    """
    first = lines[0] if lines else ""
    likely = max(",;\t", key=first.count)  # a spreadsheet writes ; where , is the decimal mark
    found = {one: agreement(lines, one) for one in dict.fromkeys((likely, *"\t|;,"))}
    if not any(found.values()):
        return likely
    best = [one for one, share in found.items() if share == max(found.values())]
    named = [one for one in best if is_header(first.rstrip("\r\n").replace('"', "").split(one), reading)]
    rare = [one for one in "\t|;," if one in best]
    return (named or (rare if len(lines) > 1 else best))[0]


def agreement(lines: list[str], delimiter: str) -> float:
    """Return the share of rows that have as many fields as the first, 0 where that has one."""
    rows = [row for _, row in islice(_quoted(_Lines(iter(lines), 0), delimiter), _LOOKED_AT)]
    if len(lines) == _LOOKED_AT and len(rows) > 1:
        rows.pop()  # it may go on
    widths = [0 if isinstance(row, str) else len(row) for row in rows]
    share = widths.count(widths[0]) / len(widths) if widths and widths[0] > 1 else 0.0
    if delimiter != "\t":
        return share
    # Between tabs quotes often mean nothing.
    tabs = [line.count("\t") for line in lines if line.strip()]
    return max(share, tabs.count(tabs[0]) / len(tabs) if tabs and tabs[0] else 0.0)


class _Lines:
    """Lines that can be given back."""

    def __init__(self, lines: Iterator[str], before: int):
        self._lines = lines
        self._back: deque[str] = deque()
        self._number = before
        self._taken: list[str] = []
        self._size = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self._size > MAX_LINE:
            raise csv.Error(f"no end within {MAX_LINE >> 20} million characters")
        line = self._back.popleft() if self._back else next(self._lines)
        self._number += 1
        self._size += len(line)
        self._taken.append(line)
        return line

    def begin(self) -> int:
        """Begin a row; returns the number of its first line."""
        self._taken, self._size = [], 0
        return self._number + 1

    def give_back(self) -> None:
        """Give back all lines of the row but the first."""
        self._back.extendleft(reversed(self._taken[1:]))
        self._number -= len(self._taken[1:])


def _quoted(lines: _Lines, delimiter: str) -> Raw:
    csv.field_size_limit(MAX_LINE)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        begin = lines.begin()
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quote that opens and never closes takes all the rows after it. Only the row that it is in is lost.
            lines.give_back()
            yield f"line {begin}", f"the row cannot be read, its quotes do not match ({error})"
        else:
            if row:
                yield f"line {begin}", row


def _bare(lines: Iterable[str], before: int) -> Raw:
    csv.field_size_limit(MAX_LINE)
    reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield f"line {before + reader.line_num}", f"the row cannot be read ({error})"
        else:
            if row:
                yield f"line {before + reader.line_num}", row


def _unquoted(field: str) -> str:
    inner = field[1:-1]
    whole = len(field) >= 2 and field[0] == field[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else field


def _table(raw: Raw, place: str, encoding: Encoding, clean: Callable[[str], str] = lambda field: field) -> Table:
    first = next(raw, None)
    if first is None:
        raise QuickstudyError("empty", where=place, fix="The first line names the columns, text,label for example")
    at, names = first
    if isinstance(names, str):
        raise QuickstudyError(names, where=f"{place}, {at}", fix="Check its quotes")
    header = [clean(name) for name in names]
    return headed(header, _records(raw, header, clean), at, encoding)


def headed(header: list[str], rows: Iterator[tuple[str, list[str] | Broken]], at: str, encoding: Encoding) -> Table:
    """Return a table with columns called as a row says that may be none of names.

    Args:
        header: the row.
        rows: the others, of as many fields.
        at: where the row is.
        encoding: of the file.
    """
    columns, twice = _apart(header)

    def records(
        columns: list[str], rows: Iterable[tuple[str, list[str] | Broken]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for at, row in rows:
            yield at, row if isinstance(row, Broken) else dict(zip(columns, row, strict=True))

    def unheaded(table: Table) -> Table:
        numbers = [str(number) for number in range(1, len(header) + 1)]
        again = (
            (at, row if isinstance(row, Broken) else dict(zip(numbers, row.values(), strict=True)))
            for at, row in table.rows
        )
        own: dict[str, Any] = dict(zip(numbers, header, strict=True))
        return Table(numbers, chain([(at, own)], again), encoding=encoding, numbered=True)

    unnamed = frozenset(name for name, said in zip(columns, header, strict=True) if not said.strip())
    return Table(
        columns,
        records(columns, rows),
        encoding=encoding,
        twice=twice,
        unnamed=unnamed,
        header=dict(zip(columns, header, strict=True)),
        unheaded=unheaded,
    )


def _apart(header: list[str]) -> tuple[list[str], list[str]]:
    """Names for the columns, no two alike, and those that stand twice."""
    seen: set[str] = set()
    columns, twice = [], []
    for number, name in enumerate(header, 1):
        own = name if name.strip() else f"column {number}"
        if own in seen:
            if name.strip():
                twice.append(name)
            own = f"{own} ({number})"
        seen.add(own)
        columns.append(own)
    return columns, twice


def _records(raw: Raw, header: list[str], clean: Callable[[str], str]) -> Iterator[tuple[str, list[str] | Broken]]:
    width = len(header)
    needed = width
    while needed and not header[needed - 1].strip():
        needed -= 1
    for at, row in raw:
        if isinstance(row, str):
            yield at, Broken(row)
            continue
        if len(row) > 1 and not any(row):
            continue  # a spreadsheet writes those below its last row too
        while len(row) > width and not row[-1]:  # spreadsheets fill rows up with empty fields, and leave them out
            row.pop()
        if needed <= len(row) < width:
            row += [""] * (width - len(row))
        if len(row) != width:
            yield at, Broken(f"{len(row)} fields, the header has {width}")
        else:
            yield at, list(map(clean, row))
