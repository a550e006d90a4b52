"""A target of classify: one class, a string."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from quickstudy.data.dataset import TARGET_COLUMNS, Dataset

ONE, WORD = "class", "classes"
COLUMN, ARROW = TARGET_COLUMNS["classify"]
HIT = "accuracy"


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
