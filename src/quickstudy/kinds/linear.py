"""What the linear baselines of several kinds share."""

import numpy as np
from scipy.sparse import issparse


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
