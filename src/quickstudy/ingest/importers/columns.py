"""Which columns of a table hold the examples, their targets, groups and domains."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from quickstudy.data.dataset import Modality, Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.formats import Table
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.rows import Rows
from quickstudy.ingest.importers.several import flag_columns, flag_of, seems_several, split
from quickstudy.kinds.kind import Targets
from quickstudy.kinds.names import name_of
from quickstudy.kinds.targets import PLAIN, TARGETS, kind_of

CONTENT_COLUMNS = {
    "text": ("text", "sentence", "utterance", "query", "question", "content", "review", "message", "document", "title"),
    "image": ("image", "img", "picture"),
    "audio": ("audio", "recording", "speech"),
}


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
    columns = [reading.label] if reading.label is not None else [_usual(table, part.USUAL) for part in TARGETS.values()]
    column = next((name for name in columns if name is not None), None)
    return PLAIN if column is None else kind_of([table.samples.get(column, "")])


def pick_columns(
    table: Table, modality: Modality, wanted: Wanted, targets: Targets, flags: frozenset[str], place: str
) -> Picked:
    """Choose the columns that are read.

    Args:
        table: that they are of.
        modality: of the examples.
        wanted: of the source.
        targets: of its kind.
        flags: columns that hold nothing but 0 and 1, where these were looked for.
        place: the table, for the error.

    Raises:
        QuickstudyError: one that must be there is not.
    """
    if twice := [name for name, count in Counter(table.columns).items() if count > 1]:
        raise QuickstudyError(f"two columns are named {twice[0]!r}", where=place, fix="Rename one")
    reading = wanted.reading
    content = _content_column(table, modality, reading, place)
    others = [name for name in table.columns if name != content]
    target, several = None, reading.label_columns
    asked = wanted.labelled or reading.label is not None or any(name.lower() in targets.USUAL for name in others)
    if asked and several is None:
        target = _find(others, reading.label, targets.USUAL, "label", place, "Name it by --label")
    domain = None
    if reading.domain is not None:
        domain = _find(others, reading.domain, (), "domain", place, "")
    elif "domain" in others and _is_ours(table):
        domain = "domain"
    group = _group_column(others, target, reading.group, place)
    left = [name for name in others if name not in (group, domain)]
    return Picked(content, target, () if several is None else flag_columns(left, several, flags, place), group, domain)


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
    may_be_several = separator is None and targets.fits(["one", "two"])

    def cell(record: dict[str, Any], column: str) -> Any:
        return _named(record[column], column, table.class_names.get(column))

    def target(record: dict[str, Any]) -> Any:
        if picked.flags:
            return targets.read([name for name in picked.flags if flag_of(record[name], name)], "columns")
        if picked.target is None or (not wanted.labelled and record[picked.target] in (None, "")):
            return None
        found = cell(record, picked.target)
        if may_be_several and rows.unsplit is None and seems_several(found):
            rows.unsplit = found
        return targets.read(split(found, separator), picked.target)

    def name(record: dict[str, Any], column: str | None) -> str | None:
        if column is None:
            return None
        return "" if not wanted.labelled and record[column] in (None, "") else name_of(cell(record, column), column)

    def take(record: dict[str, Any]) -> Taken:
        return (
            _content(record[picked.content], rows.modality),
            target(record),
            name(record, picked.group),
            name(record, picked.domain),
        )

    return take


# Choosing


def _content_column(table: Table, modality: Modality, reading: Reading, place: str) -> str:
    if modality == "text":
        return _find(table.columns, reading.content, CONTENT_COLUMNS["text"], "text", place, "Name it by --text")
    only = table.media[0] if len(table.media) == 1 and reading.content is None else reading.content
    return _find(table.columns, only, CONTENT_COLUMNS[modality], modality, place, "Name it by --content")


def _find(columns: list[str], named: str | None, known: Sequence[str], what: str, place: str, fix: str) -> str:
    if named is not None:
        if named in columns:
            return named
        raise QuickstudyError(f"no column {named!r}", where=place, fix=f"It has {listed(columns) or 'no other'}")
    lower = {name.lower().strip(): name for name in reversed(columns)}
    for name in known:
        if name in lower:
            return lower[name]
    raise QuickstudyError(f"no {what} column among {listed(columns)}", where=place, fix=fix)


def _usual(table: Table, known: Sequence[str]) -> str | None:
    lower = {name.lower().strip(): name for name in reversed(table.columns)}
    return next((lower[name] for name in known if name in lower), None)


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
