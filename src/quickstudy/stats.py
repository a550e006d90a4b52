"""Statistics of episodes. Pure: numbers in, numbers out."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student_t


def mean_interval(values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half width of its confidence interval, by Student's t over episodes.

    A single value has an interval of unknown width: NaN.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return float(x.mean()), math.nan
    half = student_t.ppf(0.5 + confidence / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean()), float(half)
