"""Names as sources spell them: of classes, tags, groups and domains."""

import math
import re
import unicodedata
from functools import lru_cache
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from quickstudy.errors import QuickstudyError


@lru_cache(1 << 16)  # a million rows have a few hundred names, each of which is one string then
def tidy(name: str) -> str:
    """Return a name without blanks around it, its characters composed (NFC): equal names are equal strings."""
    return unicodedata.normalize("NFC", name.strip())


@lru_cache(1 << 16)
def alike(name: str, ignore_case: bool = False) -> str:
    """Return what spellings of one name have in common: without doubled or invisible blanks, NFC, 1 for 1.0.

    Args:
        name: as it is spelled.
        ignore_case: whether those that differ in case alone have it in common, too.
    """
    name = " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", name)).split())
    number = _WHOLE.fullmatch(name)
    name = number[1] if number else name
    return unicodedata.normalize("NFC", name.casefold()) if ignore_case else name


# Zero width space, word joiner, byte order mark, soft hyphen. Some scripts are written with the other joiners.
_INVISIBLE = re.compile("[\u200b\u2060\ufeff\u00ad]")
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0+")


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


def _is_a_name(value: str) -> str:
    # Control characters would break the lines of logs; a NUL no database of text can hold.
    if not value.strip() or any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("is empty or holds control characters")
    return value


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_a_name)]
"""A name in the body of a request: of a task, a class, a tag."""


def checked_name(text: str, where: str) -> str:
    """Return a name of a form's field.

    Raises:
        QuickstudyError: it is none.
    """
    try:
        return _NAME.validate_python(text)
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise QuickstudyError(message[:1].lower() + message[1:300], where=where) from None


_NAME: TypeAdapter[str] = TypeAdapter(Name)
