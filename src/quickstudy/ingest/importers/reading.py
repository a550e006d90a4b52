"""A source read as rows: which of its files hold the examples, and of which modality they are."""

from collections import Counter
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import Files, open_source
from quickstudy.ingest.importers.folders import SUFFIXES, check_lost, media_paths, read_folder
from quickstudy.ingest.importers.groups import GroupFile
from quickstudy.ingest.importers.listings import find_listing, read_listing
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.plain import (
    delimited_paths,
    fasttext_paths,
    is_about,
    pairs_of,
    with_labels,
)
from quickstudy.ingest.importers.rows import Rows
from quickstudy.ingest.importers.tables import (
    media_column,
    origins,
    plain_origins,
    read_lines,
    read_tables,
    table_paths,
)

_TABLES = ".csv, .tsv, .jsonl, .json, .parquet"


def read_rows(
    source: Path,
    modality: Modality | None,
    wanted: Wanted,
    mapping: GroupFile | None = None,
    only: Collection[str] | None = None,
) -> Rows:
    """Read the examples of a source.

    Args:
        source: a folder, a .zip, a table or a single file.
        modality: None to tell it from the files.
        wanted: of them.
        mapping: a file of groups, which is no example where it lies among them.
        only: of a folder, the folders directly in it that count.

    Raises:
        QuickstudyError: there are none, it cannot be told which they are, or some are bad and not to be left out.
    """
    reading = wanted.reading
    with open_source(source, only, encoding=reading.encoding, follow_links=reading.follow_links) as files:
        for line in files.notes:
            wanted.note(line)
        if mapping is not None:
            beside = files.path_of(mapping.path)
            files.paths = [path for path in files.paths if path != beside]
        rows = _read(files, modality or _guess(files), wanted)
    if not rows.contents and not rows.bad:
        raise QuickstudyError("no examples, only the names of the columns", where=source)
    _refuse_bad(rows, wanted)
    return rows


def _read(files: Files, modality: Modality, wanted: Wanted) -> Rows:
    tables = table_paths(files) if modality == "text" else _parquet(files)
    single = media_paths(files, modality)
    if modality == "text" and wanted.labelled:
        single = with_labels(single, wanted.note)
    if modality == "text" and tables and any("/" in path and not is_about(path) for path in single):
        what = f"holds both tables ({tables[0]}) and texts in files of their own ({single[0]})"
        raise QuickstudyError(what, where=files.source, fix="Name the one that holds the examples")
    if tables:
        return read_tables(files, origins(files, tables), modality, wanted)
    if modality == "text" and (lines := plain_origins(files, wanted)):
        return read_tables(files, lines, modality, wanted)
    if not single:
        raise _nothing(files, modality)
    if files.is_one:
        return _read_one(files, single[0], modality, wanted)
    says_classes = wanted.reading.pattern is not None or any("/" in path for path in single)
    if modality == "text" and wanted.labelled and not says_classes:
        fix = "Arrange them as CLASS/file; or, if each of their lines is an example of a class, say --label file"
        raise QuickstudyError("the file is in no class folder", where=files.place(single[0]), fix=fix)
    if (listing := find_listing(files, single, modality, wanted)) is not None:
        return read_listing(files, single, listing, modality, wanted)
    check_lost(files, single, wanted)
    return read_folder(files, single, modality, wanted)


def _read_one(files: Files, path: str, modality: Modality, wanted: Wanted) -> Rows:
    """A source that is a single file and no table."""
    if wanted.labelled and wanted.reading.pattern is None:
        if modality == "text":
            fix = "Make a table of it, begin its lines with __label__CLASS, or have a file a class and say --label file"
            raise QuickstudyError("lines of text that name no classes", where=files.source, fix=fix)
        fix = "Name the folder that holds a folder for each class"
        raise QuickstudyError("a single file is no dataset", where=files.source, fix=fix)
    if modality == "text" and not wanted.labelled:
        return read_lines(files, path, wanted)
    return read_folder(files, [path], modality, wanted)


def _refuse_bad(rows: Rows, wanted: Wanted) -> None:
    if not rows.bad:
        return
    bad, total = len(rows.bad), len(rows.bad) + len(rows.contents)
    first = rows.bad[0]
    if not rows.contents:
        fix = f"None of the {total} examples can be read" if total > 1 else None
        raise QuickstudyError(first.what, where=first.where, fix=fix)
    if not wanted.reading.skip_bad:
        how_many = "It is the only bad one" if bad == 1 else f"It is the first of {bad} bad ones"
        fix = f"{how_many} among {total} examples: mend them"
        raise QuickstudyError(first.what, where=first.where, fix=f"{fix} or leave them out by --skip-bad")
    wanted.note(f"left out {bad} bad examples of {total}, the first is {first}")


# Which modality


def _guess(files: Files) -> Modality:
    if parquet := _parquet(files):
        return media_column(files, parquet[0]) or "text"
    media: tuple[Modality, ...] = ("image", "audio")
    found = [modality for modality in media if media_paths(files, modality)]
    if len(found) == 2:
        raise QuickstudyError("holds both images and recordings", where=files.source, fix="Choose by --modality")
    if found:
        return found[0]
    if table_paths(files) or media_paths(files, "text"):
        return "text"
    if fasttext_paths(files) or pairs_of(files) or delimited_paths(files):
        return "text"
    raise _nothing(files, None)


def _parquet(files: Files) -> list[str]:
    return [path for path in files.paths if path.lower().endswith(".parquet")]


def _nothing(files: Files, modality: Modality | None) -> QuickstudyError:
    suffixes = Counter(PurePosixPath(path).suffix.lower() or "no suffix" for path in files.paths)
    there = ", ".join(f"{count} × {suffix}" for suffix, count in suffixes.most_common(4))
    known = {
        "image": f"images ({', '.join(sorted(SUFFIXES['image']))})",
        "audio": f"recordings ({', '.join(sorted(SUFFIXES['audio']))})",
        "text": f"texts ({_TABLES}, .txt)",
        None: "images, recordings or texts",
    }[modality]
    packed = any(path.endswith((".gz", ".tar", ".tgz", ".7z", ".rar", ".xz", ".bz2")) for path in files.paths)
    fix = "Unpack it and import the folder" if packed else "Check the path and --modality"
    if suffixes.keys() & {".xlsx", ".xls", ".ods"}:
        fix = "Save the sheet as CSV"
    what = f"no {known} found; there are {there}" if there else "empty"
    return QuickstudyError(what, where=files.source, fix=fix)
