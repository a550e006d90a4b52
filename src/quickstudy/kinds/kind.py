"""What ``kinds/KIND/targets.py`` offers; no torch, so that clients and importers can read and write targets."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from quickstudy.config import Episodes
from quickstudy.data.dataset import Dataset
from quickstudy.kinds.findings import Finding, Seen


class Targets(Protocol):
    """How a kind's targets are read, written and called. A target is what JSON can hold: a class, a list of tags."""

    ONE: str
    """What a name among targets is: a class, a tag."""
    WORD: str
    """The same of several."""

    COLUMN: str
    """Of a dataset, that holds targets."""
    ARROW: pa.DataType
    """Of that column."""
    HIT: str
    """What it is called that an answer is the whole target: accuracy, exact match."""

    # In other people's data

    USUAL: tuple[str, ...]
    """What the column of targets is usually called there, in lower case; the first of these that is there is taken."""

    @property
    def folders(self) -> Callable[[Sequence[str]], Any] | None:
        """Return how the folders above a file say its target: names from the top → what `read` reads. None where they
        cannot."""

    @property
    def own_group(self) -> Callable[[Any], str] | None:
        """Return which group an example of a target is of, where each name is its own. None where it may be of
        several."""

    def read(self, cell: Any, field: str) -> Any:
        """Return the target that a cell of a table says, a name or a list of names.

        Raise QuickstudyError, which names the field, where it says none.
        """

    def key(self, target: Any) -> Any:
        """Return what equal targets have in common: something that can be sorted and be in a set."""

    def without(self, target: Any, names: Collection[str]) -> Any | None:
        """Return a target without some names; None where its example is to be left out."""

    def renamed(self, target: Any, names: Mapping[str, str]) -> Any:
        """Return a target with other names in the place of some."""

    def joined(self, targets: Sequence[Any]) -> Any | None:
        """Return the target of an example that stands under several; None where they contradict one another."""

    def too_few(self, targets: Sequence[Any]) -> tuple[str, str] | None:
        """Return what is wrong with targets that no task can be made of, and what would not be; else None."""

    # From JSON

    BODY: Any
    """The type of a target in the body of a request, as pydantic has it."""

    def from_text(self, text: str, where: str) -> Any:
        """Return the target that a field of a form says; raise QuickstudyError where it says none."""

    def fits(self, value: Any) -> bool:
        """Return whether a value of Python's can be a target of this kind."""

    def from_json(self, value: Any, where: object) -> Any:
        """Return a value as a target.

        Raise QuickstudyError, with ``where`` it stands, where it is none.
        """

    def check_task(self, targets: Sequence[Any]) -> None:
        """Raise QuickstudyError where the targets of some examples are no task, as fewer than two classes."""

    def count(self, targets: Sequence[Any]) -> dict[str, int]:
        """Return how many of the targets have each name."""

    def is_column(self, type: pa.DataType) -> bool:
        """Return whether a column of this type can hold targets."""

    # In a dataset

    def names(self, dataset: Dataset) -> list[str]:
        """Return the names among its targets, sorted."""

    def array(self, dataset: Dataset) -> np.ndarray:
        """Return its targets by numbers of names: classify int64 [n], tag bool [n, L]."""

    def codes(self, dataset: Dataset) -> np.ndarray:
        """Return int64 [n], equal where targets are equal."""

    def of(self, dataset: Dataset, rows: np.ndarray) -> list[Any]:
        """Return the targets of int [n] rows."""

    def are_of(self, targets: Sequence[Any], names: Sequence[str]) -> bool:
        """Return whether a task of these names knows all of the targets."""

    def shown(self, target: Any) -> str:
        """Return a target as text, for a table."""

    # What is wrong with a dataset about them

    def sizes(self, seen: Seen, episodes: Episodes) -> list[Finding]:
        """Return what there is too little of for episodes."""

    def repeated(self, seen: Seen, same: list[np.ndarray]) -> list[Finding]:
        """Return what is wrong with targets of equal examples: of each of these their rows."""

    def nearly_repeated(self, seen: Seen, near: list[np.ndarray]) -> list[Finding]:
        """Return what is wrong with targets of nearly equal examples."""
