"""Looks at growing evidence that share one error rate."""

import math
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

if TYPE_CHECKING:
    pass


@lru_cache
def look_levels(times: tuple[float, ...], alpha: float) -> tuple[float, ...]:
    """One-sided levels to test at, one for each look at growing evidence; all looks together err with ``alpha``.

    What may be spent up to time t is 2 − 2Φ(z(1 − α/2) / √t): little early, almost all at the end, as O'Brien and
    Fleming's bounds do (Lan and DeMets 1983, "Discrete sequential boundaries for clinical trials", Biometrika 70(3)).
    Looks need not be planned: a level depends on those before it alone. The bounds are found by integrating over the
    paths that have crossed none so far (Armitage, McPherson and Rowe 1969).

    They are those of independent increments, where all variance falls with the episodes. What of it stays (datasets
    that differ) ties the looks closer together, and the chance that any of them crosses only falls (Slepian 1962).
    A level is for Student's t as for the normal distribution (Jennison and Turnbull 2000, "Group Sequential Methods",
    3.8).

    Args:
        times: growing shares of the planned evidence, in (0, 1]. alpha: one-sided.

    Returns:
        levels; a single look at time 1 has ``alpha``.
    """
    least, reach, points = 1e-15, 9.0, 1001  # a look spends something, a sum lies within so many standard deviations
    spent = np.maximum(2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(times)), least)
    levels = [float(spent[0])]
    # The sum of the evidence at time t is normal with variance t: its values below the bound, their probabilities.
    sums = np.linspace(-reach * math.sqrt(times[0]), norm.isf(levels[0]) * math.sqrt(times[0]), points)
    mass = norm.pdf(sums / math.sqrt(times[0])) / math.sqrt(times[0]) * _simpson(sums)
    for (before, now), (old, new) in zip(pairwise(times), pairwise(spent), strict=True):
        step = math.sqrt(now - before)
        allowed = max(new - old, least)
        bound = brentq(_beyond, -reach, reach, args=(sums, mass, step, allowed), xtol=1e-12)
        levels.append(float(norm.sf(bound / math.sqrt(now))))
        grown = np.linspace(-reach * math.sqrt(now), bound, points)
        mass = (norm.pdf((grown[:, None] - sums) / step) / step @ mass) * _simpson(grown)
        sums = grown
    return tuple(levels)


def _beyond(bound: float, sums: np.ndarray, mass: np.ndarray, step: float, allowed: float) -> float:
    """Probability that a sum is beyond the bound after a step, over what is allowed."""
    return float(mass @ norm.sf((bound - sums) / step)) - allowed


def _simpson(points: np.ndarray) -> np.ndarray:
    """Weights of Simpson's rule over an odd number of even points."""
    weights = np.where(np.arange(len(points)) % 2, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    return weights * (points[1] - points[0]) / 3
