"""The chain as a picture: what a run was made of on its left, what became of it on its right."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from quickstudy.errors import QuickstudyError
from quickstudy.lineage.links import Link
from quickstudy.report.style import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, STYLE
from quickstudy.system.atomic import draft

COLUMNS = (("data",), ("tasks", "parameters", "code", "environment"), ("run",), ("version", "promotions"))
ARROWS = (
    ("data", "tasks"),
    ("tasks", "run"),
    ("parameters", "run"),
    ("code", "run"),
    ("environment", "run"),
    ("run", "version"),
    ("version", "promotions"),
)
TONES = {
    "data": BLUE,
    "tasks": BLUE,
    "parameters": GREEN,
    "code": GREEN,
    "environment": GREEN,
    "run": ORANGE,
    "version": PURPLE,
    "promotions": PURPLE,
}
FORMATS = (".png", ".svg")

WIDTH, GAP, BELOW, LINE = 3.0, 0.75, 0.35, 0.165  # inches: of a box, between columns and boxes, of a line of text
LETTERS, TITLE = 46, 36  # a line of text holds at most, and a title
FACTS = 10  # of a link are drawn at most, of the moves of aliases the last


def write_picture(links: Sequence[Link], path: Path, title: str) -> None:
    """Draw the chain into a PNG or SVG file, which appears whole or not at all.

    Raises:
        QuickstudyError: the name ends in neither.
    """
    if path.suffix.lower() not in FORMATS:
        raise QuickstudyError("is neither a .png nor an .svg file", where=path, fix="Name one: --picture lineage.png")
    with style.context(["default", {**STYLE, "svg.hashsalt": "quickstudy"}]):
        figure = draw(links, title)
        with draft(path) as part:
            form = path.suffix.lower().removeprefix(".")
            figure.savefig(part, format=form, metadata={"Date" if form == "svg" else "Software": None})


def draw(links: Sequence[Link], title: str) -> Figure:
    """Return the picture. Boxes are as high as what they say."""
    by_name = {link.name: link for link in links}
    columns = [[name for name in column if name in by_name] for column in COLUMNS]
    texts = {name: _lines(link) for name, link in by_name.items()}
    heights = {name: 0.62 + LINE * len(lines) for name, lines in texts.items()}
    tall = max(sum(heights[name] for name in column) + BELOW * (len(column) - 1) for column in columns if column)
    columns = [column for column in columns if column]
    width = len(columns) * WIDTH + (len(columns) - 1) * GAP + 0.4
    height = tall + 0.9
    figure = Figure(figsize=(width, height), dpi=144)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    axes.text(0.2, height - 0.2, title, fontsize=13, fontweight="bold", va="top")
    boxes: dict[str, tuple[float, float, float]] = {}
    for place, column in enumerate(columns):
        used = sum(heights[name] for name in column) + BELOW * (len(column) - 1)
        top = height - 0.6 - (tall - used) / 2
        for name in column:
            boxes[name] = (0.2 + place * (WIDTH + GAP), top - heights[name], heights[name])
            top -= heights[name] + BELOW
    if "tasks" in boxes:  # the data beside what they became
        x, _, high = boxes["data"]
        boxes["data"] = (x, min(boxes["tasks"][1] + (boxes["tasks"][2] - high) / 2, height - 0.6 - high), high)
    arrows = [(start, end) for start, end in ARROWS if start in boxes and end in boxes]
    for start, end in arrows:
        beside = [one for one, other in arrows if other == end]
        share = (beside.index(start) + 1) / (len(beside) + 1)  # each ends at a place of its own
        _arrow(axes, boxes[start], boxes[end], TONES[start], share)
    for name, box in boxes.items():
        _box(axes, by_name[name], texts[name], box)
    return figure


def _lines(link: Link) -> list[tuple[str, str]]:
    """Return (name, line) of the facts; the lines after a fact's first have no name."""
    lines: list[tuple[str, str]] = []
    late = link.name == "promotions"
    rest = [("", f"and {len(link.facts) - FACTS} {'before' if late else 'more'}")] if len(link.facts) > FACTS else []
    for name, value in link.facts[-FACTS:] if late else link.facts[:FACTS]:
        label = f"{name}  " if name else ""
        first, *more = textwrap.wrap(label + value, LETTERS, subsequent_indent="   ", break_on_hyphens=False) or [label]
        whole = first.startswith(label)
        lines.append((label if whole else name, first.removeprefix(label) if whole else ""))
        lines += [("", line) for line in more]
    lines = [*rest, *lines] if late else [*lines, *rest]
    return lines


def _box(axes: Axes, link: Link, lines: Sequence[tuple[str, str]], box: tuple[float, float, float]) -> None:
    x, y, height = box
    tone = TONES[link.name]
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            WIDTH,
            height,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor="white",
            edgecolor=tone,
            linewidth=1.3,
        )
    )
    axes.text(x + 0.12, y + height - 0.1, link.name, fontsize=8, color=tone, va="top")
    axes.text(
        x + 0.12,
        y + height - 0.26,
        textwrap.shorten(link.title, TITLE, placeholder=" …"),
        fontsize=9.5,
        fontweight="bold",
        color=INK,
        va="top",
    )
    for i, (name, line) in enumerate(lines):
        at = y + height - 0.51 - LINE * i
        text = axes.text(x + 0.12, at, name, fontsize=7.5, color=MUTED, va="top")
        if line:
            axes.annotate(
                line,
                xy=(1, 1) if name else (0, 1),
                xycoords=text,
                va="top",
                fontsize=7.5,
                color=INK,
                annotation_clip=False,
            )


def _arrow(
    axes: Axes, start: tuple[float, float, float], end: tuple[float, float, float], tone: str, share: float
) -> None:
    (x, y, height), (to_x, to_y, to_height) = start, end
    below = x == to_x
    tail = (x + WIDTH / 2, y) if below else (x + WIDTH, y + height / 2)
    head = (to_x + WIDTH / 2, to_y + to_height) if below else (to_x, to_y + (1 - share) * to_height)
    axes.add_patch(
        FancyArrowPatch(
            tail, head, arrowstyle="-|>", mutation_scale=11, linewidth=1.4, color=tone, shrinkA=1, shrinkB=2
        )
    )
