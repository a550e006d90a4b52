"""Which group each imported example is of."""

import json
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from quickstudy.data.dataset import Split
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.options import Wanted
from quickstudy.ingest.importers.rows import Rows

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
    rows: Rows, keep: list[int], wanted: Wanted, mapping: GroupFile | None, name: str, split: Split | None
) -> tuple[list[str], str]:
    """The group of every row, and what a group is, in a word.

    Args:
        rows: of a source.
        keep: numbers of those that count.
        wanted: of the source.
        mapping: a file of groups, where one was named.
        name: of the dataset.
        split: the side of the meta-split that all of it is on, if it is pinned.

    Raises:
        QuickstudyError: a class is in no group of the file.
    """
    labels = rows.labels
    classes = sorted({labels[i] for i in keep})
    if mapping is not None:
        if lost := [label for label in classes if label not in mapping.group_of]:
            what = f"{len(lost)} classes are in no group: {', '.join(map(repr, lost[:3]))}{', …' if lost[3:] else ''}"
            fix = "Add them, or leave them out by --exclude-label"
            raise QuickstudyError(what, where=mapping.path, fix=fix)
        return [mapping.group_of.get(label, "") for label in labels], mapping.path.stem.removesuffix("s")
    if rows.groups:
        groups = list(map(tidy, rows.groups))
        several = Counter(label for label, _ in {(labels[i], groups[i]) for i in keep})
        if crossing := [label for label in classes if several[label] > 1]:
            wanted.note(
                f"{len(crossing)} of {len(classes)} classes occur in several groups, for example {crossing[0]!r}: "
                "they may be both learned and tested. If a group is a speaker or a camera, name it by --domain"
            )
        return groups, rows.group_word
    own = wanted.reading.group != "none" if wanted.reading.group is not None else len(classes) >= CLASSES_FOR_OWN_GROUPS
    if wanted.reading.group is None and split is None:
        wanted.note(
            f"no groups given: each of the {len(classes)} classes is its own"
            if own
            else f"no groups given: the {len(classes)} classes are one, and stay on one side of the meta-split"
        )
    return (labels, "class") if own else ([name] * len(labels), "dataset")


def tidy_all(names: list[str]) -> list[str]:
    cleaned = {name: tidy(name) for name in set(names)}
    return [cleaned[name] for name in names]


def tidy(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip())
