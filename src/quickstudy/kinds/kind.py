"""What ``kinds/KIND/targets.py`` offers; no torch, so that clients and importers can read and write targets."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from quickstudy.data.dataset import Dataset


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

    def of(self, dataset: Dataset, rows: np.ndarray) -> list[Any]:
        """Return the targets of int [n] rows."""

    def are_of(self, targets: Sequence[Any], names: Sequence[str]) -> bool:
        """Return whether a task of these names knows all of the targets."""

    def shown(self, target: Any) -> str:
        """Return a target as text, for a table."""
