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
