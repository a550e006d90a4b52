"""Statistics of episodes. Pure: numbers in, numbers out."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
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


def beaten_by(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Where the model lies below the interval of a baseline: suite, shot, method, ours, theirs, ci95.

    Args:
        table: columns suite, shot, method, accuracy, ci95 (half width); one row for each suite, shot and method.
    """
    found = []
    for (suite, shot), part in table.groupby(["suite", "shot"], sort=False):
        ours = part.loc[part["method"] == OURS, "accuracy"].item()
        for row in part[part["method"] != OURS].itertuples():
            if ours < row.accuracy - row.ci95:
                found.append(
                    {"suite": suite, "shot": int(shot), "method": row.method, "ours": ours,
                     "theirs": row.accuracy, "ci95": row.ci95}
                )  # fmt: skip
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
