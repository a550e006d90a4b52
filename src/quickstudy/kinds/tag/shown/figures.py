"""The figures of tagging: how well single tags are found, how far probabilities can be trusted, episodes to look at."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from quickstudy.kinds.pictures import clipped, episode_figures
from quickstudy.kinds.tag.shown.calibration import calibrations
from quickstudy.kinds.tag.shown.cells import Cell, by_tag, cells
from quickstudy.kinds.tag.shown.episodes import episodes_to_look_at
from quickstudy.kinds.tag.shown.pictures import draw_episodes
from quickstudy.report.calibration import diagrams
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.style import BLUE, INK, MUTED, NARROW, WIDE, blank
from quickstudy.report.words import counted, short

MOST_SUITES, MOST_TAGS = 6, 8
"""In the figure of tags: the weakest."""


def figures(evidence: KindEvidence, narrow: bool) -> dict[str, Figure]:
    """Draw the figures, by name; none where the evaluation did not keep its answers."""
    found = cells(evidence)
    if not found:
        return {}
    drawn = {
        "tags": _tags(weakest_tags(found), narrow),
        "calibration": diagrams(
            calibrations(found),
            narrow,
            given="probability it gives a tag",
            true="examples that have it",
            high="too sure of tags",
            low="too careful",
        ),
    }
    return drawn | episode_figures(evidence, episodes_to_look_at(evidence), draw_episodes, narrow)


def weakest_tags(found: Sequence[Cell]) -> dict[str, pd.DataFrame]:
    """Return by suite, the weakest first, its weakest tags: `by_tag` of these, the weakest first, a column of F1 for
    each number of examples."""
    table = by_tag(found).pivot(index=["suite", "tag"], columns="shot", values="f1")
    means = table.mean(axis=1)
    order = means.groupby(level="suite").mean().sort_values(kind="stable").index
    return {
        suite: table.loc[suite].loc[means.loc[suite].sort_values(kind="stable").index[:MOST_TAGS]]
        for suite in order[:MOST_SUITES]
    }


def _tags(weakest: Mapping[str, pd.DataFrame], narrow: bool) -> Figure:
    """Draw a panel a suite: of its weakest tags the F1 with each number of examples."""
    columns = 1 if narrow else 2 if len(weakest) > 1 else 1
    down = -(-len(weakest) // columns)
    rows = max(len(tags) for tags in weakest.values())
    figure = blank(NARROW if narrow else WIDE, down * (0.22 * rows + 0.75) + 0.3)
    panels = figure.subplots(down, columns, squeeze=False, sharex=True).ravel()
    for panel, (suite, tags) in zip(panels, weakest.items(), strict=False):
        _panel(panel, suite, tags, rows)
    for panel in panels[len(weakest) :]:
        panel.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, labelcolor=MUTED)
    return figure


def _panel(panel: Axes, suite: str, tags: pd.DataFrame, rows: int) -> None:
    y = np.arange(len(tags))
    panel.hlines(y, tags.min(axis=1), tags.max(axis=1), color="#C9D0D7", linewidth=1.5)
    for place, shot in enumerate(tags.columns):
        share = (place + 1) / len(tags.columns)  # the more examples, the darker
        tone = tuple(1 - share * (1 - value) for value in to_rgb(BLUE))
        label = counted(int(shot), "example")
        panel.plot(tags[shot], y, color=tone, marker="o", markersize=6, linestyle="", zorder=4, label=label)
    panel.set_yticks(y, [clipped(str(name), 28) for name in tags.index], color=INK)
    panel.set(xlim=(0, 1.03), ylim=(rows - 0.5, -0.6))
    panel.set_title(short(suite))
    panel.set_title("F1 of a tag", loc="right", fontsize=8, fontweight="normal", color=MUTED)
    panel.xaxis.set_major_formatter(PercentFormatter(1.0))
    panel.grid(axis="y", visible=False)
