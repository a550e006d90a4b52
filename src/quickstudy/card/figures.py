"""The figures that every kind of task has, and all of a card as PNG bytes: wide ones for a page, narrow for a phone."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from quickstudy.card.part import Part
from quickstudy.card.separately import paired_with_scratch
from quickstudy.data.dataset import MODALITIES
from quickstudy.report.evidence import QUICKSTUDY
from quickstudy.report.style import HALO, INK, LOOK, MUTED, NARROW, STYLE, TONES, WIDE, blank, png
from quickstudy.report.words import capital, duration, figure_file, short
from quickstudy.stats.intervals import OURS

ALTERNATIVES = {
    "score": "{score} with bands of 95% by the number of examples{per}, for each suite of tasks, beside the best "
    "baselines",
    "adapt": "time to learn a task and {score} then: Quickstudy beside training from scratch",
    "training": "loss and meta-validation {score} during meta-training",
}
"""What each figure shows, for those who do not see it."""


def draw(parts: Sequence[Part], narrow: bool, dpi: int) -> dict[str, bytes]:
    """Draw the figures of all kinds, by file name. One that has nothing to show is left out."""
    makers: dict[str, Callable[[Part, bool], Figure | None]] = {
        "score": score,
        "adapt": adaptation,
        "training": training,
    }
    pictures = {}
    with style.context(["default", STYLE]):
        for part in parts:
            made = {name: make(part, narrow) for name, make in makers.items()}
            made |= part.shown.figures(part.evidence, narrow)
            for name, figure in made.items():
                if figure is not None:
                    figure.set_dpi(dpi)
                    pictures[figure_file(part.evidence.kind, name)] = png(figure)
    return pictures


def score(part: Part, narrow: bool) -> Figure:
    """Draw a panel a suite: the score by shots with bands of 95%, ours and the best baseline of each family."""
    evidence = part.evidence
    suites = evidence.suites
    columns = 1 if narrow else min(3, len(suites))
    rows = -(-len(suites) // columns)
    figure = blank(NARROW if narrow else WIDE * max(columns, 2) / 3, (2.05 if narrow else 2.5) * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    places = {shot: place for place, shot in enumerate(evidence.shots)}
    for panel, suite in zip(panels, suites, strict=False):
        _score_panel(panel, part, suite, places)
    for panel in panels[len(suites) :]:
        panel.set_visible(False)
    return figure


def _score_panel(panel: Axes, part: Part, suite: str, places: dict[int, int]) -> None:
    evidence = part.evidence
    rows = evidence.rows(suite, OURS)
    about = ", ".join(word for word in (rows["modality"].iloc[0], part.shown.size(rows).short) if word)
    panel.set_title(short(suite))
    panel.set_title(about, loc="right", fontsize=8, fontweight="normal", color=MUTED)
    ends = []
    if (chance := part.shown.chance(evidence, rows.iloc[0])) is not None:
        panel.axhline(chance, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        ends.append((chance, part.shown.guess, MUTED))
    lines = [(family, evidence.best_of(suite, methods)) for family, methods in part.families().items()]
    for family, method in [*lines, (OURS, OURS)]:  # ours last, on top
        if method is None:
            continue
        rows = evidence.rows(suite, method)
        tone, marker = LOOK[family]
        ours = family == OURS
        x, half = [places[shot] for shot in rows["shot"]], rows["ci95"].fillna(0.0)
        panel.plot(
            x,
            rows["score"],
            color=tone,
            marker=marker,
            linewidth=2.4 if ours else 1.3,
            zorder=4 if ours else 3,
            markersize=6 if ours else 4,
            linestyle="--" if family == "scratch" else "-",
        )
        low, high = (rows["score"] - half).clip(lower=0), (rows["score"] + half).clip(upper=1)
        panel.fill_between(x, low, high, color=tone, alpha=0.16, linewidth=0.0, zorder=2)
        ends.append((float(rows["score"].iloc[-1]), part.called(method), tone))
        if ours:
            for shot, value in zip(rows["shot"], rows["score"], strict=True):
                panel.annotate(
                    f"{100 * value:.0f}",
                    (places[shot], value),
                    (0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8.5,
                    fontweight="bold",
                    color=tone,
                    path_effects=HALO,
                    zorder=6,
                )
    last = len(places) - 1
    panel.set(ylim=(0, 1.14), xlim=(-0.32, last + 0.2 + 0.62 * max(last, 1)))
    _label_ends(panel, last + 0.13, ends, gap=0.105)
    panel.set_yticks([0, 0.25, 0.5, 0.75, 1.0])
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    first = [part.shots(shot) for shot in evidence.shots[:1]]  # with its unit, the others have no room for it
    panel.set_xticks(list(places.values()), [*first, *map(str, evidence.shots[1:])])
    panel.grid(axis="x", visible=False)


def adaptation(part: Part, narrow: bool) -> Figure | None:
    """Draw a row a suite: the time to learn a task, and the score then, ours and training from scratch on the same
    episodes. None where that was not measured."""
    both = paired_with_scratch(part.evidence)
    if both.empty:
        return None
    height = 0.34 * len(both) + 0.9
    figure = blank(NARROW if narrow else WIDE, 2 * height if narrow else height)
    panels = figure.subplots(2, 1) if narrow else figure.subplots(1, 2, sharey=True)
    y = np.arange(len(both))[::-1]
    shot = int(both["shot"].iloc[0])
    titles = ("Time to learn a task", f"{capital(part.shown.score)} then, {part.shots(shot)}")
    for panel, what, title in zip(panels, ("ms", "score"), titles, strict=True):
        panel.hlines(y, both[f"ours_{what}"], both[f"scratch_{what}"], color="#C9D0D7", linewidth=1.5)
        for who, family in (("scratch", "scratch"), ("ours", OURS)):
            tone, marker = LOOK[family]
            ci = both[f"{who}_ci95"].fillna(0.0) if what == "score" else None
            panel.errorbar(
                both[f"{who}_{what}"],
                y,
                xerr=ci,
                color=tone,
                marker=marker,
                markersize=6.5,
                linestyle="",
                elinewidth=1.2,
                zorder=4,
            )
            other = "ours" if who == "scratch" else "scratch"
            right = both[f"{who}_{what}"].iloc[0] > both[f"{other}_{what}"].iloc[0]
            inward = what == "ms" and _far(both, 0)  # where there is room between the two
            panel.annotate(
                part.called(family),
                (both[f"{who}_{what}"].iloc[0], y[0]),
                (0, 8),
                textcoords="offset points",
                ha="right" if right == inward else "left",
                fontsize=8.5,
                fontweight="bold",
                color=tone,
            )
            if what == "ms":
                for i, (height, ms, theirs) in enumerate(zip(y, both[f"{who}_ms"], both[f"{other}_ms"], strict=True)):
                    left = (ms > theirs) == _far(both, i)
                    panel.annotate(
                        duration(ms),
                        (ms, height),
                        (-8 if left else 8, 0),
                        textcoords="offset points",
                        ha="right" if left else "left",
                        va="center",
                        fontsize=8,
                        color=tone,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
                    )
        panel.set_yticks(y, [short(suite) for suite in both["suite"]], color=INK)
        panel.set_ylim(-0.6, len(both) - 0.1)
        panel.set_title(title, pad=8)
        panel.grid(axis="y", visible=False)
    panels[0].set_xscale("log")
    times = both[["ours_ms", "scratch_ms"]]
    panels[0].set_xlim(times.min().min() / 1.8, times.max().max() * 1.8)
    panels[0].xaxis.set_major_formatter(FuncFormatter(lambda ms, _: _tick(ms)))
    panels[0].xaxis.set_minor_locator(NullLocator())
    panels[1].xaxis.set_major_formatter(PercentFormatter(1.0))
    panels[1].set_xlim(0, 1.03)
    return figure


def _far(both: pd.DataFrame, place: int) -> bool:
    """Whether there is room for labels between the two times."""
    ours, scratch = both["ours_ms"].iloc[place], both["scratch_ms"].iloc[place]
    return max(ours, scratch) > 5 * min(ours, scratch)


def training(part: Part, narrow: bool) -> Figure:
    """Draw the loss, and the score on meta-validation tasks a modality, by meta-batches."""
    curve = part.evidence.curve
    figure = blank(NARROW if narrow else WIDE, 5.0 if narrow else 2.8)
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
    validation.set_title(f"Meta-validation, {part.shown.validation}")
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
        bold = "bold" if text == QUICKSTUDY else "normal"
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


def _tick(ms: float) -> str:
    return f"{ms:g} ms" if ms < 1000 else f"{ms / 1000:g} s"
