"""The yardsticks: scikit-learn's logistic regression and nearest centroid on the same episodes."""

import time
import warnings
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from scipy.sparse import issparse
from sklearn import config_context
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from quickstudy.data.dataset import Dataset

Classifier = Literal["logreg", "centroid"]
CLASSIFIERS: tuple[Classifier, ...] = get_args(Classifier)


def raw_features(dataset: Dataset, arrays: np.ndarray, rows: np.ndarray):
    """What a classifier without an encoder sees: pixels, log-mel frames, or TF-IDF of words and word pairs.

    The vocabulary and the document frequencies come from all the rows given, queries included (without their labels):
    more than a single task would have, so the yardstick is not held back.

    Returns:
        float32 [len(rows), F], sparse for text.
    """
    if dataset.modality == "text":
        return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32).fit_transform(dataset.raw(rows))
    flat = arrays[rows].reshape(len(rows), -1).astype(np.float32)
    return flat / 255 if arrays.dtype == np.uint8 else flat


def span_coordinates(support, query) -> tuple[np.ndarray, np.ndarray]:
    """Support and query seen from the support's mean, in an orthonormal basis of what the support then spans:
    [S, F], [Q, F] → [S, R], [Q, R] with R < S.

    A linear classifier with an L2 penalty and a free intercept, and the differences between distances to centroids,
    depend on nothing else (the representer theorem), so that fitting costs what S needs and not what F would; and
    without the common mean Newton's method takes half the steps.
    """

    support, query = support.astype(np.float64), query.astype(np.float64)  # what is common may be most of it
    gram, cross = (np.asarray(x.todense() if issparse(x) else x) for x in (support @ support.T, query @ support.T))
    cross -= gram.mean(0)
    cross -= cross.mean(1, keepdims=True)
    gram -= gram.mean(0)
    gram -= gram.mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(gram)
    kept = values > max(values[-1], 1e-12) * 1e-10
    kept[-1] = True  # examples that are all alike span nothing: one coordinate of zeros
    root = np.sqrt(values[kept].clip(min=1e-12))
    return vectors[:, kept] * root, cross @ vectors[:, kept] / root


def fit_and_score(
    kind: Classifier, support: np.ndarray, query: np.ndarray, targets: np.ndarray, answers: np.ndarray
) -> tuple[float, float]:
    """Accuracy of a scikit-learn classifier, and the milliseconds that fitting took.

    Both have their default settings, but for the solver of the logistic regression: in so few dimensions Newton's
    method finds the same optimum in a third of the time.
    """
    started = time.perf_counter()
    model = LogisticRegression(solver="newton-cg") if kind == "logreg" else NearestCentroid()
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # one shot has no variance, which only shrinking needs
        warnings.simplefilter("ignore")
        model.fit(support, targets)
    elapsed = (time.perf_counter() - started) * 1000
    return float((model.predict(query) == answers).mean()), elapsed


def score_episodes(
    features, episodes: Sequence[tuple[np.ndarray, np.ndarray]]
) -> dict[Classifier, list[tuple[float, float]]]:
    """Fit and score both classifiers on many episodes.

    Args:
        features: [n, F]
        episodes: of each, the rows of its support [N, K] and its query [N, Q].

    Returns:
        of each classifier and episode, accuracy and milliseconds of fitting.
    """
    results: dict[Classifier, list[tuple[float, float]]] = {kind: [] for kind in CLASSIFIERS}
    # The numbers are ours: checking them again would be a tenth of the time.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for support, query in episodes:
            targets = np.repeat(np.arange(len(support)), support.shape[1])
            answers = np.repeat(np.arange(len(query)), query.shape[1])
            vectors = span_coordinates(features[support.ravel()], features[query.ravel()])
            for kind in CLASSIFIERS:
                results[kind].append(fit_and_score(kind, *vectors, targets, answers))
    return results
