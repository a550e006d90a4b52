"""Reliability in bins of equally many answers, and the expected calibration error."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from quickstudy.report.calibration import calibration_error, reliability


def test_bins_hold_equally_many_and_count_right() -> None:
    confidence = np.repeat([0.3, 0.6, 0.8, 0.95], 25)
    hits = np.concatenate([np.arange(25) < n for n in (5, 15, 20, 25)])
    bins = reliability(confidence, hits, np.arange(100), bins=4)
    assert bins["count"].tolist() == [25] * 4
    assert bins["probability"].tolist() == pytest.approx([0.3, 0.6, 0.8, 0.95])
    assert bins["share"].tolist() == [0.2, 0.6, 0.8, 1.0]
    assert calibration_error(bins) == pytest.approx((0.1 + 0 + 0 + 0.05) / 4)


def test_answers_of_the_same_confidence_share_a_bin() -> None:
    confidence = np.array([0.5] * 10 + [1.0] * 90)
    bins = reliability(confidence, np.ones(100, dtype=bool), np.arange(100), bins=10)
    assert bins["count"].tolist() == [10, 90] and bins["probability"].tolist() == [0.5, 1.0]
    again = reliability(confidence[::-1], np.ones(100, dtype=bool), np.arange(100), bins=10)
    assert again.equals(bins)


def test_a_calibrated_forecast_has_a_small_error_and_an_overconfident_one_its_excess() -> None:
    random = np.random.default_rng(0)
    confidence = random.uniform(0.2, 1, 40_000)
    right = random.random(40_000) < confidence
    assert calibration_error(reliability(confidence, right, np.arange(40_000))) < 0.015
    sure = np.minimum(confidence + 0.1, 1)
    expected = (sure - confidence).mean()
    assert calibration_error(reliability(sure, right, np.arange(40_000))) == pytest.approx(expected, abs=0.01)


def test_the_interval_counts_episodes_and_not_their_queries() -> None:
    """Queries of an episode that are right or wrong together say no more than one of them."""
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        right = np.repeat(random.random(60) < 0.7, 5)
        row = reliability(np.full(300, 0.7), right, np.repeat(np.arange(60), 5)).iloc[0]
        covered += abs(row["share"] - 0.7) <= row["half"]
    assert 0.91 <= covered / 400 <= 0.98


def test_the_curve_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(2)
    confidence = random.uniform(0.2, 1, 5000)
    hits = random.random(5000) < confidence**2
    bins = reliability(confidence, hits, np.arange(5000), bins=10)
    accuracy, mean = calibration_curve(hits, confidence, n_bins=10, strategy="quantile")
    assert bins["share"].to_numpy() == pytest.approx(accuracy, abs=0.003)  # its edges lie between two answers
    assert bins["probability"].to_numpy() == pytest.approx(mean, abs=0.001)
