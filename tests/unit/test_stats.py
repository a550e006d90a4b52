"""Intervals, and where a baseline is better."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, sem, t, ttest_1samp, ttest_ind, ttest_rel

from quickstudy.stats.intervals import (
    OURS,
    beaten_by,
    estimate,
    mean_interval,
    paired_interval,
    share_interval,
    stratified_interval,
)
from quickstudy.stats.sequential import look_levels


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


@pytest.mark.parametrize(("hits", "count"), [(0, 3), (1, 2), (7, 7), (613, 1000)])
def test_of_counts_it_is_the_same(hits: int, count: int) -> None:
    assert share_interval(hits, count) == pytest.approx(mean_interval([1.0] * hits + [0.0] * (count - hits)), abs=1e-12)
    assert share_interval(1, 1)[0] == 1.0 and math.isnan(share_interval(1, 1)[1])


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
    table = pd.DataFrame(rows, columns=["suite", "shot", "method", "score", "ci95"])
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


# Trees of episodes


def tree(random: np.random.Generator, dataset: float, suite: float, n: int = 30, lead: tuple[int, ...] = ()) -> dict:
    """Datasets of 1, 2 and 3 suites, 2 numbers of shots, n episodes; true means that differ so much."""
    cells: dict = {}
    for d in range(3):
        of_dataset = random.normal(0, dataset, lead)
        for s in range(d + 1):
            mean = (of_dataset + random.normal(0, suite, lead))[..., None]
            cells.setdefault(d, {})[s] = {shot: mean + random.normal(0, 0.1, (*lead, n)) for shot in (1, 5)}
    return cells


def test_a_tree_of_episodes_alone_is_the_stratified_interval() -> None:
    cells = tree(np.random.default_rng(1), 0.1, 0.1)
    flat, weights = [], []
    for suites in cells.values():
        for shots in suites.values():
            flat += list(shots.values())
            weights += [1 / 3 / len(suites) / 2] * 2
    mean, half = stratified_interval(flat, weights)
    assert estimate(cells).interval(0.025) == pytest.approx((mean - half, mean + half), abs=1e-12)
    assert estimate(flat[0]).interval(0.1) == pytest.approx(t.interval(0.8, 29, flat[0].mean(), sem(flat[0])))


def test_over_datasets_it_is_students_test_of_their_means() -> None:
    cells = tree(np.random.default_rng(2), 0.5, 0.1)
    means = [np.mean([[x.mean() for x in shots.values()] for shots in suites.values()]) for suites in cells.values()]
    assert estimate(cells, (True, True)).interval(0.025) == pytest.approx(
        ttest_1samp(means, 0).confidence_interval(0.95), abs=1e-12
    )
    # within the one dataset its suites are the sample
    suites = [np.mean([x.mean() for x in shots.values()]) for shots in cells[2].values()]
    assert estimate({2: cells[2]}, (True, True)).interval(0.025) == pytest.approx(
        ttest_1samp(suites, 0).confidence_interval(0.95), abs=1e-12
    )


def test_datasets_that_agree_by_luck_leave_the_chance_of_their_episodes() -> None:
    episodes = np.array([0.1, 0.3, 0.2, 0.4])
    cells = {name: {"": {1: episodes}} for name in "abc"}
    found = estimate(cells, (True,))
    assert found.variance == pytest.approx(episodes.var(ddof=1) / 4 / 3) and found.freedom == 2


def test_the_variance_is_that_of_the_bootstrap_which_resamples_the_datasets() -> None:
    cells, random = tree(np.random.default_rng(3), 0.3, 0.1), np.random.default_rng(0)
    means = []
    for _ in range(4000):
        chosen = [cells[d] for d in random.integers(3, size=3)]
        means.append(np.mean([np.mean([[x.mean() for x in s.values()] for s in d.values()]) for d in chosen]))
    # of k datasets the bootstrap finds (k − 1) / k of it
    assert estimate(cells, (True, True)).variance == pytest.approx(np.var(means) * 3 / 2, rel=0.1)


def test_many_trees_at_once_are_one_by_one() -> None:
    cells = tree(np.random.default_rng(4), 0.1, 0.1, lead=(5,))
    for chance in ((), (True, True), (False, True)):
        together = estimate(cells, chance)
        for i in range(5):
            one = {d: {s: {k: x[i] for k, x in c.items()} for s, c in suites.items()} for d, suites in cells.items()}
            alone = estimate(one, chance)
            for name in ("mean", "variance", "freedom"):
                assert getattr(together, name)[i] == pytest.approx(float(getattr(alone, name)), rel=1e-12)


def test_one_value_is_of_unknown_variance() -> None:
    cells = {"a": {"": {1: np.array([0.3])}}, "b": {"": {1: np.array([0.5, 0.6])}}}
    assert math.isnan(estimate(cells).variance)
    assert estimate(cells, (True,)).variance == pytest.approx(0.125**2)  # the datasets' means say what there is


@pytest.mark.parametrize("unequal", [1, 4])
def test_few_datasets_err_no_more_than_they_may(unequal: int) -> None:
    random, pairs = np.random.default_rng(5), 20000
    cells = {}
    for d in range(5):
        true = random.normal(0, 0.006 * (unequal if d == 0 else 1), pairs)[:, None]
        cells[d] = {"": {1: true + random.normal(0, 0.01, (pairs, 50))}}
    wrong = np.mean(estimate(cells, (True,)).interval(0.025)[0] > 0)
    alone = np.mean(estimate(cells).interval(0.025)[0] > 0)
    assert 0.005 < wrong < 0.028 and alone > 0.2  # as if only the episodes were chance


# Looks


def test_the_levels_are_the_published_ones() -> None:
    # Reboussin, DeMets, Kim and Lan 2000, Controlled Clinical Trials 21: two-sided 0.05, five equal steps
    bounds = norm.isf(look_levels((0.2, 0.4, 0.6, 0.8, 1.0), 0.025))
    assert bounds == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)
    assert norm.isf(look_levels((0.5, 1.0), 0.025)) == pytest.approx([2.9626, 1.9686], abs=2e-4)
    assert look_levels((1.0,), 0.025) == pytest.approx((0.025,))
    assert look_levels((0.001, 0.0011, 1.0), 0.025)[-1] == pytest.approx(0.025, rel=1e-6)  # nothing was spent before


@pytest.mark.parametrize("times", [(0.1, 0.5, 0.55, 1.0), (0.3, 0.6)])
def test_all_looks_together_err_as_often_as_they_may(times: tuple[float, ...]) -> None:
    random = np.random.default_rng(6)
    steps = np.sqrt(np.diff([0, *times])) * random.normal(size=(200_000, len(times)))
    z = steps.cumsum(1) / np.sqrt(times)
    bounds = norm.isf(look_levels(times, 0.05))
    spent = 2 * norm.sf(norm.isf(0.025) / np.sqrt(times[-1]))
    assert (z > bounds).any(1).mean() == pytest.approx(spent, abs=0.0015)
    assert spent == pytest.approx(0.05) if times[-1] == 1 else spent < 0.02


@pytest.mark.parametrize("effect", [0.0, 0.006])
def test_looks_over_few_datasets_err_no_more_than_they_may(effect: float) -> None:
    random, pairs, n = np.random.default_rng(7), 10000, 40
    values = [random.normal(0, effect, pairs)[:, None] + random.normal(0, 0.03, (pairs, n)) for _ in range(5)]
    looks = (10, 20, 30, 40)
    wrong, at_every_look = np.zeros(pairs, bool), np.zeros(pairs, bool)
    for n_, level in zip(looks, look_levels(tuple(x / n for x in looks), 0.025), strict=True):
        found = estimate({d: {"": {1: x[:, :n_]}} for d, x in enumerate(values)}, (True,))
        wrong |= found.interval(level)[0] > 0
        at_every_look |= found.interval(0.025)[0] > 0
    assert wrong.mean() < 0.028 and at_every_look.mean() > 1.5 * wrong.mean()
