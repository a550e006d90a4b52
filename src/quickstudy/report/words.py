"""How the card puts things into words and tables of Markdown."""

import math
import re
from collections.abc import Iterable, Sequence


def plain(text: object) -> str:
    """Text from outside, so that Markdown shows it as it is, in one line. What cannot be seen, or turns the direction
    of what can, becomes a space."""
    seen = "".join(c if c.isprintable() else " " for c in str(text))
    return re.sub(r"([\\`*\[\]<>|&~$]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(seen.split()))


def sentence(text: str) -> str:
    """Plain text that ends with a full stop."""
    text = plain(text).strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def interval(accuracy: float, ci95: float) -> str:
    """ "97.3 ± 0.4", in percent; a single episode has no interval."""
    return percent(accuracy) + ("" if math.isnan(ci95) else f" ± {percent(ci95)}")


def difference(points: float, ci95: float) -> str:
    """ "+1.2 ± 0.4", in points."""
    return signed(100 * points, 1) + ("" if math.isnan(ci95) else f" ± {percent(ci95)}")


def marked(points: float, ci95: float) -> str:
    """ "+1.2 ± 0.4 ▲", in points; the mark says on which side of 0 the whole interval lies."""
    mark = "" if math.isnan(ci95) or abs(points) <= ci95 else " ▲" if points > 0 else " ▼"
    return difference(points, ci95) + mark


def signed(x: float, digits: int) -> str:
    return f"{round(x, digits) + 0.0:+.{digits}f}".replace("-", "−")  # nothing is −0.0


def listed(words: Iterable[object], last: str = "and") -> str:
    """1, 5 → "1 and 5"; 1, 5, 10 → "1, 5 and 10"."""
    *start, end = [str(word) for word in words]
    return f"{', '.join(start)} {last} {end}" if start else end


def counts(values: Iterable[int]) -> str:
    """ "5", or "5 to 20" of different ones."""
    found = sorted({int(value) for value in values})
    return f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"


def examples(shot: int) -> str:
    return "1 example" if shot == 1 else f"{shot} examples"


def shots(number: int) -> str:
    return "1 shot" if number == 1 else f"{number} shots"


def rows(head: Sequence[str], body: Iterable[Sequence[object]], align: str = "") -> str:
    """A table. ``align`` has an l or an r for each column; by default all are l."""
    rule = ["---:" if side == "r" else "---" for side in align or "l" * len(head)]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in [head, rule, *body])


def duration(ms: float) -> str:
    """With a unit that fits: 8.4 ms, 310 ms, 1.2 s, 4.2 min, 2.5 h."""
    if ms < 1000:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
