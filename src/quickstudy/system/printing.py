"""Texts of anybody's on a terminal: what a name or a file says is shown, never obeyed."""

import builtins
import re
from typing import IO, Any

# Control characters but for the end of a line and the tabulator; what turns the direction of writing, or is not seen.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Return a text whose control characters are written out, as JSON does: an escape sequence is \\u001b[31m. In JSON
    it stays the same value."""
    return _UNSEEN.sub(_written_out, text)


def print(*values: Any, file: IO[str] | None = None, **how: Any) -> None:
    """Print as Python does, but `printable`."""
    builtins.print(*(printable(str(value)) for value in values), file=file, **how)


def _written_out(found: "re.Match[str]") -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{int.from_bytes(units[place : place + 2]):04x}" for place in range(0, len(units), 2))
