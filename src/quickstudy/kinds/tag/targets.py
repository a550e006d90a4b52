"""A target of tag: a set of tags, a sorted list of strings; it may be empty."""

from collections import Counter
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from quickstudy.data.dataset import TARGET_COLUMNS, Dataset
from quickstudy.errors import QuickstudyError

ONE, WORD = "tag", "tags"
COLUMN, ARROW = TARGET_COLUMNS["tag"]
HIT = "exact match"


def fits(value: Any) -> bool:
    """Return whether a value is a collection of texts or numbers."""
    return isinstance(value, list | tuple | set | frozenset) and all(isinstance(one, str | Real) for one in value)


def from_json(value: Any, where: object) -> list[str]:
    """Return tags sorted, each once.

    Raises:
        QuickstudyError: the value is no list of texts, or a tag is empty.
    """
    if not fits(value):
        raise QuickstudyError(f"{value!r} is no list of tags", where=where, fix='Tags are a list, as ["billing"]')
    names = sorted({str(one).strip() for one in value})
    if "" in names:
        raise QuickstudyError("has an empty tag", where=where)
    return names


def check_task(targets: Sequence[Any]) -> None:
    """Raise QuickstudyError where there is no tag that some examples have and others have not."""
    having = count(targets)
    if not any(number < len(targets) for number in having.values()):
        raise QuickstudyError(
            f"a task needs a tag that some examples have and others have not, these are {list(having)}"
        )


def count(targets: Sequence[Any]) -> dict[str, int]:
    """Return how many examples have each tag."""
    return dict(sorted(Counter(name for target in targets for name in target).items()))


def is_column(type: pa.DataType) -> bool:
    """Return whether a column of this type holds lists of strings."""
    return bool(pa.types.is_list(type) or pa.types.is_large_list(type)) and bool(pa.types.is_string(type.value_type))


def names(dataset: Dataset) -> list[str]:
    """Return the tags of a dataset, sorted."""
    return sorted(dataset.table.column(COLUMN).combine_chunks().flatten().unique().to_pylist())


def array(dataset: Dataset) -> np.ndarray:
    """Return bool [n, L]: which tags each row has."""
    column = dataset.table.column(COLUMN).combine_chunks()
    every = names(dataset)
    found = np.zeros((len(dataset), len(every)), dtype=bool)
    place = pc.index_in(column.flatten(), pa.array(every, pa.string())).to_numpy()
    found[pc.list_parent_indices(column).to_numpy(), place] = True
    return found


def of(dataset: Dataset, rows: np.ndarray) -> list[Any]:
    """Return the tags of int [n] rows."""
    return [sorted(tags) for tags in dataset.table.column(COLUMN).take(pa.array(rows)).to_pylist()]


def are_of(targets: Sequence[Any], names: Sequence[str]) -> bool:
    """Return whether all tags are among a task's."""
    return {name for target in targets for name in target} <= set(names)


def shown(target: Any) -> str:
    """Return tags in one line."""
    return ", ".join(target) or "none"
