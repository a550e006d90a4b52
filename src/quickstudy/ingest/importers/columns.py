"""Which columns of a table hold the examples, their targets, groups and domains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quickstudy.data.dataset import Modality, Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.encoding import check_whole, half
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.records import Table
from quickstudy.ingest.importers.rows import Rows
from quickstudy.ingest.importers.several import flag_columns, flag_of, seems_several, split
from quickstudy.ingest.importers.told import LOOKED_AT, Column, columns_of, told_content, told_target
from quickstudy.ingest.importers.usual import CONTENT_COLUMNS, usual
from quickstudy.kinds.kind import Targets
from quickstudy.kinds.names import name_of
from quickstudy.kinds.targets import PLAIN, TARGETS, kind_of


@dataclass(frozen=True)
class Picked:
    """Columns by what they hold."""

    content: str
    target: str | None
    """None where none is and none need be, and where ``flags`` are it."""
    flags: tuple[str, ...]
    """Columns of 0 and 1, one for each name that a target may have."""
    group: str | None
    domain: str | None


def told_kind(table: Table, reading: Reading) -> str:
    """Return the kind of targets that a table seems to hold: that of the column which is taken."""
    if reading.label is not None:
        columns: list[str | None] = [reading.label]
    else:
        columns = [usual(table.columns, table.targets), *(usual(table.columns, one.USUAL) for one in TARGETS.values())]
    column = next((name for name in columns if name is not None), None)
    if column is None:
        return PLAIN if not table.several else kind_of([[]])
    return kind_of([table.samples.get(column, "")])


def pick_columns(
    table: Table, modality: Modality, wanted: Wanted, targets: Targets, flags: frozenset[str], place: str
) -> Picked:
    """Choose the columns that are read: as was said, else by their names, else by what they hold.

    Args:
        table: that they are of.
        modality: of the examples.
        wanted: of the source; its ``note`` is told what the names of the columns did not say.
        targets: of its kind.
        flags: columns that hold nothing but 0 and 1, where these were looked for.
        place: the table, for the error.

    Raises:
        QuickstudyError: one that must be there is not.
    """
    reading = wanted.reading
    held = _Held(table, wanted)
    content = _content_column(table, modality, reading, held, place)
    others = [name for name in table.columns if name != content]
    target, several = None, reading.label_columns
    known = (*table.targets, *targets.USUAL)
    asked = wanted.labelled or reading.label is not None or usual(others, known) is not None
    if asked and several is None:
        target = _target_column(table, others, reading, known, held, place)
    domain = None
    if reading.domain is not None:
        domain = _find(others, reading.domain, (), "domain", place, "")
    elif "domain" in others and _is_ours(table):
        domain = "domain"
    group = _group_column(others, target, reading.group, place)
    left = [name for name in others if name not in (group, domain)]
    picked = () if several is None else flag_columns(left, several, flags, place)
    for name in (content, target, group, domain, *picked):
        if name in table.twice:
            raise QuickstudyError(f"two columns are named {name!r}", where=place, fix="Rename one")
        if name is not None and (wrong := half(name, table.encoding.name)) is not None:
            raise QuickstudyError(f"the name of the column {name!r} {wrong}", where=place, fix="Rename it")
    held.tell()
    return Picked(content, target, picked, group, domain)


class _Held:
    """What the columns of a table hold, looked at where their names tell nothing, and what was told of it."""

    def __init__(self, table: Table, wanted: Wanted):
        self._table, self._wanted = table, wanted
        self._columns: list[Column] | None = None
        self._told: dict[str, str] = {}

    def columns(self, names: Sequence[str]) -> list[Column]:
        if self._columns is None:
            self._columns = columns_of(self._table.columns, self._table.first(LOOKED_AT))
        return [column for column in self._columns if column.name in names]

    def took(self, what: str, column: str, option: str) -> None:
        number = self._table.columns.index(column) + 1
        called = f"column {number}" if self._table.numbered or column in self._table.unnamed else repr(column)
        self._told[option] = f"{called} as {what}"

    def tell(self) -> None:
        """Tell what was told from the cells."""
        if self._told:
            why = "the table has no header" if self._table.numbered else "the names of the columns do not tell"
            more = "; --header if its first row names the columns" if self._table.numbered else ""
            told, options = " and ".join(self._told.values()), ", ".join(f"{one} COLUMN" for one in self._told)
            self._wanted.note(f"{why}: read {told}, by what they hold. Say otherwise by {options}{more}")


def remember(picked: Picked, rows: Rows) -> None:
    """Note on the rows where they come from."""
    rows.group_word, rows.group_rule = picked.group or "group", picked.group
    rows.domain_word = rows.domain_rule = picked.domain
    rows.content_columns.add(picked.content)
    rows.target_columns.update([] if picked.target is None else [picked.target])
    rows.flag_columns = picked.flags or None


Taken = tuple[Any, Any, str | None, str | None]
"""content, target, group and domain of a row"""


def taker(picked: Picked, table: Table, rows: Rows, targets: Targets, wanted: Wanted) -> Callable[[Any], Taken]:
    """Return how content, target, group and domain are taken out of a row of a table."""
    separator = wanted.reading.separator
    one_each = not targets.fits(["one", "two"])
    may_be_several = separator is None and not one_each

    def cell(record: dict[str, Any], column: str) -> Any:
        check_whole(found := record[column], column, table.encoding.name)
        return _named(found, column, table.class_names.get(column))

    def target(record: dict[str, Any]) -> Any:
        if picked.flags:
            return targets.read([name for name in picked.flags if flag_of(record[name], name)], "columns")
        if picked.target is None or (not wanted.labelled and record[picked.target] in (None, "")):
            return None
        found = cell(record, picked.target)
        if may_be_several and rows.unsplit is None and seems_several(found):
            rows.unsplit = found
        if one_each and isinstance(found, list) and len(found) == 1 and isinstance(found[0], str):
            found = found[0]  # a list of one name, as several tools write it
        return targets.read(split(found, separator), picked.target)

    def name(record: dict[str, Any], column: str | None) -> str | None:
        if column is None:
            return None
        return "" if not wanted.labelled and record[column] in (None, "") else name_of(cell(record, column), column)

    def take(record: dict[str, Any]) -> Taken:
        check_whole(found := record[picked.content], picked.content, table.encoding.name)
        return (
            _content(found, rows.modality),
            target(record),
            name(record, picked.group),
            name(record, picked.domain),
        )

    return take


# Choosing

_OURS = ("group", "domain", "split")
"""Columns that are not told from what they hold: their names say enough."""


def _content_column(table: Table, modality: Modality, reading: Reading, held: _Held, place: str) -> str:
    if modality != "text":
        only = table.media[0] if len(table.media) == 1 and reading.content is None else reading.content
        known = (*table.content, *CONTENT_COLUMNS[modality])
        return _find(table.columns, only, known, modality, place, "Name it by --content")
    if reading.content is None:
        known = (*table.content, *CONTENT_COLUMNS["text"])
        if (named := usual(table.columns, known)) is not None:
            return named
        told = [name for name in table.columns if name not in (reading.label, reading.group, reading.domain, *_OURS)]
        only = table.columns[0] if len(table.columns) == 1 else None
        if (found := only or told_content(held.columns(told))) is not None:
            held.took("the text", found, "--text")
            return found
    return _find(table.columns, reading.content, (), "text", place, "Name it by --text")


def _target_column(
    table: Table, others: list[str], reading: Reading, known: Sequence[str], held: _Held, place: str
) -> str:
    if reading.label is None and usual(others, known) is None:
        told = [name for name in others if name not in (reading.group, reading.domain, *_OURS)]
        named = [column for column in held.columns(told) if column.name not in table.unnamed]
        if (found := told_target(named)) is not None:
            held.took("the label", found, "--label")
            return found
    return _find(others, reading.label, known, "label", place, "Name it by --label")


def _find(columns: list[str], named: str | None, known: Sequence[str], what: str, place: str, fix: str) -> str:
    if named is not None:
        if named in columns:
            return named
        raise QuickstudyError(f"no column {named!r}", where=place, fix=f"It has {listed(columns) or 'no other'}")
    if (found := usual(columns, known)) is not None:
        return found
    there = listed(columns) or "no others"
    raise QuickstudyError(f"no {what} column among {there}", where=place, fix=fix)


def _group_column(columns: list[str], target: str | None, group: str | None, place: str) -> str | None:
    if group is None:
        return "group" if "group" in columns else None
    if group in columns and group != target:
        return group
    if group in ("class", "none") or group.endswith(".json") or group == target:
        return None
    raise QuickstudyError(f"no column {group!r}", where=place, fix=f"It has {listed(columns)}")


def _is_ours(table: Table) -> bool:
    """Whether the columns are those of a quickstudy dataset. In other people's tables "domain" means anything."""
    columns = set(table.columns)
    return (
        bool({"text", "image", "audio"} & columns)
        and "group" in columns
        and any(part.COLUMN in columns for part in TARGETS.values())
    )


def listed(columns: list[str]) -> str:
    """Return the names of columns for a message."""
    return ", ".join(repr(name) for name in columns[:20]) + (", …" if len(columns) > 20 else "")


# Taking


def _content(cell: Any, modality: Modality) -> Any:
    """The text or the bytes in a cell."""
    if modality == "text" or not isinstance(cell, dict):
        return cell
    if cell.get("bytes") is None and cell.get("path") is not None:
        raise QuickstudyError(f"the cell names the file {cell['path']!r} and does not hold it")
    return cell.get("bytes")


def _named(cell: Any, column: str, names: list[str] | None) -> Any:
    """A cell with names in the place of the numbers that stand for them, in a list too."""
    if names is None:
        return cell
    if isinstance(cell, list):
        return [_named(one, column, names) for one in cell]
    if not isinstance(cell, int):
        return cell
    if not 0 <= cell < len(names):
        raise QuickstudyError(f"the {column} is {cell}, outside the {len(names)} names of the schema")
    return names[cell]
