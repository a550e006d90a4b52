"""Examples as rows: CSV, TSV, JSON Lines, JSON, Parquet in the Hugging Face layout, and text files line by line."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from quickstudy.data.dataset import Modality, Reading
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import Files
from quickstudy.ingest.importers.columns import Picked, listed, pick_columns, remember, taker, told_kind
from quickstudy.ingest.importers.encoding import decoded_lines, encoding_of, half
from quickstudy.ingest.importers.formats import READERS, read_parquet
from quickstudy.ingest.importers.options import Note, Wanted
from quickstudy.ingest.importers.plain import (
    Pair,
    delimited_paths,
    delimited_table,
    fasttext_paths,
    fasttext_table,
    line_paths,
    lines_table,
    names_behind,
    pair_table,
    pairs_of,
)
from quickstudy.ingest.importers.records import MAX_ROWS, Table
from quickstudy.ingest.importers.rows import Rows
from quickstudy.ingest.importers.several import is_pattern, only_flags
from quickstudy.ingest.importers.told import is_headless
from quickstudy.ingest.importers.usual import CONTENT_COLUMNS, is_header, names_columns
from quickstudy.kinds.targets import PLAIN, targets_of

_TRIED = 20
"""Of many JSON files so many at least are no tables before none is thought to be."""
FILE = "file"
"""As the column of labels, where there is none of this name: the names of the files."""


@dataclass(frozen=True)
class Origin:
    """What a table is read from."""

    path: str
    open: Callable[[Reading, ExitStack], Table]


def table_paths(files: Files) -> list[str]:
    """The files that hold tables. JSON beside other tables is about them, and Parquet stands alone."""
    by_suffix = {path: PurePosixPath(path).suffix.lower() for path in files.paths}
    tables = [path for path, suffix in by_suffix.items() if suffix in READERS]
    for alone in ({".parquet"}, {".csv", ".tsv", ".tab", ".psv", ".jsonl", ".ndjson"}):
        if chosen := [path for path in tables if by_suffix[path] in alone]:
            return chosen
    return tables if len(tables) < 2 else _alike(files, tables)


def _alike(files: Files, paths: list[str]) -> list[str]:
    """Of several JSON files those that hold examples, if these are of one shape."""
    shapes: dict[tuple[str, ...], list[str]] = {}
    for number, path in enumerate(paths):
        if len(shapes) > 1 or (not shapes and number == _TRIED):
            break
        try:
            with files.open(path) as handle:
                table = READERS[".json"](handle, files.place(path))
                if names_columns(table.columns, Reading()):
                    shapes.setdefault(tuple(table.columns), []).append(path)
        except QuickstudyError:
            continue
    if len(shapes) == 1:
        return next(iter(shapes.values()))
    what = f"holds {len(paths)} JSON files: {listed(paths)}"
    raise QuickstudyError(what, where=files.source, fix="Name the one that holds the examples")


def origins(files: Files, paths: Sequence[str]) -> list[Origin]:
    """Return files of tables as what they are read from."""

    def read(path: str, reading: Reading, stack: ExitStack) -> Table:
        suffix = PurePosixPath(path).suffix.lower()
        return READERS[suffix](stack.enter_context(files.open(path)), files.place(path), reading)

    return [Origin(path, partial(read, path)) for path in paths]


def plain_origins(files: Files, wanted: Wanted) -> list[Origin]:
    """Return the text files that hold many examples each: lines with labels, or two files line by line.

    Where examples need no label, a file of lines is no table of them.
    """
    if paths := fasttext_paths(files):
        return [Origin(path, partial(fasttext_table, files, path)) for path in paths]
    if pairs := pairs_of(files):
        return [Origin(pair.texts, partial(_pair, files, pair)) for pair in pairs]
    if wanted.reading.label == FILE and (paths := line_paths(files)):
        return [Origin(path, partial(lines_table, files, path)) for path in paths]
    if wanted.labelled and (paths := delimited_paths(files)):
        return [Origin(path, partial(delimited_table, files, path)) for path in paths]
    return []


def _pair(files: Files, pair: Pair, reading: Reading, stack: ExitStack) -> Table:
    return pair_table(files, pair, reading, stack)


def media_column(files: Files, path: str) -> Modality | None:
    """The modality that the binary cells of a Parquet file have by its column names, if there are such cells."""
    if not path.endswith(".parquet"):
        return None
    with files.open(path) as handle:
        table = read_parquet(handle, files.place(path))
        media: tuple[Modality, ...] = ("image", "audio")
        for modality in media:
            if any(name.lower() in CONTENT_COLUMNS[modality] for name in table.media):
                return modality
        return "image" if table.media else None


def read_tables(files: Files, sources: Sequence[Origin], modality: Modality, wanted: Wanted) -> Rows:
    """Read tables one after the other as one dataset; a publisher's train, valid and test files are joined.

    Of which kind its targets are the first one tells.

    Raises:
        QuickstudyError: for a file that cannot be read as what its suffix says, or that lacks a column. What is wrong
            with single rows is in ``Rows.bad``.
    """
    rows, seen = Rows(modality, wanted.kind or ""), 0
    wanted = replace(wanted, note=_once(wanted.note))
    told = _Told()
    patterns = any(map(is_pattern, wanted.reading.label_columns or ()))
    flags = only_flags(_tables(sources, wanted)) if patterns else frozenset()
    leading = _leading(files, sources, modality, wanted, flags) if len(sources) > 1 else None
    for origin in sources:
        with ExitStack() as stack:
            place = files.place(origin.path)
            table = _headed(origin.open(wanted.reading, stack), wanted, leading)
            _by_file(table, origin, wanted)
            rows.kind = rows.kind or told_kind(table, wanted.reading)
            led = _led(table, leading, wanted)
            picked = pick_columns(table, modality, led, targets_of(rows.kind), flags, place)
            remember(picked, rows)
            begin = len(rows.contents)
            seen = _read_table(files, origin.path, table, picked, rows, wanted, seen)
            told.table(origin, table, range(begin, len(rows.contents)))
        if rows.flag_columns is not None:  # a pattern means the same in all of them
            wanted = replace(wanted, reading=wanted.reading.model_copy(update={"label_columns": rows.flag_columns}))
    wanted.progress(seen, seen)
    told.tell(wanted.note)
    _name_numbers(files, rows, wanted)
    _name_by_file(rows, told, wanted)
    if rows.unsplit is not None:
        one = targets_of(rows.kind).ONE
        wanted.note(f"{rows.unsplit!r} is read as one {one}. If it is several, say by --separator what is between them")
    for what, column in (("group", rows.groups), ("domain", rows.domains)):
        if column and len(column) != len(rows.contents):
            where = files.source
            raise QuickstudyError(f"some of its files have a {what} column and some have none", where=where)
    return rows


def _once(note: Note) -> Note:
    """Several tables are told alike."""
    said: set[str] = set()

    def tell(line: str) -> None:
        if line not in said:
            said.add(line)
            note(line)

    return tell


class _Told:
    """What the tables of a source were, for the notes."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, range]] = []
        """The rows of each."""
        self._encodings: dict[str, list[str]] = {}
        self._left_out: Counter[str] = Counter()
        self._about: dict[str, None] = {}

    def table(self, origin: Origin, table: Table, rows: range) -> None:
        self.rows.append((origin.path, rows))
        if table.encoding.guessed:
            self._encodings.setdefault(table.encoding.name, []).append(origin.path)
        self._left_out.update(table.left_out)
        if table.about is not None:
            self._about[table.about] = None

    def tell(self, note: Note) -> None:
        for about in self._about:
            note(f"read as {about}")
        for encoding, paths in self._encodings.items():
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            note(f"{paths[0]}{more} is not UTF-8 and seems to be {encoding.upper()}. Say otherwise by --encoding")
        for why, count in self._left_out.items():
            note(f"left out {count:,} {why}")


