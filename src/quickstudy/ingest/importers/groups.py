"""Which group each imported example is of."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quickstudy.data.dataset import Split
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.rows import Rows
from quickstudy.kinds.kind import Targets
from quickstudy.kinds.names import alike, tidy
from quickstudy.kinds.targets import targets_of

CLASSES_FOR_OWN_GROUPS = 10
"""From so many classes on, a dataset without groups has every class for a group of its own: there are enough to hold
some out. A dataset of fewer is one group, and goes to one side of the meta-split whole."""


@dataclass(frozen=True)
class GroupFile:
    path: Path
    group_of: dict[str, str]


def group_file(group: str | None) -> GroupFile | None:
    """The file behind ``--group FILE.json``: {"GROUP": ["CLASS", …]}."""
    if group is None or not group.endswith(".json"):
        return None
    path = Path(group)
    shape = 'It holds {"GROUP": ["CLASS", …], …}'
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QuickstudyError(f"cannot be read ({error.strerror})", where=path, fix="Check --group") from None
    except (ValueError, RecursionError):
        raise QuickstudyError("not JSON", where=path, fix=shape) from None
    if not isinstance(value, dict) or not all(isinstance(classes, list) for classes in value.values()):
        raise QuickstudyError("not a map from groups to classes", where=path, fix=shape)
    group_of: dict[str, str] = {}
    for name, classes in value.items():
        for label in map(tidy, map(str, classes)):
            if group_of.setdefault(label, name) != name:
                what = f"the class {label!r} is in two groups, {group_of[label]!r} and {name!r}"
                raise QuickstudyError(what, where=path, fix="Groups never share a class")
    return GroupFile(path, group_of)


def groups_of(
    rows: Rows,
    keep: list[int],
    wanted: Wanted,
    mapping: GroupFile | None,
    name: str,
    split: Split | None,
    own_groups: Mapping[str, str] | None = None,
) -> tuple[list[str], str]:
    """Return the group of every row, and what a group is, in a word.

    Args:
        rows: of a source.
        keep: numbers of those that count.
        wanted: of the source.
        mapping: a file of groups, where one was named.
        name: of the dataset.
        split: the side of the meta-split that all of it is on, if it is pinned.
        own_groups: of a dataset whose classes are their own groups: class → group.

    Raises:
        QuickstudyError: a class is in no group of the file, or each is to be its own where an example may be of
            several.
    """
    targets = targets_of(rows.kind)
    classes = list(targets.count([rows.targets[i] for i in keep]))
    said = wanted.reading.group
    if rows.groups and mapping is None:
        _tell_crossing(rows, keep, classes, targets, wanted)
        return rows.groups, rows.group_word
    if mapping is not None:
        _refuse_lost(mapping, classes)
        return _by_class(rows, keep, targets, mapping.group_of, said), mapping.path.stem.removesuffix("s")
    own = said != "none" if said is not None else bool(targets.own_group) and len(classes) >= CLASSES_FOR_OWN_GROUPS
    own_of = _own_groups(classes, own_groups or {})
    groups = _by_class(rows, keep, targets, own_of, said) if own else [name] * len(rows.targets)
    if said is None and split is None:
        wanted.note(
            f"no groups given: each of the {len(classes)} {targets.WORD} is its own"
            if own
            else f"no groups given: the {len(classes)} {targets.WORD} are one, and stay on one side of the meta-split"
        )
    return groups, "class" if own else "dataset"


def _own_groups(classes: list[str], there: Mapping[str, str]) -> dict[str, str]:
    """The group of each class that is its own: spellings that differ in case, two classes or not, are on one side."""
    first = {alike(name, ignore_case=True): group for name, group in there.items()}
    for name in classes:
        first.setdefault(alike(name, ignore_case=True), name)
    return {name: first[alike(name, ignore_case=True)] for name in classes}


def _by_class(
    rows: Rows, keep: list[int], targets: Targets, group_of: Mapping[str, str], said: str | None
) -> list[str]:
    """The group of each row by its class. "" of those that do not count."""
    if targets.own_group is None:
        what = f"an example of kind {rows.kind} may have several {targets.WORD}, so that they cannot say its group"
        raise QuickstudyError(what, where=f"--group {said}", fix="Name a column or a folder level, or say none")
    groups = [""] * len(rows.targets)
    for i in keep:
        groups[i] = group_of[targets.own_group(rows.targets[i])]
    return groups


def _refuse_lost(mapping: GroupFile, classes: list[str]) -> None:
    if lost := [label for label in classes if label not in mapping.group_of]:
        what = f"{len(lost)} classes are in no group: {', '.join(map(repr, lost[:3]))}{', …' if lost[3:] else ''}"
        fix = "Add them, or leave them out by --exclude-label"
        raise QuickstudyError(what, where=mapping.path, fix=fix)


def _tell_crossing(rows: Rows, keep: list[int], classes: list[str], targets: Targets, wanted: Wanted) -> None:
    there = {(targets.key(rows.targets[i]), rows.groups[i]): rows.targets[i] for i in keep}
    of_class: dict[str, set[str]] = {}
    for (_, group), target in there.items():
        for label in targets.count([target]):
            of_class.setdefault(label, set()).add(group)
    if crossing := [label for label in classes if len(of_class[label]) > 1]:
        wanted.note(
            f"{len(crossing)} of {len(classes)} {targets.WORD} occur in several groups, for example {crossing[0]!r}: "
            "they may be both learned and tested. If a group is a speaker or a camera, name it by --domain"
        )
