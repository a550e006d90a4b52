"""The picture of a comparison: the score against the time to adapt, in the style of the card's figures."""

import io
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.path import Path as Outline
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox, IdentityTransform

from quickstudy.comparison.page import capital
from quickstudy.comparison.table import Recommendation
from quickstudy.report.style import BLUE, GREEN, HALO, MUTED, STYLE, WIDE
from quickstudy.report.words import duration

LARGEST = 320.0  # square points, of the marker of the longest training
SMALLEST = 14.0
DPI = 144
ANGLES = tuple(math.pi * turn for turn in (0, 1, 0.5, -0.5, 0.25, -0.25, 0.75, -0.75))  # the right side first


def png(table: pd.DataFrame, found: Recommendation, score: str, episodes: str) -> bytes:
    """Return the picture's bytes; see `tradeoff`."""
    with style.context(["default", STYLE]):
        figure, _ = tradeoff(table, found, score, episodes)
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def tradeoff(table: pd.DataFrame, found: Recommendation, score: str, episodes: str) -> tuple[Figure, list[Text]]:
    """Draw the score with its interval against the time to adapt; the area of a marker is the time of training.

    Args:
        table: of `tabulate`; failed cells and such without a time are left out.
        score: what the kind of task calls it.
        episodes: what was answered, for the axis: "meta-validation".

    Returns:
        the figure, and the labels of the cells, placed so that they cover neither one another nor a marker.
    """
    rows = table[(table["failure"] == "") & table["adapt_ms"].notna()]
    height = 4.6 + 0.16 * max(0, len(rows) - 10)
    figure = Figure(figsize=(WIDE, height), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    top = 1 - 0.62 / height
    panel = figure.add_axes((0.075, 0.55 / height, 0.9, top - 0.55 / height))
    areas = (LARGEST * rows["train_seconds"] / rows["train_seconds"].max()).clip(lower=SMALLEST).tolist()
    tones = [_tone(name, found) for name in rows["cell"]]
    for (_, row), area, tone in zip(rows.iterrows(), areas, tones, strict=True):
        half = 0.0 if math.isnan(row["ci95"]) else row["ci95"]
        panel.errorbar(row["adapt_ms"], row["score"], half, color=tone, elinewidth=1.3, zorder=3)
        face = "white" if tone == MUTED else tone
        panel.scatter(row["adapt_ms"], row["score"], area, facecolor=face, edgecolor=tone, linewidth=1.3, zorder=4)
    low, high = rows["score"] - rows["ci95"].fillna(0), rows["score"] + rows["ci95"].fillna(0)
    room = max(0.10 * (high.max() - low.min()), 0.004)
    panel.set_ylim(low.min() - room, high.max() + room)
    panel.set_xscale("log")
    panel.set_xlim(rows["adapt_ms"].min() / 1.35, rows["adapt_ms"].max() * 1.7)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda ms, _: f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_xlabel("time to adapt to a task, from its files")
    _headings(figure, rows, top, height, f"{capital(score)} on {episodes} tasks")
    figure.draw_without_rendering()
    labels = _label(panel, canvas, rows, areas, tones, found)
    return figure, labels


def _tone(name: str, found: Recommendation) -> str:
    return BLUE if name == found.chosen else GREEN if name in (found.best, *found.equals) else MUTED


def _headings(figure: Figure, rows: pd.DataFrame, top: float, height: float, shown: str) -> None:
    """Above the panel: what is shown, what the colours mean, and what the areas do."""
    figure.text(
        0.075,
        1 - 0.22 / height,
        f"{shown} against the time to adapt",
        fontweight="bold",
        fontsize=10,
        va="center",
    )
    ends, x = [("recommended", BLUE), ("not significantly worse than the best", GREEN), ("worse", MUTED)], 0.075
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for text, tone in ends:
        drawn = figure.text(x, top + 0.16 / height, text, color=tone, fontsize=8, fontweight="bold", va="center")
        x += (drawn.get_window_extent(renderer).width / DPI + 0.18) / WIDE
    # Two markers to measure the others by: the longest training, and a quarter of it.
    longest = float(rows["train_seconds"].max())
    legend = figure.add_axes((0.60, top + 0.02 / height, 0.375, 0.5 / height))
    legend.set(xlim=(0, 1), ylim=(0, 1))
    legend.axis("off")
    legend.text(0.34, 0.5, "area: time of training", fontsize=8, color=MUTED, va="center", ha="right")
    for x, share in ((0.42, 0.25), (0.72, 1.0)):
        legend.scatter(x, 0.5, LARGEST * share, facecolor="white", edgecolor=MUTED, linewidth=1.3)
        legend.text(x + 0.05, 0.5, duration(1000 * longest * share), fontsize=8, color=MUTED, va="center")


def _label(
    panel: Axes,
    canvas: FigureCanvasAgg,
    rows: pd.DataFrame,
    areas: Sequence[float],
    tones: Sequence[str],
    found: Recommendation,
) -> list[Text]:
    """Write each cell's name at the nearest place beside its marker where nothing else is; a thin line leads to it
    from further away. Where there is none, the cell's number in the table has to do. All in pixels."""
    renderer = canvas.get_renderer()
    half = rows["ci95"].fillna(0.0)
    centres = panel.transData.transform(rows[["adapt_ms", "score"]].to_numpy(dtype=float))
    lows = panel.transData.transform(np.column_stack([rows["adapt_ms"], rows["score"] - half]))[:, 1]
    highs = panel.transData.transform(np.column_stack([rows["adapt_ms"], rows["score"] + half]))[:, 1]
    radii = [math.sqrt(area / math.pi) * DPI / 72 + 1 for area in areas]
    marks = [Bbox([(x - r, y - r), (x + r, y + r)]) for (x, y), r in zip(centres, radii, strict=True)]
    bars = [Bbox([(x - 2, low), (x + 2, high)]) for (x, _), low, high in zip(centres, lows, highs, strict=True)]
    inside = panel.get_window_extent(renderer).padded(-4)
    labels: list[Text] = []
    boxes: list[Bbox] = []
    leaders: list[Outline] = []

    def place(i: int, size: Bbox, reach: int, bars: Sequence[Bbox]) -> tuple[int, Bbox, Outline] | None:
        """How far out, the box and the line to it."""
        x, y = centres[i]
        others = [*marks[:i], *marks[i + 1 :], *bars[:i], *bars[i + 1 :]]
        for far, angle in itertools.product(range(reach), ANGLES):
            gap = radii[i] + 4 + far * size.height / 2
            # The box touches a circle around the marker with the side, or corner, that faces it.
            left = x + gap * math.cos(angle) + (math.cos(angle) - 1) / 2 * size.width
            bottom = y + gap * math.sin(angle) + (math.sin(angle) - 1) / 2 * size.height
            box = Bbox.from_bounds(left, bottom, size.width, size.height)
            leader = Outline([(x, y), (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))])
            if box.x0 < inside.x0 or box.x1 > inside.x1 or box.y0 < inside.y0 or box.y1 > inside.y1:
                continue
            if box.count_overlaps([*marks, *bars, *boxes]) or any(o.intersects_bbox(box, False) for o in leaders):
                continue
            if far and any(leader.intersects_bbox(o, False) for o in [*boxes, *others]):
                continue
            return far, box, leader
        return None

    for i, (tone, (number, row)) in enumerate(zip(tones, rows.iterrows(), strict=True)):
        name, weight = _name(row), "bold" if row["cell"] == found.chosen else "normal"
        text = panel.text(
            0,
            0,
            name if len(name) <= 48 else f"{name[:47]}…",
            color=tone,
            fontsize=8.5,
            fontweight=weight,
            path_effects=HALO,
            zorder=6,
            transform=IdentityTransform(),
            va="bottom",
        )
        spot = place(i, text.get_window_extent(renderer), 24, bars)
        if spot is None:  # a number may stand on a line of another's interval
            text.set_text(str(int(number) + 1))
            spot = place(i, text.get_window_extent(renderer), 60, ())
        if spot is None:
            text.remove()
            continue
        far, box, leader = spot
        text.set_position((box.x0, box.y0))
        labels.append(text)
        boxes.append(box)
        if far:
            xs, ys = np.asarray(leader.vertices, dtype=float).T
            panel.add_line(Line2D(xs, ys, transform=IdentityTransform(), color=tone, linewidth=0.7))
            leaders.append(leader)
    return labels


def _name(row: pd.Series) -> str:
    """The cell, its parameter without the sections: "adapt, width=32"."""
    if not row["change"]:
        return str(row["learner"])
    path, _, value = row["change"].partition("=")
    return f"{row['learner']}, {path.rpartition('.')[2]}={value}"
