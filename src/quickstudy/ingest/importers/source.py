"""A folder, an archive or a table → a dataset's description and its examples."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from quickstudy.data.dataset import Dataset, DatasetInfo, Modality, Reading, check_name
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.encoding import check_whole
from quickstudy.ingest.importers.groups import GroupFile, group_file, groups_of
from quickstudy.ingest.importers.keeping import as_table, kept
from quickstudy.ingest.importers.options import NOTHING_SAID, ImportOptions, Note, Progress, Wanted
from quickstudy.ingest.importers.reading import read_rows
from quickstudy.ingest.importers.rows import Rows
from quickstudy.kinds.targets import kind_of, targets_of

AS_BEFORE = Reading()
"""Nothing is read otherwise than a dataset was."""


# A new dataset


def import_source(
    source: Path,
    name: str,
    options: ImportOptions = NOTHING_SAID,
    *,
    only: Collection[str] | None = None,
    progress: Progress = lambda done, total: None,
    note: Note = lambda line: None,
) -> tuple[DatasetInfo, pa.Table]:
    """Read a source as a dataset. Writes nothing.

    Rows are ordered by target, then by path or row, whatever order the file system gives.

    Args:
        source: a folder, a .zip or a table.
        name: of the dataset.
        options: how to read it, and what to say of it.
        only: of a folder, the folders directly in it that count.
        progress: told (done, total); total 0 where it is not known.
        note: told, in a line each, what was decided where the source leaves a choice.

    Raises:
        QuickstudyError: for anything that is wrong with the source or the options.
    """
    check_name(name)
    wanted = Wanted(options, _kind_said(options, options.kind), progress=progress, note=note)
    mapping = _mapping(options.group)
    rows = read_rows(source, options.modality, wanted, mapping, only)
    _check_excluded(options.exclude, rows, source)
    keep = kept(rows, options, note)
    _refuse_too_few(rows, keep, options, source)
    groups, word = groups_of(rows, keep, wanted, mapping, name, options.split)
    return _described(source, name, options, rows, word, mapping), as_table(rows, groups, keep)


def _mapping(group: str | None) -> GroupFile | None:
    """The file of groups that ``--group`` names."""
    mapping = group_file(group)
    if mapping is not None:
        try:
            check_whole([*mapping.group_of, *mapping.group_of.values()], "name of a group or class")
        except QuickstudyError as error:
            raise QuickstudyError(error.what, where=mapping.path) from None
    return mapping


def _kind_said(reading: Reading, kind: str | None) -> str | None:
    """The kind that the options say; None where the source is to tell it.

    Raises:
        QuickstudyError: they contradict one another, or this version does not know it.
    """
    for option, value in (("--separator", reading.separator), ("--label-columns", reading.label_columns)):
        if value is None:
            continue
        if not value:
            raise QuickstudyError("is empty", where=option, fix="Leave it out, or say what it is")
        kind = kind or kind_of([["one", "two"]])
        targets = targets_of(kind, "--kind")
        if not targets.fits(["one", "two"]):
            what = f"a target of kind {kind} is one {targets.ONE}, and cannot be several"
            raise QuickstudyError(what, where=option, fix="Leave it out, or say another --kind")
    if reading.label is not None and reading.label_columns is not None:
        what = "targets are in one column, or in a column for each name"
        raise QuickstudyError(what, where="--label-columns", fix="Leave it or --label out")
    if kind is not None:
        targets_of(kind, "--kind")
    return kind


def _check_excluded(exclude: Collection[str], rows: Rows, source: Path) -> None:
    targets = targets_of(rows.kind)
    there = targets.count(rows.targets)
    for one in exclude:
        if one not in there:
            raise QuickstudyError(f"no {targets.ONE} {one!r} to leave out", where=source, fix="Check --exclude-label")


def _refuse_too_few(rows: Rows, keep: list[int], options: ImportOptions, source: Path) -> None:
    wrong = targets_of(rows.kind).too_few([rows.targets[i] for i in keep])
    if wrong is None:
        return
    what, fix = wrong
    if rows.modality != "text" and options.pattern is None:
        fix += "; where file names hold the class, say how by --pattern '{class}_{}'"
    raise QuickstudyError(what, where=source, fix=fix)


def _described(
    source: Path, name: str, options: ImportOptions, rows: Rows, word: str, mapping: GroupFile | None
) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        modality=rows.modality,
        kind=rows.kind,
        licence=options.licence,
        source=options.source_note or source.name,
        group=word,
        domain=rows.domain_word,
        meta_split=options.split,
        episode_scope=options.scope,
        reading=options.remembered(
            content=_one_of(rows.content_columns),
            label=_one_of(rows.target_columns),
            label_columns=rows.flag_columns,
            group=_rule(rows, word, mapping),
            domain=rows.domain_rule,
            levels=rows.levels,
        ),
    )


def _one_of(names: set[str]) -> str | None:
    """The name, where there is only one."""
    return min(names) if len(names) == 1 else None


def _rule(rows: Rows, word: str, mapping: GroupFile | None) -> str | None:
    """How `read_more` is to find the groups. Of a file the name alone is kept: the path is this machine's."""
    if mapping is not None:
        return mapping.path.name
    return rows.group_rule if rows.groups else {"class": "class", "dataset": "none"}[word]


# More of a dataset


