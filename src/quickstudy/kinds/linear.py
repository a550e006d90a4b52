"""The linear baselines that several kinds share: scikit-learn's logistic regression and nearest centroid."""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

CLASSIFIERS: tuple[str, ...] = ("logreg", "centroid")


def fit(name: str, support: np.ndarray, targets: np.ndarray, **settings: Any) -> Any:
    """Fit one of ``CLASSIFIERS``: vectors [S, F], classes [S].

    Both have their default settings, but for the solver of the logistic regression: in so few dimensions Newton's
    method finds the same optimum in a third of the time.

    Args:
        settings: of the logistic regression, beside its solver.
    """
    model = LogisticRegression(solver="newton-cg", **settings) if name == "logreg" else NearestCentroid()
    with warnings.catch_warnings(), np.errstate(all="ignore"):  # one shot has no variance, which only shrinking needs
        warnings.simplefilter("ignore")
        return model.fit(support, targets)


def fit_and_score_each(
    features: Any,
    episodes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
    fit_and_score: Callable[[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[float, float]],
) -> dict[str, list[tuple[float, float]]]:
    """Return what a kind says of each of ``CLASSIFIERS`` on each episode: score and milliseconds of fitting.

    Args:
        features: [n, F]
        episodes: of each the rows of its support [S] and of its query [Q], and the targets of both.
        fit_and_score: name, support [S, R], query [Q, R] and the targets of both → score and milliseconds.
    """
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in CLASSIFIERS}
    # The numbers are ours: checking them again would be a tenth of the time.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        for support, query, targets, answers in episodes:
            vectors = span_coordinates(features[support], features[query])
            for name in CLASSIFIERS:
                results[name].append(fit_and_score(name, *vectors, targets, answers))
    return results


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what some work gives, and its milliseconds."""
    started = time.perf_counter()
    found = work()
    return found, (time.perf_counter() - started) * 1000


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
