"""Statistics of episodes. Pure: numbers in, numbers out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import stdtrit
from scipy.stats import t as student_t

if TYPE_CHECKING:
    import pandas as pd

OURS = "quickstudy"
"""The model's name among the methods of an evaluation."""


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half width of its confidence interval, by Student's t over episodes.

    A single value has an interval of unknown width: NaN.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return float(x.mean()), math.nan
    half = student_t.ppf(0.5 + confidence / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean()), float(half)


def share_interval(hits: int, count: int, confidence: float = 0.95) -> tuple[float, float]:
    """`mean_interval` of as many ones and, for the rest of the count, zeros, however many those are."""
    share = hits / count
    if count < 2:
        return share, math.nan
    half = student_t.ppf(0.5 + confidence / 2, count - 1) * math.sqrt(share * (1 - share) / (count - 1))
    return share, float(half)


def times_of(gain: float) -> float:
    """Return how many times as much something takes that gains so much, a logarithm; ∞ where no float is so large, as
    the end of an interval from two values may be."""
    try:
        return math.exp(-gain)
    except OverflowError:
        return math.inf


def beaten_by(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Where the model lies below the interval of a baseline: suite, shot, method, ours, theirs, ci95.

    Args:
        table: columns suite, shot, method, score, ci95 (half width); one row for each suite, shot and method.
    """
    found = []
    for (suite, shot), part in table.groupby(["suite", "shot"], sort=False):
        ours = part.loc[part["method"] == OURS, "score"].item()
        for row in part[part["method"] != OURS].itertuples():
            if ours < row.score - row.ci95:
                found.append(
                    {
                        "suite": suite,
                        "shot": int(shot),
                        "method": row.method,
                        "ours": ours,
                        "theirs": row.score,
                        "ci95": row.ci95,
                    }
                )
    return found


def stratified_interval(
    strata: Sequence[np.ndarray], weights: Sequence[float] | None = None, confidence: float = 0.95
) -> tuple[float, float]:
    """Mean over strata that are all there are (suites, numbers of shots), and half width of its confidence interval.

    What differs within a stratum is chance: its episodes and, where there are several, the trainings. The variances of
    their means are added; what belongs to both counts twice, which errs on the safe side. Student's t with the degrees
    of freedom of Welch and Satterthwaite. Of one stratum and one training it is `mean_interval`.

    Args:
        strata: the values of each, [n] or, of S trainings on the same n episodes, [S, n]; S is the same for all.
        weights: of the strata, adding up to 1; all alike where left out.

    Returns:
        mean, half width. A stratum of one episode leaves the width unknown: NaN.
    """
    share = np.full(len(strata), 1 / len(strata)) if weights is None else np.asarray(weights, dtype=np.float64)
    values = [np.atleast_2d(np.asarray(stratum, dtype=np.float64)) for stratum in strata]
    trainings = share @ np.stack([x.mean(1) for x in values])  # [S]
    mean = float(trainings.mean())
    sizes = [x.shape[1] for x in values]
    if min(sizes) < 2:
        return mean, math.nan
    variances = [w**2 * x.mean(0).var(ddof=1) / x.shape[1] for w, x in zip(share, values, strict=True)]
    if len(trainings) > 1:
        variances.append(trainings.var(ddof=1) / len(trainings))
        sizes.append(len(trainings))
    total = math.fsum(variances)
    if total == 0:
        return mean, 0.0
    freedom = total**2 / math.fsum(v**2 / (n - 1) for v, n in zip(variances, sizes, strict=True))
    return mean, float(student_t.ppf(0.5 + confidence / 2, freedom) * math.sqrt(total))


def paired_interval(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    weights: Sequence[float] | None = None,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """Mean of ours − theirs on the same episodes, and half width of its interval: see `stratified_interval`.

    Raises:
        ValueError: they are not of the same strata, trainings and episodes.
    """
    if [np.shape(a) for a in ours] != [np.shape(b) for b in theirs]:
        raise ValueError("values that are not of the same trainings and episodes cannot be paired")
    return stratified_interval(
        [np.asarray(a) - np.asarray(b) for a, b in zip(ours, theirs, strict=True)], weights, confidence
    )


Cells = Mapping[str, Mapping[str, Mapping[int, np.ndarray]]]
"""dataset → suite → shot → values of its episodes [..., n]; what leads is of as many experiments at once."""


@dataclass(frozen=True)
class Estimate:
    """A mean, and what is known of its chance."""

    mean: Any
    variance: Any
    """of the mean"""
    freedom: Any
    """degrees of freedom of the variance"""

    def interval(self, level: Any) -> tuple[Any, Any]:
        """Lower and upper end, by Student's t; the truth lies beyond each with probability ``level`` at most."""
        half = student_quantile(level, self.freedom) * np.sqrt(self.variance)
        return self.mean - half, self.mean + half


def student_quantile(level: Any, freedom: Any) -> Any:
    """What Student's t exceeds with probability ``level``. (`scipy.stats.t.isf` takes a hundred times as long.)"""
    return -stdtrit(freedom, level)


def estimate(values: Mapping[Any, Any] | np.ndarray, chance: Sequence[bool] = ()) -> Estimate:
    """The mean of a tree, each of whose branches weighs as much as its sisters, and the variance of that mean.

    At each level the branches are a sample (other datasets might have been asked) or all there are (numbers of shots);
    the leaves, episodes, are always a sample. Where the k branches are a sample, the variance is that of their means
    over k, with k − 1 degrees of freedom: it holds all that is chance further down, whatever its structure. Where they
    are all there are, their own variances are added, with the degrees of freedom of Welch and Satterthwaite.

    Of a mean this is the variance that the hierarchical bootstrap draws its way to (Davison and Hinkley 1997,
    "Bootstrap Methods and their Application", 3.8: resample the highest level alone, as the lower ones are in it), with
    k − 1 in the place of k. Its percentiles are those of many branches and too narrow for few: over 5 datasets it errs
    three times as often as it says, over 2 eight times. Student's t on the branches' means keeps its level however few
    they are and however different their variances, up to 5% two-sided (Ibragimov and Müller 2010, "t-statistic based
    correlation and heterogeneity robust inference", J. Business & Economic Statistics 28(4), after Bakirov and Székely
    2005). The wild cluster bootstrap (Cameron, Gelbach and Miller 2008; Webb 2023) keeps it too, but finds nothing over
    2 or 3. benchmarks/gate.py measures the four. No method sees what the branches at hand do not show: a loss on the
    kind of dataset that none of them is.

    Args:
        values: the tree; at the leaves the values [..., n].
        chance: for each level from the top on whether its branches are a sample; levels left out are all there are.

    Returns:
        mean, variance and freedom [...]. A leaf of one value has a variance of unknown size: NaN.
    """
    if not isinstance(values, Mapping):
        n = values.shape[-1]
        mean = values.sum(-1) / n
        freedom = np.full(mean.shape, n - 1.0)
        if n == 1:
            return Estimate(mean, np.full(mean.shape, math.nan), freedom)
        return Estimate(mean, ((values - mean[..., None]) ** 2).sum(-1) / (n - 1) / n, freedom)
    parts = [estimate(part, chance[1:]) for part in values.values()]
    k = len(parts)
    means = np.array([part.mean for part in parts])
    variances = np.array([part.variance for part in parts]) / k**2
    freedoms = np.array([part.freedom for part in parts])
    mean, below = means.sum(0) / k, variances.sum(0)
    if chance and chance[0] and k > 1:
        # Branches may agree by luck; what is known to be chance within them is there all the same.
        variance = np.fmax(((means - mean) ** 2).sum(0) / (k - 1) / k, below)
        return Estimate(mean, variance, np.full(mean.shape, k - 1.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = below**2 / (variances**2 / freedoms).sum(0)
    return Estimate(mean, below, np.where(below > 0, freedom, freedoms.sum(0)))
