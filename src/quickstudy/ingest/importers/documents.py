"""JSON and JSON Lines, in the shapes that programs write them in."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

from quickstudy.data.dataset import Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.delimited import headed
from quickstudy.ingest.importers.encoding import Encoding, decoded_lines, encoding_of
from quickstudy.ingest.importers.labelling import converted, flattened
from quickstudy.ingest.importers.records import NOTHING_SAID, Broken, Rows, Table, ahead
from quickstudy.ingest.importers.usual import names_columns

_LOOKED_AT = 1000  # rows that tell what all hold
_LONGEST = 256 << 20  # characters; programs write a document as one line
_MEND = "Mend or download it again"
_LINES = 'Every line is an object: {"text": "…", "label": "…"}'
_SHAPES = 'It may be a list of objects, {"PART": [[text, label], …]} or {"CLASS": [text, …]}'


class _Object(dict):
    """A JSON object, in which a field may be missing."""

    def __missing__(self, key: str) -> Any:
        return None


def _record(value: Any) -> dict[str, Any]:
    return _Object(value) if isinstance(value, dict) else Broken(f"{str(value)[:40]!r} is no object with named fields")


def read_jsonl(handle: BinaryIO, place: str, reading: Reading = NOTHING_SAID) -> Table:
    """Read JSON Lines: an object a line."""
    encoding = encoding_of(handle, reading.encoding)

    def records() -> Rows:
        for number, line in enumerate(decoded_lines(handle, place, encoding, universal=False), 1):
            if line.strip():
                try:
                    yield f"line {number}", _record(_parse(line))
                except QuickstudyError as error:
                    yield f"line {number}", Broken(error.what)

    held, rows = ahead(records(), _LOOKED_AT)
    if not held:
        raise QuickstudyError("empty", where=place, fix=_LINES)
    if all(isinstance(record, Broken) for _, record in held):
        at, broken = held[0]
        assert isinstance(broken, Broken)
        fix = _MEND if broken.what.startswith("not JSON") else _LINES
        raise QuickstudyError(broken.what, where=f"{place}, {at}", fix=fix)
    return _objects(rows, [record for _, record in held], encoding, reading)


def _objects(rows: Rows, first: list[dict[str, Any]], encoding: Encoding, reading: Reading) -> Table:
    """A table of objects, which may be a labelling tool's export.

    Args:
        rows: all of them.
        first: so many that they tell what all hold.
        encoding: of the file.
        reading: what was said of it.
    """
    sound = [record for record in first if not isinstance(record, Broken)]
    table = converted(rows, sound, reading) or flattened(Table(list(sound[0]), rows, samples=sound[0]), sound)
    table.encoding = encoding
    return table


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        what = f"not JSON ({error.msg}, line {error.lineno} column {error.colno})"
        raise QuickstudyError(what, fix=_MEND) from None
    except RecursionError:
        raise QuickstudyError("JSON nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise QuickstudyError(f"not JSON ({str(error)[:60]})", fix=_MEND) from None


def read_json(handle: BinaryIO, place: str, reading: Reading = NOTHING_SAID) -> Table:
    """Read JSON of one of these shapes.

    [{"text": …, "label": …}, …]      rows, as pandas has them for "records"
    [[text, label], …]                rows without names of columns, "values"
    {KEY: [[text, label], …], …}      rows in named parts, as CLINC150 has them; the column ``split`` holds the key
    {CLASS: [text, …], …}             texts by class
    {CLASS: [{"tokens": […]}, …], …}  tokenised texts by class, as FewRel has them
    {CLASS: [{"data": […]}, …], …}    texts in pieces by class, as Snips has them
    {"columns": …, "data": [[…]]}     pandas' "split"
    {COLUMN: {ROW: …}, …}             pandas' "columns", or "index" the other way round
    {COLUMN: […], …}                  columns
    {"rows": [{"row": {…}}, …]}       rows of Hugging Face's service
    {…: {…: [{"text": …}, …]}}        rows under a key, as pandas' "table", LUIS and Rasa have them

    and JSON Lines, which many call .json.
    """
    encoding = encoding_of(handle, reading.encoding)
    text = "".join(decoded_lines(handle, place, encoding, longest=_LONGEST, most=_LONGEST))
    try:
        value = _parse(text)
    except QuickstudyError as error:
        if (several := _one_after_another(text)) is None:
            raise QuickstudyError(error.what, where=place, fix=error.fix) from None
        if several == "lines":
            return read_jsonl(handle, place, reading)
        value = several
    table = _shaped(value, place, encoding, reading)
    table.encoding = encoding
    return table


def _one_after_another(text: str) -> Any:
    """Objects one after the other: "lines" where each is a line, else a list of them; None where they are not."""
    begin = text.lstrip()
    if not begin.startswith("{"):
        return None
    lines = [line for line in islice(begin.splitlines(), 20) if line.strip()]
    whole = 0
    for line in lines:
        try:
            whole += isinstance(_parse(line), dict)
        except QuickstudyError:
            continue
    if whole > len(lines) / 2:
        return "lines"
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(begin):
        try:
            value, at = decoder.raw_decode(begin, at)
        except (ValueError, RecursionError):
            return None
        found.append(value)
        while at < len(begin) and begin[at] in " \t\r\n,":
            at += 1
    return found


def _shaped(value: Any, place: str, encoding: Encoding, reading: Reading) -> Table:
    if isinstance(value, list) and value:
        return _listed(value, place, encoding, reading)
    if isinstance(value, dict) and value:
        rows = value.get("rows")
        if isinstance(rows, list) and rows and isinstance(rows[0], dict) and isinstance(rows[0].get("row"), dict):
            return _listed([one.get("row") for one in rows if isinstance(one, dict)], place, encoding, reading)
        if (records := _oriented(value, reading)) is not None:
            return _listed(records, place, encoding, reading)
        for part in value.values():
            if isinstance(part, list) and part and _lists_texts(part[0]) is not None:
                return _listed(part, place, encoding, reading)
        if all(isinstance(part, list) for part in value.values()):
            return _parts(value, reading)
        if (records := _under(value, reading)) is not None:
            return _listed(records, place, encoding, reading)
    raise QuickstudyError("JSON of no known shape", where=place, fix=_SHAPES)


def _listed(items: list[Any], place: str, encoding: Encoding, reading: Reading) -> Table:
    if isinstance(items[0], list) and len(items[0]) > 1 and all(_is_plain(cell) for cell in items[0]):
        return _values(items, encoding)
    if isinstance(items[0], str):
        rows = ((f"row {i}", _Object(text=item)) for i, item in enumerate(items, 1))
        return Table(["text"], rows)
    records = [_record(item) for item in _apart(items)]
    if isinstance(records[0], Broken) and all(isinstance(record, Broken) for record in records):
        raise QuickstudyError(records[0].what, where=f"{place}, row 1", fix=_SHAPES)
    return _objects(((f"row {i}", record) for i, record in enumerate(records, 1)), records, encoding, reading)


_OF_SEVERAL = ("patterns", "utterances", "examples", "questions", "sentences", "phrases", "texts")


def _apart(items: list[Any]) -> list[Any]:
    """Objects of which each lists the texts of its class, {"tag": …, "patterns": [text, …]}, as one for each text."""
    if (found := _lists_texts(items[0])) is None:
        return items
    name, label = found
    return [
        {"text": text, "label": item.get(label)}
        for item in items
        if isinstance(item, dict) and isinstance(item.get(name), list)
        for text in item[name]
    ]


def _lists_texts(item: Any) -> tuple[str, str] | None:
    """The fields of an object that list the texts of a class, and name it."""
    if not isinstance(item, dict):
        return None
    name = next((name for name in _OF_SEVERAL if _is_of_texts(item.get(name))), None)
    label = next((key for key in ("tag", "intent", "label", "class", "topic", "name") if key in item), None)
    return None if name is None or label is None else (name, label)


def _is_of_texts(cell: Any) -> bool:
    return isinstance(cell, list) and bool(cell) and all(isinstance(one, str) for one in cell)


def _is_plain(cell: Any) -> bool:
    return cell is None or isinstance(cell, str | int | float)


def _values(items: list[Any], encoding: Encoding) -> Table:
    """Rows without names of columns."""
    width = len(items[0])

    def rows() -> Iterator[tuple[str, list[Any] | Broken]]:
        for number, item in enumerate(items, 1):
            fits = isinstance(item, list) and len(item) == width
            yield f"row {number}", item if fits else Broken(f"{str(item)[:40]!r} has not {width} fields")

    numbers = [str(number) for number in range(1, width + 1)]
    table = headed(numbers, rows(), "", encoding)
    table.header, table.unheaded, table.numbered = None, None, True
    return table


# Rows under a key


def _oriented(value: dict[str, Any], reading: Reading) -> list[Any] | None:
    """Rows of what pandas and others write column by column."""
    names, data = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(data, list) and all(isinstance(row, list) for row in data):
        return [dict(zip(map(str, names), row, strict=False)) if len(row) == len(names) else row for row in data]
    parts = list(value.values())
    if all(isinstance(part, dict) and part for part in parts):
        return _of_dicts(value, reading)
    same = len({len(part) if isinstance(part, list) else -1 for part in parts}) == 1
    if same and len(parts) > 1 and names_columns(list(value), reading, both=True):
        return [dict(zip(value, row, strict=True)) for row in zip(*parts, strict=True)]
    return None


def _of_dicts(value: dict[str, Any], reading: Reading) -> list[Any] | None:
    parts = list(value.values())
    if not all(_is_plain(cell) or isinstance(cell, list) for part in parts for cell in part.values()):
        return None
    inner = list(dict.fromkeys(key for part in parts for key in part))
    if len(parts) < 2 or len(inner) < 2:
        return None
    if names_columns(inner, reading, both=True) and all(_is_in_columns(part) for part in parts):
        return [dict(zip(part, row, strict=True)) for part in parts for row in zip(*part.values(), strict=True)]
    by_column = names_columns(list(value), reading)
    if not by_column and (names_columns(inner, reading) or len(inner) <= len(parts)):
        return parts
    return [{name: part.get(row) for name, part in value.items()} for row in inner]


def _is_in_columns(part: dict[str, Any]) -> bool:
    return len({len(cell) if isinstance(cell, list) else -1 for cell in part.values()} - {-1}) == 1


def _under(value: Any, reading: Reading, depth: int = 3) -> list[Any] | None:
    """The list of objects under a key of an object: the one whose names are those of a table, or the longest."""
    found: list[list[Any]] = []

    def look(part: Any, depth: int) -> None:
        if isinstance(part, list) and part and isinstance(part[0], dict):
            found.append(part)
        elif isinstance(part, dict) and depth:
            if part is not value and (records := _oriented(part, reading)) is not None:
                found.append(records)
            for one in part.values():
                look(one, depth - 1)

    look(value, depth)
    named = [part for part in found if isinstance(part[0], dict) and names_columns(list(part[0]), reading)]
    return max(named or found, key=len, default=None)


# Parts


def _parts(value: dict[str, Any], reading: Reading) -> Table:
    items = [(key, number, item) for key, part in value.items() for number, item in enumerate(part, 1)]
    objects = [item for _, _, item in items if isinstance(item, dict)]
    if objects and names_columns(list(objects[0]), reading):
        whose = {key for key, _, item in items if isinstance(item, dict)}
        return _objects_in_parts([item for item in items if item[0] in whose], objects, reading)
    rows = ((_place(key, number), _keyed(key, item)) for key, number, item in items)
    columns = ["text", "label", "split"] if items and isinstance(items[0][2], list) else ["text", "label"]
    return Table(columns, rows, samples=_keyed(items[0][0], items[0][2]) if items else {})


def _objects_in_parts(items: list[tuple[str, int, Any]], objects: list[Any], reading: Reading) -> Table:
    """Objects that name their columns, in parts: these are the classes where no column is, else a publisher's split."""
    label = None if names_columns(list(objects[0]), reading, both=True) else "label"
    key_of = label or "split"

    def rows() -> Rows:
        for key, number, item in items:
            record = _record(item)
            if not isinstance(record, Broken):
                record = _Object({**record, key_of: record.get(key_of, key) if label is None else key})
            yield _place(key, number), record

    columns = list(dict.fromkeys([*objects[0], key_of]))
    return Table(columns, rows(), samples={**objects[0], key_of: items[0][0]})


def _place(key: str, number: int) -> str:
    """Where a row is; a key may hold what cannot be printed."""
    return f"{key.encode('utf-8', 'backslashreplace').decode()} row {number}"


def _keyed(key: str, item: Any) -> dict[str, Any]:
    if isinstance(item, str):
        return {"text": item, "label": key, "split": None}
    if isinstance(item, list) and len(item) == 2:
        return {"text": item[0], "label": item[1], "split": key}
    if isinstance(item, dict) and isinstance(tokens := item.get("tokens"), list):
        return {"text": " ".join(map(str, tokens)), "label": key, "split": None}
    if isinstance(item, dict) and (pieces := _pieces(item.get("data"))) is not None:
        return {"text": "".join(pieces), "label": key, "split": None}
    return Broken(f"{str(item)[:40]!r} is neither a text nor [text, label]")


def _pieces(data: Any) -> list[str] | None:
    """The texts of [{"text": …}, …]."""
    if not isinstance(data, list) or not all(
        isinstance(one, dict) and isinstance(one.get("text"), str) for one in data
    ):
        return None
    return [one["text"] for one in data]
