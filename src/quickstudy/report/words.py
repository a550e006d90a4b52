"""How reports put things into words and tables of Markdown.

What comes from outside (names of datasets and classes, descriptions, texts) is a plain ``str``, and is escaped wherever
it comes into Markdown: by `plain`, by `rows`, by the template of the card. Only what is `Markdown` is taken as it is.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from quickstudy.secrets import redacted


class Markdown(str):
    """Text that is Markdown, where any other would be escaped."""

    def __html__(self) -> str:
        """Tell Jinja that nothing is left to be escaped."""
        return self


class Chapter(NamedTuple):
    """A part of a report under a heading of its own; the report knows how deep it lies."""

    title: str
    parts: Sequence[str]
    """paragraphs, tables, lists, links to figures"""


def plain(text: object) -> Markdown:
    """Return text from outside so that Markdown shows it as it is, in one line, without passwords in addresses. What
    cannot be seen, or turns the direction of what can, becomes a space."""
    seen = "".join(c if c.isprintable() else " " for c in redacted(str(text)))
    safe = re.sub(r"([\\`*\[\]<>|&~$]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(seen.split()))
    # At a line's beginning, and with a blank behind them, these make a heading or a list.
    safe = re.sub(r"^(#{1,6}|\+|[-=]+)(?= |$)", r"\\\1", safe)
    return Markdown(re.sub(r"^(\d+)([.)])(?= |$)", r"\1\\\2", safe))


def escaped(value: object) -> Markdown:
    """Return Markdown as it is, anything else as `plain`."""
    return value if isinstance(value, Markdown) else plain(value)


def sentence(text: object) -> Markdown:
    """Return text that ends with a full stop."""
    said = escaped(text)
    return said if not said or said[-1] in ".!?" else Markdown(f"{said}.")


def bullets(items: Iterable[object]) -> Markdown:
    """Return a list, an item a line."""
    return Markdown("\n".join(f"- {escaped(item)}" for item in items))


def figure_file(kind: str, name: str) -> str:
    """Return the file name of a figure that a kind of task has."""
    return f"{kind}_{name}.png"


def figure(kind: str, name: str, alternative: str) -> Markdown:
    """Return the link to a figure.

    Args:
        alternative: what it shows, for those who do not see it.
    """
    return Markdown(f"![{escaped(alternative)}]({figure_file(kind, name)})")


def percent(value: float) -> str:
    """Return 0.973 as "97.3"."""
    return f"{100 * value:.1f}"


def interval(score: float, ci95: float) -> str:
    """Return "97.3 ± 0.4", in percent; a single episode has no interval."""
    return percent(score) + ("" if math.isnan(ci95) else f" ± {percent(ci95)}")


def difference(points: float, ci95: float) -> str:
    """Return "+1.2 ± 0.4", in points."""
    return signed(100 * points, 1) + ("" if math.isnan(ci95) else f" ± {percent(ci95)}")


def marked(points: float, ci95: float) -> str:
    """Return "+1.2 ± 0.4 ▲", in points; the mark says on which side of 0 the whole interval lies."""
    mark = "" if math.isnan(ci95) or abs(points) <= ci95 else " ▲" if points > 0 else " ▼"
    return difference(points, ci95) + mark


def signed(x: float, digits: int) -> str:
    """Return a number with its sign."""
    return f"{round(x, digits) + 0.0:+.{digits}f}".replace("-", "−")  # nothing is −0.0


def listed(words: Iterable[object], last: str = "and") -> Markdown:
    """Return 1, 5 as "1 and 5"; 1, 5, 10 as "1, 5 and 10"."""
    *start, end = [escaped(word) for word in words]
    return Markdown(f"{', '.join(start)} {last} {end}") if start else end


def counts(values: Iterable[int]) -> str:
    """Return "5", or "5 to 20" of different ones."""
    found = sorted({int(value) for value in values})
    return f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"


def excerpt(text: str, most: int = 180) -> Markdown:
    """Return the beginning of a text from outside, of so many letters at most."""
    return plain(text if len(text) <= most else f"{text[: most - 1]}…")


def short(name: str, most: int = 24) -> str:
    """Return a name of so many letters at most, for a figure."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def counted(number: int, one: str) -> str:
    """Return "1 shot" or "5 shots"."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"


def capital(text: str) -> str:
    """Return text with a capital at its beginning; the other letters stay, as in "Micro F1"."""
    return text[:1].upper() + text[1:]


def rows(head: Sequence[str], body: Iterable[Sequence[object]], align: str = "") -> Markdown:
    """Return a table. ``align`` has an l or an r for each column; by default all are l."""
    rule = [Markdown("---:" if side == "r" else "---") for side in align or "l" * len(head)]
    return Markdown("\n".join("| " + " | ".join(map(escaped, line)) + " |" for line in [head, rule, *body]))


def duration(ms: float) -> str:
    """Return milliseconds with a unit that fits: 8.4 ms, 310 ms, 1.2 s, 4.2 min, 2.5 h."""
    if ms < 1000:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