def _headed(table: Table, wanted: Wanted, leading: "_Leading | None" = None) -> Table:
    """A table with its first row as what it is: the names of its columns, or an example."""
    said = wanted.reading.header
    if table.unheaded is None or table.header is None or said is True:
        return table
    like_the_others = leading is not None and leading.numbered and len(leading.columns) == len(table.columns)
    named = is_header(list(table.header.values()), wanted.reading)
    if said is False or (not named and (like_the_others or is_headless(table, wanted.reading))):
        return table.unheaded(table)
    return table


@dataclass(frozen=True)
class _Leading:
    """Of several tables the one that tells which columns of the others are what."""

    columns: list[str]
    numbered: bool
    content: str
    target: str | None


def _leading(
    files: Files, sources: Sequence[Origin], modality: Modality, wanted: Wanted, flags: frozenset[str]
) -> _Leading | None:
    """The first table whose columns are told from what they hold; None where names tell."""
    for origin in sources:
        with ExitStack() as stack:
            table = _headed(origin.open(wanted.reading, stack), wanted)
            if table.header is not None and is_header(list(table.header.values()), wanted.reading):
                return None
            if modality != "text" or (table.header is None and not table.numbered):
                return None
            _by_file(table, origin, wanted)
            try:
                targets = targets_of(wanted.kind or told_kind(table, wanted.reading))
                picked = pick_columns(table, modality, wanted, targets, flags, files.place(origin.path))
            except QuickstudyError:
                continue
            return _Leading(table.columns, table.numbered, picked.content, picked.target)
    return None


