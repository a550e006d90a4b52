"""Examples as rows: CSV, TSV, JSON Lines, JSON, and Parquet in the Hugging Face layout."""

from pathlib import PurePosixPath
from sys import intern

from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import Files
from quickstudy.ingest.importers.columns import CONTENT_COLUMNS, listed, pick_columns
from quickstudy.ingest.importers.formats import MAX_ROWS, READERS, decoded_lines, read_parquet
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.rows import Rows


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

    Raises:
        QuickstudyError: for a file that cannot be read as what its suffix says, or that lacks a column. What is wrong
            with single rows is in ``Rows.bad``.
    """
    rows = Rows(modality)
    seen = 0
    for path in paths:
        place = files.place(path)
        with files.open(path) as handle:
            table = READERS[PurePosixPath(path).suffix.lower()](handle, place)
            pick = pick_columns(table, modality, wanted, rows, place)
            for at, record in table.rows:
                seen += 1
                if seen > MAX_ROWS:
                    raise QuickstudyError(f"more than {MAX_ROWS:,} rows", where=place, fix="Import a part of it")
                try:
                    content, label, group, domain = pick(record)
                    rows.check_content(content)
                except QuickstudyError as error:
                    rows.refuse(f"{place}, {at}", error)
                    continue
                files.count(len(content))
                rows.add(content, label, f"{path}, {at}", seen)
                if group is not None:
                    rows.groups.append(intern(group))
                if domain is not None:
                    rows.domains.append(intern(domain))
                if seen % 256 == 0:
                    wanted.progress(seen, 0)
    wanted.progress(seen, seen)
    for what, column in (("group", rows.groups), ("domain", rows.domains)):
        if column and len(column) != len(rows.contents):
            where = files.source
            raise QuickstudyError(f"some of its files have a {what} column and some have none", where=where)
    return rows


def read_lines(files: Files, path: str) -> Rows:
    """A text file of which each line is an example without a class; blank lines are skipped."""
    rows = Rows("text")
    with files.open(path) as handle:
        for number, line in enumerate(decoded_lines(handle, files.place(path)), 1):
            if line.strip():
                rows.add(line.strip(), "", f"{path}, line {number}", number)
    return rows
