"""The card's figures, as PNG bytes: wide ones for a page, narrow ones for a phone.

Colours are of the Okabe-Ito palette, told apart by the colour-blind; lines differ in their markers too and are
labelled where they end. Nothing of the machine or the time goes into the bytes.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib import patheffects, style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from PIL import Image

from quickstudy.card.evidence import FAMILIES, SHORT, Evidence
from quickstudy.data.dataset import MODALITIES
from quickstudy.stats import OURS, mean_interval

BLUE, GREEN, ORANGE, PURPLE = "#0072B2", "#00795A", "#B85400", "#8C5A7D"
INK, MUTED, GRID = "#1B1F24", "#59636E", "#E4E8EC"
LOOK = {OURS: (BLUE, "o"), "encoder": (GREEN, "s"), "raw": (ORANGE, "^"), "scratch": (PURPLE, "D")}
TONES = dict(zip(MODALITIES, (BLUE, ORANGE, GREEN), strict=True))
STYLE = {
    "font.family": "DejaVu Sans",  # matplotlib carries it: the same picture everywhere
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # names of datasets may hold dollars
    "axes.edgecolor": "#B8C0C8",
    "axes.labelcolor": MUTED,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
}
WIDE, NARROW = 10.4, 4.0  # inches
HALO = [patheffects.withStroke(linewidth=2.5, foreground="white")]


def draw(evidence: Evidence, narrow: bool) -> dict[str, bytes]:
    """The figures by file name. One that has nothing to show is left out."""
    makers: dict[str, Callable[[Evidence, bool], Figure | None]] = {
        "accuracy.png": accuracy, "adapt.png": adaptation, "training.png": training,
    }  # fmt: skip
    pictures = {}
    with style.context(["default", STYLE]):
        for name, make in makers.items():
            if (figure := make(evidence, narrow)) is not None:
                figure.set_dpi(144 if len(evidence.suites) <= 12 else 96)  # the page stays below a megabyte
                pictures[name] = _png(figure)
    return pictures


def accuracy(evidence: Evidence, narrow: bool) -> Figure | None:
    """A panel a suite: accuracy by shots, ours and the best baseline of each family."""
    suites = evidence.suites
    columns = 1 if narrow else min(3, len(suites))
    rows = -(-len(suites) // columns)
    figure = _figure(NARROW if narrow else WIDE * max(columns, 2) / 3, (2.05 if narrow else 2.5) * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    places = {shot: place for place, shot in enumerate(evidence.shots)}
    for panel, suite in zip(panels, suites, strict=False):
        _accuracy_panel(panel, evidence, suite, places)
    for panel in panels[len(suites) :]:
        panel.set_visible(False)
    return figure


def _accuracy_panel(panel: Axes, evidence: Evidence, suite: str, places: dict[int, int]) -> None:
    way = int(evidence.rows(suite, OURS)["way"].iloc[0])
    modality = evidence.rows(suite, OURS)["modality"].iloc[0]
    panel.set_title(_short(suite))
    panel.set_title(f"{modality}, {way}-way", loc="right", fontsize=8, fontweight="normal", color=MUTED)
    panel.axhline(1 / way, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    ends = [(1 / way, "chance", MUTED)]
    lines = [(family, evidence.best_of(suite, methods)) for family, methods in FAMILIES.items()]
    for family, method in [*lines, (OURS, OURS)]:  # ours last, on top
        if method is None:
            continue
        part = evidence.rows(suite, method)
        tone, marker = LOOK[family]
        ours = family == OURS
        panel.errorbar(
            [places[shot] for shot in part["shot"]], part["accuracy"], part["ci95"].fillna(0.0),
            color=tone, marker=marker, linewidth=2.4 if ours else 1.3, markersize=6 if ours else 4, elinewidth=1.2,
            linestyle="-" if ours else "--" if family == "scratch" else "-", zorder=4 if ours else 3,
        )  # fmt: skip
        ends.append((float(part["accuracy"].iloc[-1]), SHORT[method], tone))
        if ours:
            for shot, value in zip(part["shot"], part["accuracy"], strict=True):
                panel.annotate(
                    f"{100 * value:.0f}", (places[shot], value), (0, 6), textcoords="offset points",
                    ha="center", fontsize=8.5, fontweight="bold", color=tone, path_effects=HALO, zorder=6,
                )  # fmt: skip
    last = len(places) - 1
    panel.set(ylim=(0, 1.14), xlim=(-0.32, last + 0.2 + 0.62 * max(last, 1)))
    _label_ends(panel, last + 0.13, ends, gap=0.105)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panel.set_xticks(list(places.values()), [f"{shot} shot{'s' if shot > 1 else ''}" for shot in places])
    panel.grid(axis="x", visible=False)


def adaptation(evidence: Evidence, narrow: bool) -> Figure | None:
    """A row a suite: the time to learn a task, and the accuracy then, ours and training from scratch on the same
    episodes. None where that was not measured."""
    both = paired_with_scratch(evidence)
    if both.empty:
        return None
    height = 0.34 * len(both) + 0.9
    figure = _figure(NARROW if narrow else WIDE, 2 * height if narrow else height)
    panels = figure.subplots(2, 1) if narrow else figure.subplots(1, 2, sharey=True)
    y = np.arange(len(both))[::-1]
    shot = int(both["shot"].iloc[0])
    titles = ("Time to learn a task", f"Accuracy then, {shot} shot{'s' if shot > 1 else ''}")
    for panel, what, title in zip(panels, ("ms", "accuracy"), titles, strict=True):
        panel.hlines(y, both[f"ours_{what}"], both[f"scratch_{what}"], color="#C9D0D7", linewidth=1.5)
        for who, family in (("scratch", "scratch"), ("ours", OURS)):
            tone, marker = LOOK[family]
            ci = both[f"{who}_ci95"].fillna(0.0) if what == "accuracy" else None
            panel.errorbar(
                both[f"{who}_{what}"], y, xerr=ci, color=tone, marker=marker, markersize=6.5, linestyle="",
                elinewidth=1.2, zorder=4,
            )  # fmt: skip
            other = "ours" if who == "scratch" else "scratch"
            right = both[f"{who}_{what}"].iloc[0] > both[f"{other}_{what}"].iloc[0]
            inward = what == "ms"  # where the two are far apart; accuracies may lie close together
            panel.annotate(
                SHORT[family], (both[f"{who}_{what}"].iloc[0], y[0]), (0, 8), textcoords="offset points",
                ha="right" if right == inward else "left", fontsize=8.5, fontweight="bold", color=tone,
            )  # fmt: skip
            if what == "ms":
                for height, ms, theirs in zip(y, both[f"{who}_ms"], both[f"{other}_ms"], strict=True):
                    panel.annotate(
                        duration(ms), (ms, height), (-8 if ms > theirs else 8, 0), textcoords="offset points",
                        ha="right" if ms > theirs else "left", va="center", fontsize=8, color=tone,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
                    )  # fmt: skip
        panel.set_yticks(y, [_short(suite) for suite in both["suite"]], color=INK)
        panel.set_ylim(-0.6, len(both) - 0.1)
        panel.set_title(title, pad=8)
        panel.grid(axis="y", visible=False)
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_formatter(FuncFormatter(lambda ms, _: _tick(ms)))
    panels[0].xaxis.set_minor_locator(NullLocator())
    panels[1].xaxis.set_major_formatter(PercentFormatter(1.0))
    panels[1].set_xlim(0, 1.03)
    return figure


def paired_with_scratch(evidence: Evidence) -> pd.DataFrame:
    """Ours and training from scratch on the episodes that both answered, at five shots or the nearest number there is.

    Returns:
        one row a suite: suite, shot, episodes, and for ``ours`` and ``scratch`` accuracy, ci95 (half width), ms
        (median). Suites without both, or without times, are left out.
    """
    frame = evidence.episodes
    scratch = frame[frame["method"] == "scratch"]
    rows = []
    if len(scratch):
        shot = min((int(shot) for shot in scratch["shot"].unique()), key=lambda shot: (abs(shot - 5), shot))
        keys = ["suite", "episode"]
        ours = frame[(frame["method"] == OURS) & (frame["shot"] == shot)]
        both = scratch[scratch["shot"] == shot].merge(ours, on=keys, suffixes=("_scratch", "_ours"))
        for suite, part in both.groupby("suite", sort=False):
            row: dict[str, object] = {"suite": suite, "shot": shot, "episodes": len(part)}
            for who in ("ours", "scratch"):
                row[f"{who}_accuracy"], row[f"{who}_ci95"] = mean_interval(part[f"accuracy_{who}"].to_numpy())
                row[f"{who}_ms"] = part[f"adapt_ms_{who}"].median()
            rows.append(row)
    return pd.DataFrame(rows).dropna(subset=["ours_ms", "scratch_ms"]) if rows else pd.DataFrame()


def training(evidence: Evidence, narrow: bool) -> Figure | None:
    """The loss, and the accuracy on meta-validation tasks a modality, by meta-batches."""
    curve = evidence.curve
    figure = _figure(NARROW if narrow else WIDE, 5.0 if narrow else 2.8)
    loss, validation = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    loss.plot(curve["step"], curve["loss"], color=INK, marker="o", markersize=3.5)
    loss.set_title("Meta-training loss")
    loss.set_ylim(bottom=0)
    ends = []
    for modality in (name for name in MODALITIES if name in curve):
        known = curve[["step", modality]].dropna()
        if len(known):
            validation.plot(known["step"], known[modality], color=TONES[modality], marker="o", markersize=3.5)
            value = float(known[modality].iloc[-1])
            ends.append((value, f"{modality} {100 * value:.0f}%", TONES[modality]))
    validation.set_title("Meta-validation, 5-way 1-shot")
    validation.set_ylim(0, 1.05)
    validation.yaxis.set_major_formatter(PercentFormatter(1.0))
    last = float(curve["step"].iloc[-1])
    for panel in (loss, validation):
        panel.set_xlabel("meta-batches")
        panel.set_xlim(0, last * 1.03)
    ticks = MaxNLocator(6, integer=True).tick_values(0, last)
    validation.set(xlim=(0, last * 1.25), xticks=[tick for tick in ticks if tick <= last])  # labels stand to the right
    _label_ends(validation, last * 1.03, ends, gap=0.09)
    return figure


def _label_ends(panel: Axes, x: float, ends: Sequence[tuple[float, str, str]], gap: float) -> None:
    """Write (height, text, colour) at the heights where lines end, moved apart to at least ``gap`` of the axis."""
    low, high = panel.get_ylim()
    heights = _apart([value for value, _, _ in ends], gap * (high - low), low + gap / 2, high - gap / 2)
    for height, (_, text, tone) in zip(heights, ends, strict=True):
        bold = "bold" if text == SHORT[OURS] else "normal"
        panel.text(x, height, text, color=tone, fontsize=8, fontweight=bold, va="center", path_effects=HALO, zorder=6)


def _apart(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The values moved apart to at least ``gap``, their order kept, upwards first and then down from ``high``."""
    order = np.argsort(values, kind="stable")
    placed = list(values)
    at = low - gap
    for i in order:
        placed[i] = at = max(placed[i], at + gap)
    at = high + gap
    for i in order[::-1]:
        placed[i] = at = min(placed[i], at - gap)
    return placed


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"


def _tick(ms: float) -> str:
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"


def duration(ms: float) -> str:
    """With a unit that fits: 8.4 ms, 310 ms, 1.2 s, 4 min."""
    if ms < 1000:
        return f"{ms:.1f} ms" if ms < 10 else f"{ms:.0f} ms"
    seconds = ms / 1000
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08))


def _png(figure: Figure) -> bytes:
    canvas, buffer = FigureCanvasAgg(figure), io.BytesIO()
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    # A palette of few colours: a third of the size, and nothing that the eye would miss.
    few = drawn.quantize(96, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
