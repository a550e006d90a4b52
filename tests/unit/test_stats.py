"""Intervals, and where a baseline is better."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import sem, t

from quickstudy.stats import OURS, beaten_by, mean_interval


@pytest.mark.parametrize("n", [2, 3, 30, 600])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_the_interval_is_students(n: int, confidence: float) -> None:
    x = np.random.default_rng(n).beta(5, 2, n)
    mean, half = mean_interval(list(x), confidence)
    low, high = t.interval(confidence, n - 1, loc=x.mean(), scale=sem(x))
    assert (mean - half, mean + half) == pytest.approx((low, high), abs=1e-12)


def test_it_holds_the_true_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = [abs(mean - 0.3) <= half for mean, half in (mean_interval(random.normal(0.3, 1, 8)) for _ in range(2000))]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_one_value_has_no_interval_and_equal_values_have_none_to_speak_of() -> None:
    mean, half = mean_interval([0.5])
    assert mean == 0.5 and math.isnan(half)
    assert mean_interval([True, True, True]) == (1.0, 0.0)


def test_beaten_is_below_the_lower_end_of_a_baselines_interval() -> None:
    rows = [
        ("a", 1, OURS, 0.80, 0.05),
        ("a", 1, "logreg_raw", 0.84, 0.05),  # within its interval
        ("a", 1, "scratch", 0.90, 0.05),  # below it
        ("a", 5, "logreg_raw", 0.99, 0.01),
        ("a", 5, OURS, 0.985, 0.20),
        ("b", 1, "logreg_raw", 0.5, 0.0),
        ("b", 1, OURS, 0.5, 0.1),  # equal is not below
        ("b", 5, "scratch", 0.9, math.nan),  # of a single episode: no claim
        ("b", 5, OURS, 0.1, 0.1),
    ]
    table = pd.DataFrame(rows, columns=["suite", "shot", "method", "accuracy", "ci95"])
    assert beaten_by(table) == [
        {"suite": "a", "shot": 1, "method": "scratch", "ours": 0.80, "theirs": 0.90, "ci95": 0.05}
    ]
