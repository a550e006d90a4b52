"""Examples as rows: CSV, TSV, JSON Lines, JSON, and Parquet in the Hugging Face layout."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import Files
from quickstudy.ingest.importers.columns import (
    CONTENT_COLUMNS,
    Picked,
    listed,
    pick_columns,
    remember,
    taker,
    told_kind,
)
from quickstudy.ingest.importers.formats import MAX_ROWS, READERS, Table, decoded_lines, read_parquet
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.rows import Rows
from quickstudy.ingest.importers.several import is_pattern, only_flags
from quickstudy.kinds.targets import PLAIN, targets_of


def table_paths(files: Files) -> list[str]:
    """The files that hold tables. JSON beside other tables is about them, and Parquet stands alone."""
    by_suffix = {path: PurePosixPath(path).suffix.lower() for path in files.paths}
    tables = [path for path, suffix in by_suffix.items() if suffix in READERS]
    for alone in ({".parquet"}, {".csv", ".tsv", ".jsonl", ".ndjson"}):
        if chosen := [path for path in tables if by_suffix[path] in alone]:
            return chosen
    if len(tables) > 1:
        what = f"holds {len(tables)} JSON files: {listed(tables)}"
        raise QuickstudyError(what, where=files.source, fix="Name the one that holds the examples")
    return tables


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


def read_tables(files: Files, paths: list[str], modality: Modality, wanted: Wanted) -> Rows:
    """Read tables one after the other as one dataset; a publisher's train, valid and test files are joined.

    Of which kind its targets are the first one tells.

    Raises:
        QuickstudyError: for a file that cannot be read as what its suffix says, or that lacks a column. What is wrong
            with single rows is in ``Rows.bad``.
    """
    rows, seen = Rows(modality, wanted.kind or ""), 0
    patterns = any(map(is_pattern, wanted.reading.label_columns or ()))
    flags = only_flags(_tables(files, paths)) if patterns else frozenset()
    for path in paths:
        with files.open(path) as handle:
            table = READERS[PurePosixPath(path).suffix.lower()](handle, files.place(path))
            rows.kind = rows.kind or told_kind(table, wanted.reading)
            picked = pick_columns(table, modality, wanted, targets_of(rows.kind), flags, files.place(path))
            remember(picked, rows)
            seen = _read_table(files, path, table, picked, rows, wanted, seen)
        if rows.flag_columns is not None:  # a pattern means the same in all of them
            wanted = replace(wanted, reading=wanted.reading.model_copy(update={"label_columns": rows.flag_columns}))
    wanted.progress(seen, seen)
    if rows.unsplit is not None:
        one = targets_of(rows.kind).ONE
        wanted.note(f"{rows.unsplit!r} is read as one {one}. If it is several, say by --separator what is between them")
    for what, column in (("group", rows.groups), ("domain", rows.domains)):
        if column and len(column) != len(rows.contents):
            where = files.source
            raise QuickstudyError(f"some of its files have a {what} column and some have none", where=where)
    return rows


def _tables(files: Files, paths: list[str]) -> Iterator[Table]:
    for path in paths:
        with files.open(path) as handle:
            yield READERS[PurePosixPath(path).suffix.lower()](handle, files.place(path))


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


def read_lines(files: Files, path: str) -> Rows:
    """A text file of which each line is an example without a target; blank lines are skipped."""
    rows = Rows("text", PLAIN)
    with files.open(path) as handle:
        for number, line in enumerate(decoded_lines(handle, files.place(path)), 1):
            if line.strip():
                rows.add(line.strip(), None, f"{path}, line {number}", number)
    return rows
