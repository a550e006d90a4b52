"""Names as sources spell them: of classes, tags, groups and domains."""

import math
import re
import unicodedata
from collections.abc import Collection
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


JOINERS = "\u200c\u200d"
"""ZWNJ and ZWJ, which Persian, the scripts of India and emoji need between two characters, and nobody else."""
JOINED = frozenset(
    {
        "ARABIC",
        "SYRIAC",
        "NKO",
        "MANDAIC",
        "MONGOLIAN",
        "ADLAM",
        "DEVANAGARI",
        "BENGALI",
        "GURMUKHI",
        "GUJARATI",
        "ORIYA",
        "TAMIL",
        "TELUGU",
        "KANNADA",
        "MALAYALAM",
        "SINHALA",
        "TIBETAN",
        "MYANMAR",
        "KHMER",
        "THAI",
        "LAO",
        "JAVANESE",
        "BALINESE",
    }
)
"""What the names of such characters begin with."""
VIRAMA = 9
"""Combining class of the mark after which a joiner may end a word."""
SELECTED = ("CJK", "MONGOLIAN", "MYANMAR", "PHAGS-PA", "KHITAN")
"""And of letters that may have a variation selector; of what is no letter, as a sign or a digit, all may."""
BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
"""Letters and signs that nobody sees: fillers of Hangul, an empty pattern of Braille."""
FLAG = "\U0001f3f4"
"""The flag that tags make one of England, Scotland or Wales."""


def hidden(name: str) -> str | None:
    """Return the first character of a name that is not seen where it stands, None where there is none.

    Two names that look alike could be told apart by it alone, or one read as another: control characters, marks and
    overrides of the direction of writing, characters without a width (RFC 8264, Unicode TR 36). What is honest stays:
    joiners and selectors where a script or an emoji needs them.
    """
    for place, character in enumerate(name):
        before = name[place - 1] if place else ""
        if character in JOINERS:
            fine = _is_joined(name[:place]) and (place + 1 < len(name) or unicodedata.combining(before) == VIRAMA)
        elif "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef":
            fine = bool(before) and (not _is_letter(before) or _begins(before, SELECTED))
        elif "\u180b" <= character <= "\u180d" or character == "\u180f":
            fine = _begins(before, SELECTED)
        elif "\U000e0020" <= character <= "\U000e007f":
            fine = name[:place].rstrip("".join(map(chr, range(0xE0020, 0xE007F)))).endswith(FLAG)
        else:
            known = unicodedata.category(character) not in ("Cc", "Cs", "Cf", "Zl", "Zp")
            fine = known and character not in BLANK and not _is_no_character(character)
        if not fine:
            return character
    return None


def _is_joined(before: str) -> bool:
    """Whether a joiner may follow: a letter of a script that has them, with its marks, or an emoji."""
    before = before.rstrip("\ufe0f")
    while before and unicodedata.category(before[-1]) in ("Mn", "Mc") and not _begins(before[-1], JOINED):
        before = before[:-1]
    return bool(before) and (_begins(before[-1], JOINED) or unicodedata.category(before[-1]) in ("So", "Sk", "Cn"))


def _begins(character: str, words: Collection[str]) -> bool:
    return bool(character) and unicodedata.name(character, "").partition(" ")[0] in words


def _is_letter(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _is_no_character(character: str) -> bool:
    return (ord(character) & 0xFFFE) == 0xFFFE or 0xFDD0 <= ord(character) <= 0xFDEF


def one_line(value: str) -> str:
    """Return a text of a request that is one line, as it is; ValueError, as pydantic wants it, where it is none."""
    # Control characters would break the lines of logs; a NUL no database of text can hold.
    if not value.strip() or any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("is empty or holds control characters")
    return value


def _is_a_name(value: str) -> str:
    one_line(value)
    if (character := hidden(value)) is not None:
        raise ValueError(f"holds a character that cannot be seen (U+{ord(character):04X}); leave it out")
    return tidy(value)


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_a_name)]
"""A name in the body of a request: of a task, a class, a tag. It is kept as `tidy` has it."""


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
