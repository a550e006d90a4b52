"""Names as sources spell them: of classes, tags, groups and domains."""

import math
import unicodedata
from functools import lru_cache
from typing import Any

from quickstudy.errors import QuickstudyError


@lru_cache(1 << 16)  # a million rows have a few hundred names, each of which is one string then
def tidy(name: str) -> str:
    """Return a name without blanks around it, its characters composed (NFC): equal names are equal strings."""
    return unicodedata.normalize("NFC", name.strip())


def name_of(cell: Any, field: str) -> str:
    """Return the name that a cell of a table holds.

    Args:
        cell: a text or a number.
        field: what it is the cell of, for the error.

    Raises:
        QuickstudyError: it is missing, empty, or no single name.
    """
    check_there(cell, field)
    if not isinstance(cell, str | int | float):
        raise QuickstudyError(f"the {field} is {str(cell)[:40]!r}, not a single name")
    if name := tidy(str(cell)):
        return name
    raise QuickstudyError(f"the {field} is empty")


def check_there(cell: Any, field: str) -> None:
    """Raise QuickstudyError where a cell of a table holds nothing; ``field`` is what it is the cell of."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        raise QuickstudyError(f"the {field} is missing")