def _led(table: Table, leading: _Leading | None, wanted: Wanted) -> Wanted:
    """What is wanted of a table that has the columns of the one that leads."""
    if leading is None or leading.columns != table.columns:
        return wanted
    reading, update = wanted.reading, {}
    if reading.content is None:
        update["content"] = leading.content
    if reading.label is None and reading.label_columns is None and leading.target is not None:
        update["label"] = leading.target
    return replace(wanted, reading=reading.model_copy(update=update))


def _tables(sources: Sequence[Origin], wanted: Wanted) -> Iterator[Table]:
    for origin in sources:
        with ExitStack() as stack:
            yield _headed(origin.open(wanted.reading, stack), wanted)


def _read_table(files: Files, path: str, table: Table, picked: Picked, rows: Rows, wanted: Wanted, seen: int) -> int:
    """Append the rows of a table after so many; return how many there are now."""
    place = files.place(path)
    take = taker(picked, table, rows, targets_of(rows.kind), wanted)
    for at, record in table.rows:
        seen += 1
        if seen > MAX_ROWS:
            raise QuickstudyError(f"more than {MAX_ROWS:,} rows", where=place, fix="Import a part of it")
        try:
            content, target, group, domain = take(record)
            rows.check_content(content)
        except QuickstudyError as error:
            rows.refuse(f"{place}, {at}", error)
            continue
        files.count(len(content))
        rows.add(content, target, f"{path}, {at}", seen)
        if group is not None:
            rows.groups.append(group)
        if domain is not None:
            rows.domains.append(domain)
        if seen % 256 == 0:
            wanted.progress(seen, 0)
    return seen


# Classes that the columns do not name


def _by_file(table: Table, origin: Origin, wanted: Wanted) -> None:
    """Give a table a column with the file's name, where that is the label."""
    if wanted.reading.label != FILE or FILE in table.columns:
        return
    name, before = PurePosixPath(origin.path).stem, table.rows

    def rows() -> Iterator[tuple[str, dict[str, Any]]]:
        for at, record in before:
            record[FILE] = name
            yield at, record

    table.rows = rows()
    table.columns = [*table.columns, FILE]


def _name_numbers(files: Files, rows: Rows, wanted: Wanted) -> None:
    """Put names in the place of numbers, where a file beside the tables says them."""
    targets = targets_of(rows.kind)
    labelled = [target for target in rows.targets if target is not None]
    if (found := names_behind(files, Counter(targets.count(labelled)))) is None:
        return
    path, names = found
    by_number = {number: targets.read(name, path) for number, name in names.items()}
    if not all(isinstance(target, str) for target in labelled):
        return
    rows.targets = [None if target is None else by_number[target] for target in rows.targets]
    wanted.note(f"the labels are numbers; their names are those of {path}")


def _name_by_file(rows: Rows, told: _Told, wanted: Wanted) -> None:
    """Take the names of the files for classes, where each file has one class and several share a name of it.

    So NLU-Evaluation-Data has "query" in alarm_query.csv and in calendar_query.csv.
    """
    if wanted.reading.label is not None or len(told.rows) < 2 or rows.kind != PLAIN:
        return
    classes = [{rows.targets[row] for row in part} for _, part in told.rows]
    if not all(len(one) == 1 for one in classes):
        return
    own = [str(next(iter(one))) for one in classes]
    stems = [PurePosixPath(path).stem for path, _ in told.rows]
    parts = all(stem == name or stem.endswith(f"_{name}") for stem, name in zip(stems, own, strict=True))
    if not parts or len(set(own)) == len(own) or len(set(stems)) != len(stems):
        return
    column = next(iter(rows.target_columns), "label")
    for stem, (_, part) in zip(stems, told.rows, strict=True):
        rows.targets[part.start : part.stop] = [stem] * len(part)
    rows.target_columns = {FILE}
    wanted.note(
        f"several files share a name in {column!r}: the classes are the names of the files. --label {column} takes the "
        f"{len(set(own))} names in that column"
    )


def read_lines(files: Files, path: str, wanted: Wanted) -> Rows:
    """A text file of which each line is an example without a target; blank lines are skipped."""
    rows = Rows("text", PLAIN)
    with files.open(path) as handle:
        encoding = encoding_of(handle, wanted.reading.encoding)
        if encoding.guessed:
            wanted.note(f"{path} is not UTF-8 and seems to be {encoding.name.upper()}. Say otherwise by --encoding")
        for number, line in enumerate(decoded_lines(handle, files.place(path), encoding, universal=False), 1):
            if not line.strip():
                continue
            if (wrong := half(line, encoding.name)) is not None:
                rows.refuse(f"{files.place(path)}, line {number}", QuickstudyError(f"the line {wrong}"))
            else:
                rows.add(line.strip(), None, f"{path}, line {number}", number)
    return rows
