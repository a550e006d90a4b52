"""The yardsticks: scikit-learn's logistic regression and nearest centroid on the same episodes."""

import time
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.sparse import issparse
from sklearn import config_context
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from quickstudy.data.dataset import Dataset

Classifier = Literal["logreg", "centroid"]


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
    """Support and query in an orthonormal basis of the support's span: [S, F], [Q, F] → [S, R], [Q, R] with R ≤ S.

    A linear classifier with an L2 penalty, and the differences between distances to centroids, depend on nothing else
    (the representer theorem), so that fitting costs what S needs and not what F would.
    """

    def dense(x):
        return np.asarray(x.todense() if issparse(x) else x, dtype=np.float64)

    values, vectors = np.linalg.eigh(dense(support @ support.T))
    kept = values > max(values[-1], 1e-12) * 1e-10
    root = np.sqrt(values[kept])
    return vectors[:, kept] * root, dense(query @ support.T) @ vectors[:, kept] / root


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


def score_episodes(kind: Classifier, features, episodes: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple]:
    """Fit and score one classifier on many episodes.

    Args:
        features: [n, F]
        episodes: of each, the rows of its support [N, K] and its query [N, Q].

    Returns:
        of each, accuracy and milliseconds of fitting.
    """
    results = []
    # The numbers are ours: checking them again would be a tenth of the time.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for support, query in episodes:
            targets = np.repeat(np.arange(len(support)), support.shape[1])
            answers = np.repeat(np.arange(len(query)), query.shape[1])
            vectors = span_coordinates(features[support.ravel()], features[query.ravel()])
            results.append(fit_and_score(kind, *vectors, targets, answers))
    return results
