"""A target of tag: a set of tags, a sorted list of strings; it may be empty."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from quickstudy.config import Episodes
from quickstudy.data.dataset import TARGET_COLUMNS, Dataset
from quickstudy.errors import QuickstudyError
from quickstudy.kinds import findings
from quickstudy.kinds.findings import Finding, Seen
from quickstudy.kinds.names import Name, check_there, checked_name, name_of

ONE, WORD = "tag", "tags"
COLUMN, ARROW = TARGET_COLUMNS["tag"]
HIT = "exact match"

# In other people's data

USUAL: tuple[str, ...] = (
    "labels",
    "tags",
    "label_names",
    "label",
    "categories",
    "classes",
    "topics",
    "intents",
    "genres",
    "emotions",
)


def folders(levels: Sequence[str]) -> str:
    """Return what the lowest folder above a file is called: its tag, or several where a separator is between them."""
    return levels[-1]


own_group = None


def read(cell: Any, field: str) -> list[str]:
    """Return the tags that a cell names, sorted, each once; a text is one tag, and nothing in it none.

    Raises:
        QuickstudyError: it is missing, or no list of names.
    """
    if isinstance(cell, str):
        cell = [cell] if cell.strip() else []
    if not isinstance(cell, list | tuple):
        check_there(cell, field)
        raise QuickstudyError(f"the {field} is {str(cell)[:40]!r}, no list of names")
    return sorted({name_of(name, f"name of a tag in {field}") for name in cell})


def key(target: list[str]) -> tuple[str, ...]:
    """Return the tags."""
    return tuple(target)


def without(target: list[str], names: Collection[str]) -> list[str]:
    """Return the other tags; the example stays."""
    return [name for name in target if name not in names]


def renamed(target: list[str], names: Mapping[str, str]) -> list[str]:
    """Return the tags by their other names, where they have one."""
    return sorted({names.get(name, name) for name in target})


def joined(targets: Sequence[list[str]]) -> list[str]:
    """Return all the tags that an example has."""
    return sorted({name for target in targets for name in target})


def too_few(targets: Sequence[list[str]]) -> tuple[str, str] | None:
    """Say where no tag is on some examples and not on others."""
    having = count(targets)
    if any(number < len(targets) for number in having.values()):
        return None
    tags = "the same" if having else "no"
    what = f"all {len(targets)} examples have {tags} tags" if targets else "no examples are left"
    return what, "A task needs a tag that some examples have and others have not"


# From JSON

BODY: Any = Annotated[tuple[Name, ...], Field(fail_fast=True)]


def from_text(text: str, where: str) -> list[str]:
    """Return the tags that a text names, with semicolons between them; nothing is no tag."""
    return sorted({checked_name(name.strip(), where) for name in text.split(";") if name.strip()})


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


# In a dataset


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


def codes(dataset: Dataset) -> np.ndarray:
    """Return int64 [n], equal where rows have the same tags."""
    bits = np.packbits(array(dataset), axis=1)
    if not bits.shape[1]:
        return np.zeros(len(dataset), dtype=np.int64)
    return np.unique(bits, axis=0, return_inverse=True)[1].reshape(-1)


def under(dataset: Dataset) -> np.ndarray:
    """Return int64 [n]: the one of its tags that each row is drawn under, -1 where it has none.

    It is the tag that the row's number falls on, so that many rows of the same tags are spread over these.
    """
    row, code = np.nonzero(array(dataset))  # row by row, in each its tags ascending
    count = np.bincount(row, minlength=len(dataset))
    first = np.cumsum(count) - count
    own = np.flatnonzero(count)
    found = np.full(len(dataset), -1, dtype=np.int64)
    found[own] = code[first[own] + own % count[own]]
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


# What is wrong with a dataset about them


def sizes(seen: Seen, episodes: Episodes) -> list[Finding]:
    """Look for tags of too few examples, and too few tags."""
    found = findings.too_small(seen, episodes, under(seen.dataset), names(seen.dataset), ONE, WORD)
    return [replace(one, what=f"{one.what} (an example counts for one of its tags)") for one in found]


def repeated(seen: Seen, same: list[np.ndarray]) -> list[Finding]:
    """Look for repetitions with the same tags, and with others."""

    def tags_of(rows: np.ndarray) -> str:
        apart = {key(target): shown(target) for target in of(seen.dataset, rows)}
        return findings.joined([repr(tags) for _, tags in sorted(apart.items())[:3]])

    mend = f"{findings.DROP}, which joins their tags"
    return [
        *findings.repetitions(seen, same, "with the same tags"),
        *findings.contested(seen, same, "unequal tags", tags_of, mend),
    ]


def nearly_repeated(seen: Seen, near: list[np.ndarray]) -> list[Finding]:
    """Look for examples that nearly repeat another, with the same tags or with others."""
    return findings.near_repetitions(seen, near, "one with the same tags", "one with others")
