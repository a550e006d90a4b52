"""The card's figures, as PNG bytes: wide ones for a page, narrow ones for a phone."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from quickstudy.card.calibration import calibrations
from quickstudy.card.examples import draw_episodes
from quickstudy.card.failures import Episode
from quickstudy.card.separately import paired_with_scratch
from quickstudy.data.dataset import MODALITIES
from quickstudy.report.evidence import FAMILIES, SHORT, Evidence
from quickstudy.report.style import HALO, INK, LOOK, MUTED, NARROW, STYLE, TONES, WIDE, blank, png
from quickstudy.report.words import duration
from quickstudy.stats.intervals import OURS


def draw(evidence: Evidence, shown: Sequence[Sequence[Episode]], narrow: bool, dpi: int) -> dict[str, bytes]:
    """The figures by file name. One that has nothing to show is left out.

    Args:
        shown: of each modality the episodes to look at; texts are no figure.
    """
    makers: dict[str, Callable[[Evidence, bool], Figure | None]] = {
        "accuracy.png": accuracy,
        "adapt.png": adaptation,
        "calibration.png": calibration,
        "training.png": training,
    }
    with style.context(["default", STYLE]):
        made = {name: make(evidence, narrow) for name, make in makers.items()}
        for episodes in shown:
            if (modality := episodes[0].modality) != "text":
                made[f"episodes_{modality}.png"] = draw_episodes(episodes, evidence.model["inputs"], narrow)
        pictures = {}
        for name, figure in made.items():
            if figure is not None:
                figure.set_dpi(dpi)
                pictures[name] = png(figure)
    return pictures


def accuracy(evidence: Evidence, narrow: bool) -> Figure | None:
    """A panel a suite: accuracy by shots with bands of 95%, ours and the best baseline of each family."""
    suites = evidence.suites
    columns = 1 if narrow else min(3, len(suites))
    rows = -(-len(suites) // columns)
    figure = blank(NARROW if narrow else WIDE * max(columns, 2) / 3, (2.05 if narrow else 2.5) * rows)
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
        x, half = [places[shot] for shot in part["shot"]], part["ci95"].fillna(0.0)
        panel.plot(
            x,
            part["accuracy"],
            color=tone,
            marker=marker,
            linewidth=2.4 if ours else 1.3,
            zorder=4 if ours else 3,
            markersize=6 if ours else 4,
            linestyle="--" if family == "scratch" else "-",
        )
        low, high = (part["accuracy"] - half).clip(lower=0), (part["accuracy"] + half).clip(upper=1)
        panel.fill_between(x, low, high, color=tone, alpha=0.16, linewidth=0.0, zorder=2)
        ends.append((float(part["accuracy"].iloc[-1]), SHORT[method], tone))
        if ours:
            for shot, value in zip(part["shot"], part["accuracy"], strict=True):
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
    panel.set_xticks(list(places.values()), [f"{shot} shot{'s' if shot > 1 else ''}" for shot in places])
    panel.grid(axis="x", visible=False)


def adaptation(evidence: Evidence, narrow: bool) -> Figure | None:
    """A row a suite: the time to learn a task, and the accuracy then, ours and training from scratch on the same
    episodes. None where that was not measured."""
    both = paired_with_scratch(evidence)
    if both.empty:
        return None
    height = 0.34 * len(both) + 0.9
    figure = blank(NARROW if narrow else WIDE, 2 * height if narrow else height)
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
                SHORT[family],
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
        panel.set_yticks(y, [_short(suite) for suite in both["suite"]], color=INK)
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


def calibration(evidence: Evidence, narrow: bool) -> Figure | None:
    """A panel a modality: how often answers are right, by the probability that they were given with. None where the
    evaluation did not keep its answers."""
    found = calibrations(evidence)
    if not found:
        return None
    figure = blank(NARROW if narrow else WIDE * max(len(found), 2) / 3, 3.3 * len(found) if narrow else 3.4)
    panels = figure.subplots(len(found), 1) if narrow else figure.subplots(1, len(found), sharey=True)
    for panel, one in zip(np.atleast_1d(panels), found, strict=True):
        tone = TONES[one.modality]  # type: ignore[index]
        panel.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        panel.text(0.02, 0.97, "too careful", color=MUTED, fontsize=8, va="top")
        panel.text(0.98, 0.03, "too sure", color=MUTED, fontsize=8, ha="right")
        bins = one.bins
        low, high = (bins["accuracy"] - bins["half"]).clip(lower=0), (bins["accuracy"] + bins["half"]).clip(upper=1)
        panel.fill_between(bins["confidence"], low, high, color=tone, alpha=0.22, linewidth=0.0)
        panel.plot(bins["confidence"], bins["accuracy"], color=tone, marker="o", markersize=4.5, zorder=4)
        panel.set_title(one.modality)
        panel.set_title(f"ECE {100 * one.error:.1f} points", loc="right", fontsize=8, fontweight="normal", color=MUTED)
        panel.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability it gives its answer", box_aspect=1)
        panel.xaxis.set_major_formatter(PercentFormatter(1.0))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    np.atleast_1d(panels)[0].set_ylabel("answers that are right")
    return figure


def training(evidence: Evidence, narrow: bool) -> Figure | None:
    """The loss, and the accuracy on meta-validation tasks a modality, by meta-batches."""
    curve = evidence.curve
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
