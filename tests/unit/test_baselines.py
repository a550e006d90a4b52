"""The yardsticks are scikit-learn's own, and what makes them quick changes no answer."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix, issparse
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from quickstudy.evaluation.features import raw_features
from quickstudy.kinds.classify.score import baselines, fit_and_score
from quickstudy.kinds.linear import span_coordinates


def problem(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Support [S, F], targets [S], query [Q, F] of a few classes."""
    random = np.random.default_rng(7)
    way, shot, width = (4, 5, 30)
    if case == "one shot":
        shot = 1
    if case == "few features":
        width = 3
    targets = np.repeat(np.arange(way), shot)
    centres = random.normal(0, 1, (way, width))
    support = centres[targets] + random.normal(0, 0.7, (way * shot, width))
    query = np.repeat(centres, 25, axis=0) + random.normal(0, 1.0, (way * 25, width))
    if case == "twins":  # the span has fewer dimensions than there are rows
        support[1], support[7] = support[0], support[6]
    if case == "an empty row":
        support[0] = 0
    if case in ("sparse", "float32"):
        support, query = support * (random.random(support.shape) < 0.4), query * (random.random(query.shape) < 0.4)
        support, query = support.astype(np.float32), query.astype(np.float32)
    return support, targets, query


CASES = ["plain", "one shot", "few features", "twins", "an empty row", "sparse", "float32"]


@pytest.mark.parametrize("case", CASES)
def test_the_span_of_the_support_holds_all_that_they_use(case: str) -> None:
    support, targets, query = problem(case)
    given = [csr_matrix(x) if case == "sparse" else x for x in (support, query)]
    s, q = span_coordinates(*given)
    assert s.shape[1] == q.shape[1] <= min(len(support) - 1, support.shape[1])
    seen, asked = support - support.mean(0), query - support.mean(0)
    assert np.allclose(s @ s.T, seen @ seen.T, atol=1e-4) and np.allclose(q @ s.T, asked @ seen.T, atol=1e-4)

    def chances(a, b) -> np.ndarray:
        return LogisticRegression(solver="newton-cg", tol=1e-6).fit(a, targets).predict_proba(b)

    assert np.abs(chances(s, q) - chances(*given)).max() < 1e-4
    if case != "one shot":  # where each class is one point scikit-learn warns
        assert (
            NearestCentroid().fit(s, targets).predict(q) == NearestCentroid().fit(given[0], targets).predict(given[1])
        ).all()


@pytest.mark.parametrize("case", ["plain", "one shot", "sparse"])
def test_scores_are_those_of_plain_scikit_learn(case: str) -> None:
    support, targets, query = problem(case)
    answers = np.repeat(np.arange(4), 25)
    features = np.concatenate([support, query])
    n = len(support)
    episode = (np.arange(n), np.arange(n, n + 100), targets, answers)
    results = baselines(csr_matrix(features) if case == "sparse" else features, [episode])
    for kind, model in (("logreg", LogisticRegression()), ("centroid", NearestCentroid())):
        with np.errstate(all="ignore"):
            expected = (model.fit(support, targets).predict(query) == answers).mean()
        ((accuracy, milliseconds),) = results[kind]  # type: ignore[index]
        assert accuracy == pytest.approx(expected) and 0.4 < accuracy < 1 and milliseconds > 0
        assert fit_and_score(kind, support, query, targets, answers)[0] == accuracy  # type: ignore[arg-type]


def test_examples_that_are_all_alike_are_a_guess_and_no_crash() -> None:
    same = np.ones((14, 6))
    targets, answers = np.repeat([0, 1], 2), np.repeat([0, 1], 5)
    ((accuracy, _),) = baselines(same, [(np.arange(4), np.arange(4, 14), targets, answers)])["logreg"]
    assert accuracy == 0.5


def test_raw_features_are_pixels_frames_and_words(toys) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 1, 4, 4), dtype=np.uint8)
    rows = np.array([5, 2, 9])
    found = raw_features(toys("image"), pixels, rows)
    assert np.allclose(found, pixels[rows].reshape(3, 16) / 255) and found.dtype == np.float32
    frames = np.random.default_rng(0).normal(0, 1, (48, 1, 3, 5)).astype(np.float16)
    assert np.allclose(raw_features(toys("audio"), frames, rows), frames[rows].reshape(3, 15))
    texts = toys("text")
    found = raw_features(texts, np.zeros((48, 384)), np.array([0, 1, 40]))
    assert issparse(found) and found.shape[0] == 3
    likeness = (found @ found.T).toarray()
    assert np.allclose(likeness.diagonal(), 1, atol=1e-6) and likeness[0, 1] > likeness[0, 2]
