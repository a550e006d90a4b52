"""Intervals, and where a baseline is better."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import sem, t, ttest_ind, ttest_rel

from quickstudy.stats import OURS, beaten_by, mean_interval, paired_interval, stratified_interval


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


# Strata, trainings, pairs


def ends(mean_and_half: tuple[float, float]) -> tuple[float, float]:
    mean, half = mean_and_half
    return mean - half, mean + half


def test_one_stratum_is_students_interval_and_a_pair_is_the_paired_t_test() -> None:
    random = np.random.default_rng(1)
    x = random.normal(0.7, 0.2, 50)
    y = x + random.normal(0.02, 0.05, 50)
    assert stratified_interval([x]) == pytest.approx(mean_interval(x), abs=1e-14)
    assert ends(paired_interval([y], [x])) == pytest.approx(ttest_rel(y, x).confidence_interval(0.95), abs=1e-12)
    assert ends(paired_interval([y], [x], confidence=0.8)) == pytest.approx(
        ttest_rel(y, x).confidence_interval(0.8), abs=1e-12
    )


def test_two_strata_are_those_of_welch() -> None:
    random = np.random.default_rng(2)
    x, y = random.normal(0.7, 0.3, 9), random.normal(0.4, 0.02, 31)
    # Welch's interval of a difference is that of the two with the weights 1 and −1
    welch = ttest_ind(x, y, equal_var=False).confidence_interval(0.95)
    assert ends(stratified_interval([x, y], [1, -1])) == pytest.approx(welch, abs=1e-12)


def test_a_stratum_weighs_what_it_is_given_however_long_it_is() -> None:
    strata = [np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), np.array([1.0, 1.0])]
    assert stratified_interval(strata) == (0.5, 0.0)  # what differs between strata is no chance
    assert stratified_interval(strata, [0.75, 0.25]) == (0.25, 0.0)


def test_it_holds_the_true_mean_over_episodes_and_trainings() -> None:
    random = np.random.default_rng(3)
    held = {1: [], 4: []}
    for trainings in held:
        for _ in range(1500):
            luck = random.normal(0, 0.05, (trainings, 1))
            easy, hard = random.normal(0.9, 0.1, 40), random.normal(0.3, 0.3, 40)
            low, high = ends(stratified_interval([easy + luck, hard + luck]))
            held[trainings].append(low <= 0.6 <= high)
    # One training says nothing about the luck of trainings; four say enough to be right.
    assert np.mean(held[1]) < 0.8 and 0.93 <= np.mean(held[4]) <= 0.99


def test_one_episode_has_no_interval_and_what_differs_cannot_be_paired() -> None:
    mean, half = stratified_interval([np.array([0.5]), np.array([0.5, 0.7])])
    assert mean == pytest.approx(0.55) and math.isnan(half)
    same = np.array([[0.25, 0.5, 1.0]])
    assert paired_interval([same + 0.125], [same]) == (0.125, 0.0)
    for other in (np.zeros((1, 2)), np.zeros((2, 3)), np.zeros(3)):
        with pytest.raises(ValueError, match="cannot be paired"):
            paired_interval([same], [other])
