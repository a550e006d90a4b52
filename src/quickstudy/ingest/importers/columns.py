"""Which columns of a table hold the examples, their classes and groups."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.formats import Table
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.rows import Rows

CONTENT_COLUMNS = {
    "text": ("text", "sentence", "utterance", "query", "question", "content", "review", "message", "document", "title"),
    "image": ("image", "img", "picture"),
    "audio": ("audio", "recording", "speech"),
}
LABEL_COLUMNS = ("label_text", "label", "intent", "class", "category", "labels", "target", "topic", "sentiment")

_ABOUT_TEXT = "Name it by --text"
_ABOUT_LABEL = "Name it by --label"


def pick_columns(
    table: Table, modality: Modality, wanted: Wanted, rows: Rows, place: str
) -> Callable[[dict[str, Any]], tuple[Any, str, str | None, str | None]]:
    """How to take content, label, group and domain out of a row of this table."""
    if twice := [name for name, count in Counter(table.columns).items() if count > 1]:
        raise QuickstudyError(f"two columns are named {twice[0]!r}", where=place, fix="Rename one")
    reading = wanted.reading
    if modality == "text":
        content = _find(table.columns, reading.content, CONTENT_COLUMNS["text"], "text", place, _ABOUT_TEXT)
    else:
        only = table.media[0] if len(table.media) == 1 and reading.content is None else reading.content
        content = _find(table.columns, only, CONTENT_COLUMNS[modality], modality, place, "Name it by --content")
    others = [name for name in table.columns if name != content]
    label: str | None = None
    if wanted.labelled or reading.label is not None or any(name.lower() in LABEL_COLUMNS for name in others):
        label = _find(others, reading.label, LABEL_COLUMNS, "label", place, _ABOUT_LABEL)
    group = _group_column(others, label, wanted, place)
    domain = None
    if reading.domain is not None:
        domain = _find(others, reading.domain, (), "domain", place, "")
    elif _is_ours(table) and "domain" in others:
        domain = "domain"
    rows.group_word, rows.group_rule = group or "group", group
    rows.domain_word = rows.domain_rule = domain
    rows.content_columns.add(content)
    rows.label_columns.update([] if label is None else [label])

    def name(record: dict[str, Any], column: str) -> str:
        if not wanted.labelled and record[column] in (None, ""):
            return ""
        return _name(record[column], column, table.class_names.get(column))

    def pick(record: dict[str, Any]) -> tuple[Any, str, str | None, str | None]:
        cell = record[content]
        if modality != "text" and isinstance(cell, dict):
            if cell.get("bytes") is None and cell.get("path") is not None:
                raise QuickstudyError(f"the cell names the file {cell['path']!r} and does not hold it")
            cell = cell.get("bytes")
        return (
            cell,
            "" if label is None else name(record, label),
            None if group is None else name(record, group),
            None if domain is None else name(record, domain),
        )

    return pick


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


def _group_column(columns: list[str], label: str | None, wanted: Wanted, place: str) -> str | None:
    group = wanted.reading.group
    if group is None:
        return "group" if "group" in columns else None
    if group in columns and group != label:
        return group
    if group in ("class", "none") or group.endswith(".json") or group == label:
        return None
    raise QuickstudyError(f"no column {group!r}", where=place, fix=f"It has {listed(columns)}")


def _is_ours(table: Table) -> bool:
    """Whether the columns are those of a quickstudy dataset. In other people's tables "domain" means anything."""
    return bool({"text", "image", "audio"} & set(table.columns)) and {"label", "group"} <= set(table.columns)


def listed(columns: list[str]) -> str:
    return ", ".join(repr(name) for name in columns[:20]) + (", …" if len(columns) > 20 else "")


def _name(value: Any, column: str, names: list[str] | None) -> str:
    """A cell that names a class, group or domain, as a string."""
    if names is not None and isinstance(value, int):
        if not 0 <= value < len(names):
            raise QuickstudyError(f"the {column} is {value}, outside the {len(names)} names of the schema")
        return names[value]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        raise QuickstudyError(f"the {column} is missing")
    if not isinstance(value, str | int | float):
        raise QuickstudyError(f"the {column} is {str(value)[:40]!r}, not a single name")
    if not str(value).strip():
        raise QuickstudyError(f"the {column} is empty")
    return str(value)
