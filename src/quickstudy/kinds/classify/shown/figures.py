"""The figures of classification: how far its probabilities can be trusted, and episodes to look at."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from quickstudy.config import AudioInput
from quickstudy.kinds.classify.shown.calibration import Calibration, calibrations
from quickstudy.kinds.classify.shown.episodes import draw_episodes
from quickstudy.kinds.classify.shown.failures import episodes_to_look_at
from quickstudy.kinds.pictures import eye
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.style import MUTED, NARROW, TONES, WIDE, blank


def figures(evidence: KindEvidence, narrow: bool) -> dict[str, Figure]:
    """Draw the figures, by name; none where the evaluation did not keep its answers."""
    drawn = {}
    if found := calibrations(evidence):
        drawn["calibration"] = _diagrams(found, narrow)
    audio = AudioInput.model_validate(evidence.model["inputs"]["audio"])
    for episodes in episodes_to_look_at(evidence):
        if (see := eye(episodes[0].modality, audio)) is not None:
            drawn[f"episodes_{episodes[0].modality}"] = draw_episodes(episodes, see, narrow)
    return drawn


def _diagrams(found: list[Calibration], narrow: bool) -> Figure:
    """Draw a panel a modality: how often answers are right, by the probability that they were given with."""
    figure = blank(NARROW if narrow else WIDE * max(len(found), 2) / 3, 3.3 * len(found) if narrow else 3.4)
    panels = figure.subplots(len(found), 1) if narrow else figure.subplots(1, len(found), sharey=True)
    for panel, one in zip(np.atleast_1d(panels), found, strict=True):
        tone = TONES[one.modality]
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
