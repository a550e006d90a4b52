"""A target of classify: one class, a string."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pyarrow as pa

from quickstudy.config import Episodes
from quickstudy.data.dataset import TARGET_COLUMNS, Dataset
from quickstudy.errors import QuickstudyError
from quickstudy.kinds import findings
from quickstudy.kinds.findings import Finding, Seen
from quickstudy.kinds.names import Name, checked_name, name_of

ONE, WORD = "class", "classes"
COLUMN, ARROW = TARGET_COLUMNS["classify"]
HIT = "accuracy"

# In other people's data

USUAL: tuple[str, ...] = (
    "label_text",
    "label",
    "intent",
    "class",
    "category",
    "labels",
    "target",
    "topic",
    "sentiment",
)


def folders(levels: Sequence[str]) -> str:
    """Return the class of a file: equal names in two folders are two classes."""
    return "/".join(levels)


def own_group(target: str) -> str:
    """Return the class itself."""
    return target


def read(cell: Any, field: str) -> str:
    """Return the class that a cell names.

    Raises:
        QuickstudyError: it is missing, empty, or no single name.
    """
    return name_of(cell, field)


def key(target: str) -> str:
    """Return the class itself."""
    return target


def without(target: str, names: Collection[str]) -> str | None:
    """Return the class, if it is none of these."""
    return None if target in names else target


def renamed(target: str, names: Mapping[str, str]) -> str:
    """Return the class by its other name, where it has one."""
    return names.get(target, target)


def joined(targets: Sequence[str]) -> str | None:
    """Return the class, if it is the same in all: one example has one."""
    return targets[0] if len(set(targets)) == 1 else None


def too_few(targets: Sequence[str]) -> tuple[str, str] | None:
    """Say where there are fewer than two classes."""
    classes = set(targets)
    if len(classes) >= 2:
        return None
    what = f"all {len(targets)} examples are of the one class {min(classes)!r}" if classes else "no examples are left"
    return what, "A task needs two classes or more"


# From JSON

BODY: Any = Name


def from_text(text: str, where: str) -> str:
    """Return the class that a text names."""
    return checked_name(text, where)


def fits(value: Any) -> bool:
    """Return whether a value names a class: a text or a number."""
    return isinstance(value, str | Real)


def from_json(value: Any, where: object) -> str:
    """Return the name of a class as a string.

    Raises:
        QuickstudyError: it is missing, or no text and no number.
    """
    if value is None or value != value or (isinstance(value, str) and not value.strip()):  # NaN is not itself
        raise QuickstudyError("has no label", where=where)
    if not fits(value):
        raise QuickstudyError(f"{value!r} is no class", where=where, fix='A class is a text, as "billing"')
    return str(value)


def check_task(targets: Sequence[Any]) -> None:
    """Raise QuickstudyError where there are fewer than two classes."""
    if len(set(targets)) < 2:
        raise QuickstudyError(f"a task needs two classes or more, these are {sorted(set(targets))}")


def count(targets: Sequence[Any]) -> dict[str, int]:
    """Return how many examples each class has."""
    return dict(sorted(Counter(targets).items()))


def is_column(type: pa.DataType) -> bool:
    """Return whether a column of this type holds strings."""
    type = type.value_type if pa.types.is_dictionary(type) else type
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))


# In a dataset


def names(dataset: Dataset) -> list[str]:
    """Return the classes, sorted."""
    return dataset.classes


def array(dataset: Dataset) -> np.ndarray:
    """Return int64 [n]: the number of each row's class."""
    return dataset.class_index


def codes(dataset: Dataset) -> np.ndarray:
    """Return int64 [n]: the number of each row's class."""
    return dataset.class_index


def of(dataset: Dataset, rows: np.ndarray) -> list[Any]:
    """Return the classes of int [n] rows."""
    return dataset.column(COLUMN, rows)


def are_of(targets: Sequence[Any], names: Sequence[str]) -> bool:
    """Return whether all targets are among a task's classes."""
    return set(targets) <= set(names)


def shown(target: Any) -> str:
    """Return a class as it is."""
    return str(target)


# What is wrong with a dataset about them


def sizes(seen: Seen, episodes: Episodes) -> list[Finding]:
    """Look for classes of too few examples, and too few classes."""
    return findings.too_small(seen, episodes, seen.codes, names(seen.dataset), ONE, WORD)


def repeated(seen: Seen, same: list[np.ndarray]) -> list[Finding]:
    """Look for repetitions within a class, and for examples under two."""

    def shown(rows: np.ndarray) -> str:
        return findings.joined([repr(seen.dataset.classes[code]) for code in sorted(set(seen.codes[rows]))[:3]])

    mend = f"Correct the labels, or: {findings.DROP.lower()}"
    return [
        *findings.repetitions(seen, same, "within a class"),
        *findings.contested(seen, same, "two labels", shown, mend),
    ]


def nearly_repeated(seen: Seen, near: list[np.ndarray]) -> list[Finding]:
    """Look for examples that nearly repeat another, of their class or of another one."""
    return findings.near_repetitions(seen, near, "one of their own class", "one of another")
