"""Images and recordings beside a table that names their files and says their targets.

metadata.csv (file_name, label) as Hugging Face has it, labels.csv (id, breed) of Kaggle, where ids are file names
without their suffix, _classes.csv of Roboflow with a column of 0 and 1 for each name, meta/esc50.csv beside audio/:
which of the columns names files is found by what is there.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import Files
from quickstudy.ingest.importers.columns import listed, pick_columns, remember, taker
from quickstudy.ingest.importers.folders import say_splits
from quickstudy.ingest.importers.formats import READERS, Table
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.rows import Rows
from quickstudy.ingest.importers.several import flag_of
from quickstudy.ingest.importers.usual import usual
from quickstudy.kinds.targets import TARGETS, kind_of, targets_of

SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".json"})
LOOKED_AT = 200
"""Rows of a table that tell what its columns hold."""
ENOUGH = 0.5
"""Share of its cells that must name files for a column to be the one that does."""
_SAMPLES = ("submission", "sample_")
_USUAL = ("file_name", "filename", "file", "path", "filepath", "file_path", "image", "image_id", "audio", "fname", "id")


@dataclass(frozen=True)
class Listing:
    """Tables that name files, all by the same columns."""

    tables: list[str]
    file: str
    """The column that names files."""
    label: str | None
    """That of targets; None where ``flags`` are."""
    flags: tuple[str, ...] | None
    """A column of 0 and 1 for each name."""
    kind: str


class Places:
    """Finds the files that cells name: by path, from the table or from the top, by name, or by name without suffix."""

    def __init__(self, paths: Sequence[str]):
        self._paths = frozenset(paths)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_number: dict[int, list[str]] = defaultdict(list)
        for path in paths:
            name = PurePosixPath(path)
            for called in {name.name, name.stem}:
                self._by_name[called].append(path)
            if name.stem.isdecimal():
                self._by_number[int(name.stem)].append(path)

    def find(self, cell: Any, table: str) -> list[str]:
        """Return the files that a cell may mean, one if it is sure."""
        if isinstance(cell, bool) or not isinstance(cell, str | int) or not str(cell).strip():
            return []
        said = _path_of(str(cell).strip())
        for base in (PurePosixPath(table).parent, PurePosixPath()):
            if (full := str(base / said)) in self._paths:
                return [full]
        parts = PurePosixPath(said).parts
        found = self._by_name.get(parts[-1], []) if parts else []
        if not found and said.isdecimal():
            found = self._by_number.get(int(said), [])
        return _nearest(found, parts, PurePosixPath(table).parent.parts)


def _path_of(cell: str) -> str:
    """The path in a cell, which may be an address as labelling tools write them."""
    if "://" in cell or cell.startswith("/"):
        address = urlsplit(cell)
        cell = unquote(parse_qs(address.query).get("d", [address.path])[0])
    return cell.replace("\\", "/").removeprefix("./").strip("/")


def _nearest(found: list[str], said: tuple[str, ...], beside: tuple[str, ...]) -> list[str]:
    """Those of several files whose folders agree best with what was said, and then with where the table lies."""

    def agreement(path: str) -> tuple[int, int]:
        above = PurePosixPath(path).parts[:-1]
        ends = zip(reversed(above), reversed(said[:-1]), strict=False)
        begins = zip(above, beside, strict=False)
        return _run(ends), _run(begins)

    best = max(map(agreement, found), default=None)
    return [path for path in found if agreement(path) == best]


def _run(pairs: Iterator[tuple[str, str]]) -> int:
    """How many pairs are equal before the first that is not."""
    count = 0
    for one, other in pairs:
        if one != other:
            break
        count += 1
    return count


def find_listing(files: Files, paths: list[str], modality: Modality, wanted: Wanted) -> Listing | None:
    """Return the tables that name files and say their targets; None where there are none, and folders are to say it.

    Args:
        files: of the source.
        paths: the images or recordings among them.
        modality: of these.
        wanted: of the source. A column that was named must be there.

    Raises:
        QuickstudyError: several columns may hold the targets, or tables disagree; or what was named is not there.
    """
    reading = wanted.reading
    if modality == "text" or reading.pattern is not None:
        return None
    tables = [path for path in files.paths if PurePosixPath(path).suffix.lower() in SUFFIXES]
    tables = [path for path in tables if not any(word in PurePosixPath(path).name.lower() for word in _SAMPLES)]
    places = Places(paths)
    found: dict[tuple[str, str | None, tuple[str, ...] | None, str], list[str]] = defaultdict(list)
    undecided: QuickstudyError | None = None
    for path in tables:
        try:
            table, rows = _beginning(files, path)
        except QuickstudyError:
            if reading.file is not None:
                raise
            continue  # some other table, about something else
        file = _file_column(table, rows, places, path, reading.file)
        if file is None:
            continue
        try:
            label, flags, kind = _target_columns(table, rows, file, wanted, files.place(path))
        except QuickstudyError as error:
            undecided = undecided or error
            continue
        if label is not None or flags is not None:
            found[file, label, flags, kind].append(path)
    if not found:
        _check_none(files, paths, wanted, undecided)
        return None
    if len(found) > 1:
        names = listed(sorted(path for some in found.values() for path in some))
        what = f"several tables name its files in different columns: {names}"
        raise QuickstudyError(what, where=files.source, fix="Choose the columns by --file and --label")
    (file, label, flags, kind), chosen = next(iter(found.items()))
    return Listing(chosen, file, label, flags, kind)


def _check_none(files: Files, paths: list[str], wanted: Wanted, undecided: QuickstudyError | None) -> None:
    if wanted.reading.file is not None:
        what = f"no table with a column {wanted.reading.file!r} that names its files"
        raise QuickstudyError(what, where=files.source, fix="Check --file and --label")
    # Where folders say the class, a table may be about anything.
    folders = {path.rpartition("/")[0] for path in paths}
    flat = len(folders) == 1 or say_splits({folder.rpartition("/")[2] for folder in folders})
    if undecided is not None and wanted.labelled and flat:
        raise undecided


def _beginning(files: Files, path: str) -> tuple[Table, list[dict[str, Any]]]:
    with files.open(path) as handle:
        table = READERS[PurePosixPath(path).suffix.lower()](handle, files.place(path))
        return table, [record for _, record in islice(table.rows, LOOKED_AT)]


def _file_column(table: Table, rows: list[dict[str, Any]], places: Places, path: str, named: str | None) -> str | None:
    """The column whose cells name files, the most of them; of equals the one that is usually called so."""
    columns = table.columns if named is None else [name for name in table.columns if name == named]
    best, most = None, ENOUGH if named is None else 0.0
    for column in sorted(columns, key=lambda name: (name.lower().strip() not in _USUAL, table.columns.index(name))):
        hits = sum(bool(places.find(_cell(row, column), path)) for row in rows)
        if hits and (hits > most * len(rows) or (best is None and hits == most * len(rows))):
            best, most = column, hits / len(rows)
    return best


def _cell(row: dict[str, Any], column: str) -> Any:
    try:
        return row[column]
    except QuickstudyError:  # a broken row, which is told when it is read
        return None


def _target_columns(
    table: Table, rows: list[dict[str, Any]], file: str, wanted: Wanted, place: str
) -> tuple[str | None, tuple[str, ...] | None, str]:
    """The column of targets or those of flags, and the kind; no column where no name tells it and folders may.

    Raises:
        QuickstudyError: it may be one of several columns.
    """
    reading = wanted.reading
    others = [name for name in table.columns if name not in (file, reading.group, reading.domain) and name]
    if reading.label_columns is not None:
        return None, reading.label_columns, wanted.kind or kind_of([["one", "two"]])
    if reading.label is not None:
        return (
            (reading.label, None, _kind_of(table, reading.label, wanted))
            if reading.label in others
            else (None, None, "")
        )
    for targets in [targets_of(wanted.kind)] if wanted.kind else TARGETS.values():
        if (name := usual(others, targets.USUAL)) is not None:
            return name, None, _kind_of(table, name, wanted)
    if len(others) > 1 and all(_is_flag(row, name) for row in rows for name in others):
        return None, tuple(others), wanted.kind or kind_of([["one", "two"]])
    likely = [name for name in others if _seems_a_class([_cell(row, name) for row in rows])]
    if len(likely) == 1:
        return likely[0], None, _kind_of(table, likely[0], wanted)
    what = f"no usual name of a column of classes among {listed(others)}" if others else "it has no column of classes"
    raise QuickstudyError(what, where=place, fix="Name it by --label")


def _kind_of(table: Table, column: str, wanted: Wanted) -> str:
    return wanted.kind or kind_of([table.samples.get(column, "")])


def _is_flag(row: dict[str, Any], name: str) -> bool:
    try:
        flag_of(row[name], name)
    except QuickstudyError:
        return False
    return True


def _seems_a_class(cells: list[Any]) -> bool:
    """Whether values repeat, as names do, and are short; numbers with a fraction are measurements."""
    texts = [str(cell) for cell in cells if cell not in (None, "")]
    if not texts or any(isinstance(cell, float | dict | list) for cell in cells):
        return False
    return 2 <= len(set(texts)) <= max(2, len(texts) // 2) and max(map(len, texts)) <= 100


def read_listing(files: Files, paths: list[str], listing: Listing, modality: Modality, wanted: Wanted) -> Rows:
    """Read the files that tables name, with the targets, groups and domains that they say.

    What a table names and is not there is told, and so are the files that none names.

    Raises:
        QuickstudyError: a column is missing. What is wrong with single rows is in ``Rows.bad``.
    """
    rows = Rows(modality, listing.kind)
    targets = targets_of(rows.kind)
    told = {"content": listing.file, "label": listing.label, "label_columns": listing.flags}
    columns = replace(wanted, reading=wanted.reading.model_copy(update=told))
    places, missing, seen = Places(paths), 0, set()
    for path in listing.tables:
        place = files.place(path)
        with files.open(path) as handle:
            table = READERS[PurePosixPath(path).suffix.lower()](handle, place)
            picked = pick_columns(table, modality, columns, targets, frozenset(), place)
            remember(picked, rows)
            take = taker(picked, table, rows, targets, columns)
            for at, record in table.rows:
                try:
                    cell, target, group, domain = take(record)
                    there = places.find(cell, path)
                    if len(there) > 1:
                        raise QuickstudyError(f"{cell!r} may be {there[0]} or {there[1]}")
                    if not there:
                        missing += 1
                        continue
                    content = files.read(there[0])
                    rows.check_content(content)
                except QuickstudyError as error:
                    rows.refuse(f"{place}, {at}", error)
                    continue
                seen.add(there[0])
                rows.add(content, target, there[0], there[0])
                if group is not None:
                    rows.groups.append(group)
                if domain is not None:
                    rows.domains.append(domain)
                wanted.progress(len(seen), len(paths))
    rows.content_columns = set()
    _tell(files, listing, wanted, missing, len(paths) - len(seen))
    return rows


def _tell(files: Files, listing: Listing, wanted: Wanted, missing: int, surplus: int) -> None:
    tables = listing.tables[0] if len(listing.tables) == 1 else f"{len(listing.tables)} tables, as {listing.tables[0]}"
    flags = f"the columns {listed(list(listing.flags or ()))}"
    says = flags if listing.label is None else f"the column {listing.label!r}"
    wanted.note(f"{tables}: {listing.file!r} names the files, and {says} their targets (--file, --label)")
    if missing:
        wanted.note(f"{missing} rows name files that are not there, and are left out")
    if surplus:
        wanted.note(f"{surplus} files are named by no row, and are left out")