def read_more(
    source: Path,
    dataset: Dataset,
    differs: Reading = AS_BEFORE,
    *,
    only: Collection[str] | None = None,
    progress: Progress = lambda done, total: None,
    note: Note = lambda line: None,
) -> pa.Table:
    """Read a source as more examples of a dataset, as the dataset was read. Writes nothing.

    A class that is there keeps its group where a .json file said it: only for new classes is a file asked.

    Args:
        source: a folder, a .zip or a table.
        dataset: that they are for; its labels and groups are enough.
        differs: what is to be read otherwise than the dataset was.
        only, progress, note: as `import_source`.

    Returns:
        the new rows, with the columns of the dataset, by target, then by path or row. [examples]

    Raises:
        QuickstudyError: as `import_source`; or the source does not say group or domain where the dataset has them.
    """
    info = dataset.info
    reading = _as_before(info, differs)
    targets = targets_of(info.kind, info.name)
    wanted = Wanted(reading, _kind_said(reading, info.kind), progress=progress, note=note)
    mapping = _mapping(differs.group)
    rows = read_rows(source, info.modality, wanted, mapping, only)
    keep = kept(rows, reading, note, targets.names(dataset))
    if not keep:
        raise QuickstudyError("no examples are left: all are of classes that the dataset leaves out", where=source)
    if reading.group is not None and reading.group.endswith(".json"):
        mapping = _extended(mapping, dataset, set(targets.count([rows.targets[i] for i in keep])), source)
    elif not rows.groups and reading.group not in ("class", "none"):
        fix = "Name what says it by --group"
        raise QuickstudyError(f"does not say the group ({info.group}) of its examples", where=source, fix=fix)
    if info.domain is None:
        rows.domains = []
    elif not rows.domains:
        fix = "Name what says it by --domain"
        raise QuickstudyError(f"does not say the domain ({info.domain}) of its examples", where=source, fix=fix)
    quiet = replace(wanted, note=lambda line: None)  # what groups are was told when the dataset was imported
    groups, _ = groups_of(rows, keep, quiet, mapping, info.name, None, _group_of_class(dataset))
    return as_table(rows, groups, keep)


def _group_of_class(dataset: Dataset) -> dict[str, str]:
    """The group of each class of a dataset, where an example has one class."""
    targets = targets_of(dataset.info.kind)
    if targets.own_group is None:
        return {}
    classes = map(targets.own_group, targets.of(dataset, np.arange(len(dataset))))
    return dict(zip(classes, dataset.column("group"), strict=True))


def _as_before(info: DatasetInfo, differs: Reading) -> Reading:
    """How a dataset was read, but for what is said now."""
    reading = info.reading or Reading(group={"class": "class", "dataset": "none"}.get(info.group))
    if info.reading is None and info.group == "folder" and differs.group is None:
        fix = "Say by --group which folder level is the group"
        raise QuickstudyError("dataset.yaml does not say how it was read", where=info.name, fix=fix)
    said = differs.model_dump(exclude_defaults=True)
    if "label" in said or "label_columns" in said:  # the one in the place of the other
        reading = reading.model_copy(update={"label": None, "label_columns": None})
    return reading.model_copy(update=said)


def _extended(mapping: GroupFile | None, dataset: Dataset, classes: set[str], source: Path) -> GroupFile:
    """The groups that a dataset has, and of new classes those that a file says."""
    group_of = ({} if mapping is None else mapping.group_of) | _group_of_class(dataset)
    if mapping is None and (new := sorted(classes - set(group_of))):
        what = f"{len(new)} new classes are in no group: {', '.join(map(repr, new[:3]))}{', …' if new[3:] else ''}"
        raise QuickstudyError(what, where=source, fix="Say their groups by --group FILE.json")
    return GroupFile(source if mapping is None else mapping.path, group_of)


# Questions


@dataclass(frozen=True)
class Queries:
    """Examples of which the target may be unknown."""

    kind: str
    modality: Modality
    contents: list
    paths: list[str]
    targets: list[Any] | None
    """Where the source names one for every example."""


def read_queries(
    source: Path,
    options: ImportOptions = NOTHING_SAID,
    progress: Progress = lambda done, total: None,
    note: Note = lambda line: None,
) -> Queries:
    """Read what a model is to predict: a file, a folder or a table, with targets where the source has them.

    Of a .txt file, every line is an example.

    Args:
        source: a file, a folder, a .zip or a table.
        options: how to read it; groups and domains are not asked for.
        progress: told (done, total).
        note: told, in a line each, what was decided where the source leaves a choice.

    Raises:
        QuickstudyError: as `import_source`.
    """
    reading = options.model_copy(update={"group": "none", "domain": None})
    wanted = Wanted(reading, _kind_said(options, options.kind), labelled=False, progress=progress, note=note)
    rows = read_rows(source, options.modality, wanted)
    order = sorted(range(len(rows.contents)), key=lambda i: rows.order[i])
    targets = [rows.targets[i] for i in order]
    return Queries(
        kind=rows.kind,
        modality=rows.modality,
        contents=[rows.contents[i] for i in order],
        paths=[rows.paths[i] for i in order] if rows.paths else _numbers(rows, order),
        targets=None if any(target is None for target in targets) else targets,
    )


def _numbers(rows: Rows, order: list[int]) -> list[str]:
    """Names for texts. Where some are left out the others keep the numbers of their rows."""
    places = [rows.order[i] for i in order] if rows.bad else range(1, len(order) + 1)
    return [f"text {place}" for place in places]
