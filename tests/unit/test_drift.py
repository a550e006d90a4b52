"""The drift test keeps its level, finds what is there, and says how large it is."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import binom

from quickstudy.config import Drift
from quickstudy.stats.two_sample import EXAMPLE, Sample, gaussian_kernel, holm, measure, mmd_test, witness_auc

POLICY = Drift(significance=0.05, auc=0.75, examples=1000, fewest=8, permutations=99)
TRIALS = 500
D = 4


def clustered(
    random: np.random.Generator, units: int, each: int, spread: float = 1.0, shift: float = 0.0, prefix: str = "c"
) -> Sample:
    """Examples of so many classes that differ among themselves by ``spread``, in a part of the world that is moved."""
    centres = random.normal(0, spread, (units, D)) + shift
    vectors = (centres[:, None] + random.normal(0, 1, (units, each, D))).reshape(-1, D)
    return Sample(vectors, {"class": [f"{prefix}{unit}" for unit in range(units) for _ in range(each)]})


def p_value(reference: Sample, new: Sample, units: str, random: np.random.Generator) -> float:
    kernel = gaussian_kernel(np.concatenate([reference.vectors, new.vectors]))
    is_new = np.arange(len(kernel)) >= len(reference)
    if units == EXAMPLE:
        numbers = np.arange(len(kernel))
    else:
        numbers = np.unique([*reference.units[units], *new.units[units]], return_inverse=True)[1]
    return mmd_test(kernel, numbers, is_new, 99, random)[1]


def rates(draw: Callable[[np.random.Generator], float], trials: int = TRIALS) -> np.ndarray:
    """How many of the p-values are at most 5, 20 and 50%."""
    p = np.array([draw(np.random.default_rng((7, trial))) for trial in range(trials)])
    return np.array([(p <= level).sum() for level in (0.05, 0.2, 0.5)])


def by_chance(level: float, trials: int = TRIALS) -> tuple[int, int]:
    """As many rejections as a test of that level has in 999 of 1,000 such simulations."""
    low, high = binom.interval(0.999, trials, level)
    return int(low), int(high)


def test_p_is_uniform_where_nothing_drifts() -> None:
    def draw(random: np.random.Generator) -> float:
        return p_value(clustered(random, 25, 1), clustered(random, 15, 1, prefix="n"), EXAMPLE, random)

    for found, level in zip(rates(draw), (0.05, 0.2, 0.5), strict=True):
        low, high = by_chance(level)
        assert low <= found <= high, (level, found)


def test_whole_units_keep_the_level_where_single_examples_do_not() -> None:
    def draw(units: str) -> Callable[[np.random.Generator], float]:
        return lambda random: p_value(clustered(random, 12, 5), clustered(random, 5, 5, prefix="n"), units, random)

    low, high = by_chance(0.05)
    assert low <= rates(draw("class"))[0] <= high
    assert rates(draw(EXAMPLE), 100)[0] > 50  # new classes are always others


def test_examples_of_known_classes_are_exchanged_within_them() -> None:
    def draw(shift: float) -> Callable[[np.random.Generator], float]:
        def one(random: np.random.Generator) -> float:
            both = clustered(random, 6, 9, spread=4.0)
            later = np.arange(len(both)) % 9 >= 6
            new = Sample(
                both.vectors[later] + shift, {"class": [both.units["class"][i] for i in np.flatnonzero(later)]}
            )
            old = Sample(both.vectors[~later], {"class": [both.units["class"][i] for i in np.flatnonzero(~later)]})
            return p_value(old, new, "class", random)

        return one

    low, high = by_chance(0.05)
    assert low <= rates(draw(0.0))[0] <= high
    assert rates(draw(1.0), 50)[0] >= 48  # a shift far smaller than classes differ


def test_units_that_are_measured_less_exactly_are_no_drift() -> None:
    """Five new classes of 2 examples against 25 of 10: their means vary more by that alone."""

    def draw(random: np.random.Generator) -> float:
        return measure(
            clustered(random, 25, 10, spread=0.2), clustered(random, 5, 2, spread=0.2, prefix="n"), POLICY, 0
        ).p

    assert rates(draw, 200)[0] <= by_chance(0.05, 200)[1]
    raw = rates(
        lambda random: p_value(
            clustered(random, 25, 10, spread=0.2), clustered(random, 5, 2, spread=0.2, prefix="n"), "class", random
        ),
        100,
    )
    assert raw[0] > 15  # what cutting them to the same size is for


def crossed(random: np.random.Generator, speakers: range, words: range, each: int = 2) -> Sample:
    """Words and speakers that each add their own to a recording; the same number is the same speaker, or word."""
    vectors, voices, classes = [], [], []
    for speaker in speakers:
        for word in words:
            voice = np.random.default_rng((1, speaker)).normal(0, 1, D)
            said = np.random.default_rng((2, word)).normal(0, 1, D)
            vectors.append(voice + said + random.normal(0, 0.5, (each, D)))
            voices += [f"s{speaker}"] * each
            classes += [f"w{word}"] * each
    return Sample(np.concatenate(vectors), {"domain": voices, "class": classes})


def test_new_words_of_known_speakers_are_no_drift_and_new_speakers_of_known_words_neither() -> None:
    found = []
    for trial in range(40):
        random = np.random.default_rng(trial)
        s, w = 1000 * trial, 1000 * trial + 500
        reference = crossed(random, range(s, s + 8), range(w, w + 8))
        words = measure(reference, crossed(random, range(s, s + 8), range(w + 100, w + 104)), POLICY, 0)
        voices = measure(reference, crossed(random, range(s + 100, s + 104), range(w, w + 8)), POLICY, 0)
        assert {test.kind: test.shared for test in words.tests} == {"domain": 8, "class": 0}
        assert min(test.p for test in words.tests) <= 0.05  # speakers alone would say drift
        assert (words.deciding.kind, voices.deciding.kind) == ("class", "domain")
        found += [words.p <= 0.05, voices.p <= 0.05]
    assert sum(found) <= binom.ppf(0.999, len(found), 0.05)


def test_a_shift_is_found() -> None:
    for trial in range(30):
        random = np.random.default_rng(trial)
        found = measure(clustered(random, 20, 5), clustered(random, 8, 5, shift=2.0, prefix="n"), POLICY, 0)
        assert found.p <= 0.05 and found.auc > 0.75 and found.far > 0.05
        (test,) = found.tests
        assert (test.kind, test.units, test.reference_units, test.shared) == ("class", 8, 20, 0)
        assert 0 < test.mmd <= math.sqrt(2)


def test_a_small_shift_of_many_examples_is_beyond_chance_and_small() -> None:
    random = np.random.default_rng(0)
    old, new = random.normal(0, 1, (900, D)), random.normal(0.25, 1, (900, D))
    found = measure(Sample(old, {}), Sample(new, {}), POLICY, 0)
    assert found.p <= 0.05 and 0.5 < found.auc < POLICY.auc
    assert found.deciding.kind == EXAMPLE


def test_mmd_is_the_distance_of_the_mean_embeddings() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(0, 1, (6, D)), random.normal(1, 1, (5, D))  # an odd number of pairs
    pooled = np.concatenate([x, y])
    distances = pdist(pooled)
    expected = np.exp(-(squareform(distances) ** 2) / (2 * np.median(distances) ** 2))
    kernel = gaussian_kernel(pooled)
    assert np.allclose(kernel, expected)
    square, p = mmd_test(kernel, np.arange(11), np.arange(11) >= 6, 19, random)
    assert square == pytest.approx(
        expected[:6, :6].mean() + expected[6:, 6:].mean() - 2 * expected[:6, 6:].mean(), abs=1e-12
    )
    assert p in [k / 20 for k in range(1, 21)]


def test_an_arrangement_that_comes_again_is_as_large() -> None:
    """Of four units there are six arrangements, and each has one of the same MMD with the sides changed: p ≥ 1/3."""
    vectors = np.array([[0.0], [0.1], [9.0], [9.1]]).repeat(3, 0) + np.arange(12)[:, None] / 7
    p = mmd_test(gaussian_kernel(vectors), np.arange(12) // 3, np.arange(12) >= 6, 2000, np.random.default_rng(0))[1]
    assert p == pytest.approx(1 / 3, abs=0.05)


def test_auc_judges_an_example_without_its_unit() -> None:
    random = np.random.default_rng(0)
    old, new = clustered(random, 6, 6, spread=5.0), clustered(random, 6, 6, spread=5.0, prefix="n")
    kernel = gaussian_kernel(np.concatenate([old.vectors, new.vectors]))
    is_new = np.arange(len(kernel)) >= len(old)
    classes = np.arange(len(kernel)) // 6
    assert witness_auc(kernel, np.arange(len(kernel))[None], is_new) > 0.75  # it knows the class
    assert witness_auc(kernel, classes[None], is_new) < 0.6
    apart = gaussian_kernel(np.concatenate([old.vectors, new.vectors + 100]))
    assert witness_auc(apart, classes[None], is_new) == 1.0
    alone = np.where(is_new, 999, classes)  # one new unit: by its other examples
    assert witness_auc(apart, alone[None], is_new) == 1.0


def test_what_is_unlike_all_is_named() -> None:
    random = np.random.default_rng(0)
    old, new = clustered(random, 20, 6), clustered(random, 6, 6, prefix="n")
    odd = new.vectors.copy()
    odd[[4, 17]] += 20
    found = measure(old, Sample(odd, new.units), POLICY, 0)
    assert set(np.argsort(-found.novelty)[:2]) == {4, 17} and (found.novelty[[4, 17]] > 3).all()
    assert len(found.novelty) == len(new) and found.far == pytest.approx((found.novelty > 1).mean())
    fars = [
        measure(clustered(r, 20, 6), clustered(r, 6, 6, prefix="n"), POLICY, 0).far
        for r in map(np.random.default_rng, range(100))
    ]
    assert np.mean(fars) == pytest.approx(0.05, abs=0.03)  # what chance has


def test_units_too_few_to_tell_are_passed_over() -> None:
    random = np.random.default_rng(0)
    old, new = clustered(random, 12, 6), clustered(random, 6, 6, prefix="n")
    old = Sample(old.vectors, {"group": [f"g{i // 18}" for i in range(72)], **old.units})
    one = measure(old, Sample(new.vectors, {"group": ["h"] * 36, **new.units}), POLICY, 0)
    assert [test.kind for test in one.tests] == ["class"] and one.skipped == {"group": "1 against 4 are too few"}
    two = measure(old, Sample(new.vectors, {"group": ["h", "i"] * 18, **new.units}), POLICY, 0)
    assert two.skipped == {"group": "2 against 4 are too few"}  # 15 arrangements
    looser = measure(old, Sample(new.vectors, {"group": ["h", "i"] * 18, **new.units}), POLICY, 0, least=0.1)
    assert [test.kind for test in looser.tests] == ["group", "class"] and looser.skipped == {}
    stricter = measure(old, Sample(new.vectors, {"group": ["h", "i"] * 18, **new.units}), POLICY, 0, least=1e-9)
    assert [test.kind for test in stricter.tests] == [EXAMPLE]


def test_the_same_arguments_give_the_same_bits() -> None:
    random = np.random.default_rng(0)
    old, new = clustered(random, 20, 6), clustered(random, 6, 8, prefix="n")
    one, again, other = (measure(old, new, POLICY, seed) for seed in (3, 3, 4))
    assert (one.tests, one.auc, one.far) == (again.tests, again.auc, again.far)
    assert np.array_equal(one.novelty, again.novelty)
    assert one.p != other.p


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.2], [0.2]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.02, 0.02, 0.9], [0.06, 0.06, 0.9]),
        ([], []),
    ],
)
def test_holm(p: list[float], adjusted: list[float]) -> None:
    assert holm(p) == pytest.approx(adjusted)


def test_what_cannot_be_compared() -> None:
    random = np.random.default_rng(0)
    good = clustered(random, 5, 4)
    few = Sample(good.vectors[:7], {"class": good.units["class"][:7]})
    with pytest.raises(ValueError, match="7 new examples, at least 8"):
        measure(good, few, POLICY, 0)
    with pytest.raises(ValueError, match="7 reference examples"):
        measure(few, good, POLICY, 0)
    bad = good.vectors.copy()
    bad[3, 1] = math.nan
    with pytest.raises(ValueError, match="new examples hold values that are no finite numbers"):
        measure(good, Sample(bad, good.units), POLICY, 0)
    with pytest.raises(ValueError, match="3 and 4 dimensions"):
        measure(good, Sample(good.vectors[:, :3], good.units), POLICY, 0)


def test_examples_that_are_all_alike_are_no_drift() -> None:
    same = Sample(np.ones((20, D)), {"class": [f"c{i // 4}" for i in range(20)]})
    found = measure(same, same, POLICY, 0)
    assert found.p == 1.0 and found.auc == 0.5 and found.far == 0.0
