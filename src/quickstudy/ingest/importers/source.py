"""A folder, an archive or a table → a dataset's description and its examples."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import pyarrow as pa

from quickstudy.data.dataset import Dataset, DatasetInfo, Modality, Reading, Split, make_table
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import Files, Folder, Single, open_source
from quickstudy.ingest.importers.folders import SUFFIXES, media_paths, read_folder
from quickstudy.ingest.importers.groups import GroupFile, group_file, groups_of, tidy, tidy_all
from quickstudy.ingest.importers.rows import Note, Progress, Rows, Wanted
from quickstudy.ingest.importers.tables import media_column, read_lines, read_tables, table_paths

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


_CELLS = 32 << 20  # bytes of examples to an Arrow array: what is in one is dropped here, and its offsets end at 2 GB


def check_name(name: str) -> str:
    """The name, where it may be that of a dataset.

    Raises:
        QuickstudyError: else.
    """
    if not NAME.fullmatch(name):
        fix = "Use lower-case letters, digits, - and _, at most 64, and begin with a letter or digit"
        raise QuickstudyError(f"{name!r} cannot be the name of a dataset", fix=fix)
    return name


def import_source(
    source: Path,
    name: str,
    modality: Modality | None = None,
    *,
    content: str | None = None,
    label: str | None = None,
    group: str | None = None,
    domain: str | None = None,
    pattern: str | None = None,
    split: Split | None = None,
    scope: Literal["dataset", "group"] = "dataset",
    exclude: Collection[str] = (),
    skip_bad: bool = False,
    drop_duplicates: bool = False,
    licence: str = "unknown",
    source_note: str | None = None,
    only: Collection[str] | None = None,
    levels: int | None = None,
    progress: Progress = lambda done, total: None,
    note: Note = lambda line: None,
) -> tuple[DatasetInfo, pa.Table]:
    """Read a source as a dataset. Writes nothing.

    Rows are ordered by class, then by path or row, whatever order the file system gives.

    Args:
        source: a folder, a .zip or a table.
        name: of the dataset.
        modality: None to tell it from the files.
        content: the column of texts (or images, recordings); None for the usual names.
        label: the column of class names; None for the usual names.
        group: a column, a field of the pattern, a folder level ("0" is the top), a .json file that maps each group to
            its classes, ``class`` (each class is its own) or ``none`` (the dataset is one). None: the upper of two
            folder levels or a column or field called group, else ``class`` from ten classes on, else ``none``.
        domain: a column, a field of the pattern or a folder level that says who spoke, drew or photographed.
        pattern: how a path ends, for files that are not sorted into folders: ``{class}_{speaker}_{}``.
        split: puts the whole dataset on one side of the meta-split.
        scope: whether the classes of an episode come from the whole dataset or from one group.
        exclude: classes to leave out.
        skip_bad: leave out unreadable files and rows, and say so, instead of giving up.
        drop_duplicates: leave out examples that are there before, and all that stand under two labels.
        licence: of the data.
        source_note: where the data comes from; None for the name of the source.
        only: of a folder, the folders directly in it that count.
        levels: how many folders above each file say something; None to leave out those that all files share.
        progress: told (done, total); total 0 where it is not known.
        note: told, in a line each, what was decided where the source leaves a choice.

    Raises:
        QuickstudyError: for anything that is wrong with the source or the arguments.
    """
    check_name(name)
    wanted = Wanted(content, label, group, domain, pattern, levels, True, skip_bad, progress, note)
    mapping = group_file(group)
    rows = _read(source, modality, wanted, mapping, only)
    _refuse_bad(rows, wanted)
    labels = tidy_all(rows.labels)
    for one in exclude:
        if one not in labels:
            raise QuickstudyError(f"no class {one!r} to leave out", where=source, fix="Check --exclude-label")
    keep = _kept(rows, labels, exclude, drop_duplicates, note)
    classes = {labels[i] for i in keep}
    if len(classes) < 2:
        what = f"all {len(keep)} examples are of the one class {min(classes)!r}" if classes else "no examples are left"
        fix = "A task needs two classes or more"
        if rows.modality != "text" and pattern is None:
            fix += "; where file names hold the class, say how by --pattern '{class}_{}'"
        raise QuickstudyError(what, where=source, fix=fix)
    groups, word = groups_of(rows, labels, keep, wanted, mapping, name, split)
    order = sorted(keep, key=lambda i: (labels[i], rows.order[i]))
    info = DatasetInfo(
        name=name,
        modality=rows.modality,  # type: ignore[arg-type]
        licence=licence,
        source=source_note or source.name,
        group=word,
        domain=rows.domain_word,
        meta_split=split,
        episode_scope=scope,
        reading=Reading(
            content=_one_of(rows.content_columns),
            label=_one_of(rows.label_columns),
            group=_rule(rows, word, None if mapping is None else mapping.path.name),
            domain=rows.domain_rule,
            pattern=pattern,
            levels=rows.levels,
            exclude=tuple(exclude),
            skip_bad=skip_bad,
            drop_duplicates=drop_duplicates,
        ),
    )
    return info, _table(rows, labels, groups, order)


def read_more(
    source: Path,
    dataset: Dataset,
    *,
    content: str | None = None,
    label: str | None = None,
    group: str | None = None,
    domain: str | None = None,
    pattern: str | None = None,
    skip_bad: bool = False,
    only: Collection[str] | None = None,
    progress: Progress = lambda done, total: None,
    note: Note = lambda line: None,
) -> pa.Table:
    """Read a source as more examples of a dataset, as the dataset was read. Writes nothing.

    A class that is there keeps its group where a .json file said it: only for new classes is a file asked.

    Args:
        source: a folder, a .zip or a table.
        dataset: that they are for; its labels and groups are enough.
        content, label, group, domain, pattern, skip_bad, only, progress, note: as `import_source`. None: as the
            dataset was read.

    Returns:
        the new rows, with the columns of the dataset, by class, then by path or row. [examples]

    Raises:
        QuickstudyError: as `import_source`; or the source does not say group or domain where the dataset has them.
    """
    info = dataset.info
    reading = info.reading or Reading(group={"class": "class", "dataset": "none"}.get(info.group))
    if info.reading is None and info.group == "folder" and group is None:
        fix = "Say by --group which folder level is the group"
        raise QuickstudyError("dataset.yaml does not say how it was read", where=info.name, fix=fix)
    mapping = group_file(group)
    group = group or reading.group
    by_file = group is not None and group.endswith(".json")
    wanted = Wanted(
        content or reading.content,
        label or reading.label,
        group,
        domain or reading.domain,
        pattern or reading.pattern,
        reading.levels,
        True,
        skip_bad or reading.skip_bad,
        progress,
        note,
    )
    rows = _read(source, info.modality, wanted, mapping, only)
    _refuse_bad(rows, wanted)
    labels = tidy_all(rows.labels)
    keep = _kept(rows, labels, reading.exclude, reading.drop_duplicates, note)
    if not keep:
        raise QuickstudyError("no examples are left: all are of classes that the dataset leaves out", where=source)
    if by_file:
        group_of = {} if mapping is None else mapping.group_of
        group_of |= dict(zip(dataset.column("label"), dataset.column("group"), strict=True))
        if mapping is None and (new := sorted({labels[i] for i in keep} - set(group_of))):
            what = f"{len(new)} new classes are in no group: {', '.join(map(repr, new[:3]))}{', …' if new[3:] else ''}"
            raise QuickstudyError(what, where=source, fix="Say their groups by --group FILE.json")
        mapping = GroupFile(source if mapping is None else mapping.path, group_of)
    elif not rows.groups and group not in ("class", "none"):
        fix = "Name what says it by --group"
        raise QuickstudyError(f"does not say the group ({info.group}) of its examples", where=source, fix=fix)
    if info.domain is None:
        rows.domains = []
    elif not rows.domains:
        fix = "Name what says it by --domain"
        raise QuickstudyError(f"does not say the domain ({info.domain}) of its examples", where=source, fix=fix)
    quiet = replace(wanted, note=lambda line: None)  # what groups are was told when the dataset was imported
    groups, _ = groups_of(rows, labels, keep, quiet, mapping, info.name, None)
    return _table(rows, labels, groups, sorted(keep, key=lambda i: (labels[i], rows.order[i])))


def _one_of(names: set[str]) -> str | None:
    """The name, where there is only one."""
    return min(names) if len(names) == 1 else None


def _rule(rows: Rows, word: str, file: str | None) -> str | None:
    """How `read_more` is to find the groups. Of a file the name alone is kept: the path is this machine's."""
    if file is not None:
        return file
    return rows.group_rule if rows.groups else {"class": "class", "dataset": "none"}[word]


