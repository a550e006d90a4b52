"""Are probabilities to be taken at their word? Reliability and expected calibration error, and how they are drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from quickstudy.data.dataset import Modality
from quickstudy.report.style import MUTED, NARROW, TONES, WIDE, blank
from quickstudy.report.words import Markdown, listed, percent, rows
from quickstudy.stats.intervals import mean_interval

BINS = 10

EXPLAINED = Markdown(
    "ECE, the expected calibration error in points, is the mean distance between a probability and how often what was "
    "given it is true (Guo et al. 2017, https://arxiv.org/abs/1706.04599), here over "
    f"{BINS} bins of equally many (Nguyen and O'Connor 2015, https://arxiv.org/abs/1508.05154); equal probabilities "
    "share a bin."
)


@dataclass(frozen=True)
class Calibration:
    """Of the probabilities that a model gave with a modality."""

    modality: Modality
    bins: pd.DataFrame
    """of `reliability`"""
    error: float
    """expected calibration error"""
    given: float
    """mean probability"""
    true: float
    """how often what was given a probability is true"""
    nll: float
    """mean over episodes of the negative log likelihood, in nats"""
    nll_half: float
    """half the width of its 95% interval"""


def calibration(
    modality: Modality, given: Sequence[np.ndarray], true: Sequence[np.ndarray], nll: np.ndarray
) -> Calibration:
    """Return how probabilities agree with what is true.

    Args:
        given: of each episode [n] probabilities. true: of each bool [n].
        nll: of each the negative log likelihood, in nats.
    """
    episode = np.repeat(np.arange(len(given)), [len(one) for one in given])
    probability, hits = np.concatenate([*given]), np.concatenate([*true])
    bins = reliability(probability, hits, episode)
    mean = float(probability.mean(dtype=np.float64))
    return Calibration(modality, bins, calibration_error(bins), mean, float(hits.mean()), *mean_interval(nll))


def reliability(probability: np.ndarray, hits: np.ndarray, episode: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Return how often what was given a probability is true, in bins of equally many (Nguyen and O'Connor 2015,
    "Posterior calibration and exploratory analysis for natural language processing models", EMNLP,
    https://arxiv.org/abs/1508.05154).

    Equal probabilities are in the same bin, so that there may be fewer bins, of unlike sizes. What belongs to an
    episode shares its support set: the variance of a bin's share is that of a ratio of totals over episodes.
    (`sklearn.calibration.calibration_curve` has bins like these, and neither their sizes nor their intervals.)

    Args:
        probability: [n]. hits: bool [n], whether it came true.
        episode: [n] number of the episode that each belongs to.

    Returns:
        columns count, probability (mean), share (that came true), half (width of its 95% interval), by growing
        probability.
    """
    order = np.argsort(probability, kind="stable")
    ordered = probability[order]
    cuts = np.arange(1, bins) * len(ordered) // bins
    starts = np.unique([0, *np.searchsorted(ordered, ordered[cuts])]) if len(ordered) else np.array([], dtype=np.int64)
    found = []
    for part in np.split(order, starts[1:]):
        share = hits[part].mean()
        _, owner = np.unique(episode[part], return_inverse=True)
        apart = np.bincount(owner, weights=hits[part] - share)
        half = 1.96 * np.sqrt((apart**2).sum()) / len(part)
        found.append((len(part), probability[part].mean(dtype=np.float64), share, half))
    return pd.DataFrame(found, columns=["count", "probability", "share", "half"])


def calibration_error(bins: pd.DataFrame) -> float:
    """Return the mean distance between probability and share over the bins, each weighed by its count: the expected
    calibration error (Guo et al. 2017, "On calibration of modern neural networks", ICML,
    https://arxiv.org/abs/1706.04599)."""
    return float(np.average((bins["probability"] - bins["share"]).abs(), weights=bins["count"]))


def biases(found: Sequence[Calibration], high: str, low: str) -> Markdown:
    """Return by how much the probabilities of each modality are too high or too low, in words.

    Args:
        high: how it is where they are too high: "too sure of itself". low: where they are too low.
    """
    over = [(one.modality, 100 * (one.given - one.true)) for one in found]
    return listed(f"{high if much > 0 else low} with {modality} by {abs(much):.1f} points" for modality, much in over)


def calibration_table(found: Sequence[Calibration], given: str, true: str) -> Markdown:
    """Return a row a modality.

    Args:
        given: what the probabilities are of, for the head of a column. true: the same where it came true.
    """
    body = [
        [one.modality, f"{100 * one.error:.1f}", percent(one.given), percent(one.true), _nats(one)] for one in found
    ]
    return rows(["modality", "ECE", f"{given}, %", f"{true}, %", "nll"], body, "lrrrr")


def _nats(one: Calibration) -> str:
    return f"{one.nll:.3f}" + (f" ± {one.nll_half:.3f}" if one.nll_half == one.nll_half else "")


def diagrams(
    found: Sequence[Calibration], narrow: bool, given: str, true: str, high: str = "too sure", low: str = "too careful"
) -> Figure:
    """Draw a panel a modality: how often it came true, by the probability that was given.

    Args:
        given: below the horizontal axis. true: beside the vertical one.
        high: what stands where probabilities are too high. low: where they are too low.
    """
    figure = blank(NARROW if narrow else WIDE, 3.3 * len(found) if narrow else 3.4)
    shape = (len(found), 1) if narrow else (1, max(3, len(found)))
    panels = figure.subplots(*shape, sharey=not narrow, squeeze=False).ravel()
    for panel in panels[len(found) :]:
        panel.set_visible(False)
    for panel, one in zip(panels, found, strict=False):
        tone, bins = TONES[one.modality], one.bins
        panel.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        panel.text(0.02, 0.97, low, color=MUTED, fontsize=8, va="top")
        panel.text(0.98, 0.03, high, color=MUTED, fontsize=8, ha="right")
        ends = (bins["share"] - bins["half"]).clip(lower=0), (bins["share"] + bins["half"]).clip(upper=1)
        panel.fill_between(bins["probability"], *ends, color=tone, alpha=0.22, linewidth=0.0)
        panel.plot(bins["probability"], bins["share"], color=tone, marker="o", markersize=4.5, zorder=4)
        panel.set_title(one.modality)
        panel.set_title(f"ECE {100 * one.error:.1f} points", loc="right", fontsize=8, fontweight="normal", color=MUTED)
        panel.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel=given, box_aspect=1)
        panel.xaxis.set_major_formatter(PercentFormatter(1.0))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    panels[0].set_ylabel(true)
    return figure
