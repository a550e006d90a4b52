"""A target of classify: one class, a string."""

from collections import Counter
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pyarrow as pa

from quickstudy.data.dataset import TARGET_COLUMNS, Dataset
from quickstudy.errors import QuickstudyError

ONE, WORD = "class", "classes"
COLUMN, ARROW = TARGET_COLUMNS["classify"]
HIT = "accuracy"


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


def of(dataset: Dataset, rows: np.ndarray) -> list[Any]:
    """Return the classes of int [n] rows."""
    return dataset.column(COLUMN, rows)


def are_of(targets: Sequence[Any], names: Sequence[str]) -> bool:
    """Return whether all targets are among a task's classes."""
    return set(targets) <= set(names)


def shown(target: Any) -> str:
    """Return a class as it is."""
    return str(target)