@dataclass(frozen=True)
class Queries:
    """Examples of which the class may be unknown."""

    modality: str
    contents: list
    paths: list[str]
    labels: list[str] | None
    """Where the source names one for every example."""


def read_queries(
    source: Path,
    modality: Modality | None = None,
    *,
    content: str | None = None,
    label: str | None = None,
    pattern: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Queries:
    """Read what a model is to predict: a file, a folder or a table, with labels where the source has them.

    Of a .txt file, every line is an example.

    Raises:
        QuickstudyError: as `import_source`.
    """
    wanted = Wanted(content, label, "none", None, pattern, None, False, False, progress)
    rows = _read(source, modality, wanted, None)
    _refuse_bad(rows, wanted)
    order = sorted(range(len(rows.contents)), key=lambda i: rows.order[i])
    labels = [tidy(rows.labels[i]) for i in order]
    return Queries(
        modality=rows.modality,
        contents=[rows.contents[i] for i in order],
        paths=[rows.paths[i] for i in order] if rows.paths else [f"text {i + 1}" for i in range(len(order))],
        labels=labels if all(labels) else None,
    )


def _read(
    source: Path,
    modality: str | None,
    wanted: Wanted,
    mapping: "GroupFile | None",
    only: Collection[str] | None = None,
) -> Rows:
    with open_source(source, only) as files:
        if mapping is not None and isinstance(files, Folder) and mapping.path.resolve().is_relative_to(files.root):
            beside = mapping.path.resolve().relative_to(files.root).as_posix()
            files.paths = [path for path in files.paths if path != beside]
        if modality is None:
            modality = _guess(files)
        tables = [path for path in table_paths(files) if modality == "text" or path.endswith(".parquet")]
        single = media_paths(files, modality)
        if modality == "text" and tables and any("/" in path for path in single):
            what = f"holds both tables ({tables[0]}) and texts in files of their own ({single[0]})"
            raise QuickstudyError(what, where=source, fix="Name the one that holds the examples")
        if tables:
            rows = read_tables(files, tables, modality, wanted)
        elif not single:
            raise _nothing(files, modality)
        elif isinstance(files, Single):
            if wanted.labelled and wanted.pattern is None:
                fix = "Name the folder that holds a folder for each class"
                raise QuickstudyError("a single file is no dataset", where=source, fix=fix)
            lines = modality == "text" and not wanted.labelled
            rows = read_lines(files, single[0]) if lines else read_folder(files, single, modality, wanted)
        else:
            if ignored := sorted(set(files.paths) - set(single)):
                more = ", …" if len(ignored) > 3 else ""
                wanted.note(f"ignored {len(ignored)} other files ({', '.join(ignored[:3])}{more})")
            rows = read_folder(files, single, modality, wanted)
    if not rows.contents and not rows.bad:
        raise QuickstudyError("no examples, only the names of the columns", where=source)
    return rows


_TABLES = ".csv, .tsv, .jsonl, .json, .parquet"


def _guess(files: Files) -> str:
    tables = table_paths(files)
    if tables and tables[0].endswith(".parquet"):
        return media_column(files, tables[0]) or "text"
    found = [modality for modality in ("image", "audio") if media_paths(files, modality)]
    if len(found) == 2:
        raise QuickstudyError("holds both images and recordings", where=files.source, fix="Choose by --modality")
    if found:
        return found[0]
    if tables or media_paths(files, "text"):
        return "text"
    raise _nothing(files, None)


def _nothing(files: Files, modality: str | None) -> QuickstudyError:
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
    what = f"no {known} found; there are {there}" if there else "empty"
    return QuickstudyError(what, where=files.source, fix=fix)


def _refuse_bad(rows: Rows, wanted: Wanted) -> None:
    if not rows.bad:
        return
    bad, total = len(rows.bad), len(rows.bad) + len(rows.contents)
    first = rows.bad[0]
    if not rows.contents:
        fix = f"None of the {total} examples can be read" if total > 1 else None
        raise QuickstudyError(first.what, where=first.where, fix=fix)
    if not wanted.skip_bad:
        how_many = "It is the only bad one" if bad == 1 else f"It is the first of {bad} bad ones"
        fix = f"{how_many} among {total} examples: mend them"
        raise QuickstudyError(first.what, where=first.where, fix=f"{fix} or leave them out by --skip-bad")
    wanted.note(f"left out {bad} bad examples of {total}, the first is {first}")


def _kept(rows: Rows, labels: list[str], exclude: Collection[str], drop_duplicates: bool, note: Note) -> list[int]:
    """The rows that are kept."""
    keep = [i for i, label in enumerate(labels) if label not in exclude]
    if drop_duplicates:
        # Not the rows in the order of reading but in their final order, so that the same one is kept everywhere.
        keep.sort(key=lambda i: (labels[i], rows.order[i]))
        label_of: dict[bytes | str, set[str]] = {}
        for i in keep:
            label_of.setdefault(rows.contents[i], set()).add(labels[i])
        before, seen = len(keep), set()
        contested = {content for content, names in label_of.items() if len(names) > 1}
        single = []
        for i in keep:
            if rows.contents[i] not in seen and rows.contents[i] not in contested:
                seen.add(rows.contents[i])
                single.append(i)
        keep = single
        if before > len(keep):
            note(f"left out {before - len(keep)} duplicates, {len(contested)} of them under two labels")
    return keep


def _table(rows: Rows, labels: list[str], groups: list[str], order: list[int]) -> pa.Table:
    tables = []
    start = size = 0
    for end, i in enumerate(order, 1):
        size += len(rows.contents[i])
        if size >= _CELLS or end == len(order):
            part = order[start:end]
            tables.append(
                make_table(
                    rows.modality,  # type: ignore[arg-type]
                    [rows.contents[j] for j in part],
                    [labels[j] for j in part],
                    [groups[j] for j in part],
                    [tidy(rows.domains[j]) for j in part] if rows.domains else None,
                    [rows.paths[j] for j in part] if rows.paths else None,
                )
            )
            for j in part:
                rows.contents[j] = None  # Arrow holds a copy
            start, size = end, 0
    return pa.concat_tables(tables)
