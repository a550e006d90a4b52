"""How well classify was answered: accuracy; beside it the likelihood of the true classes, and scikit-learn's logistic
regression and nearest centroid on the same episodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from quickstudy.kinds.linear import CLASSIFIERS, fit, fit_and_score_each, timed
from quickstudy.stats.intervals import mean_interval

NAME = "accuracy"
"""What `score` is called."""

BASELINES: tuple[str, ...] = CLASSIFIERS


def judge(logits: Tensor, targets: Tensor) -> dict[str, list[Any]]:
    """Return what an evaluation keeps of each episode.

    Args:
        logits: [B, Q, N]
        targets: int64 [B, Q]

    Returns:
        ``score``, the accuracy; ``nll``, the mean negative log likelihood of the true classes, in nats; ``answers``
        uint16 [Q], the class that each query was given, and ``confidences`` float32 [Q], its probability to a
        thousandth.
    """
    given = logits.argmax(-1)
    logs = logits.double().log_softmax(-1)
    return {
        "score": (given == targets).double().mean(1).tolist(),
        "nll": (-logs.gather(-1, targets.expand_as(given)[..., None])[..., 0]).mean(1).tolist(),
        "answers": list(given.numpy().astype(np.uint16)),
        "confidences": list(logs.amax(-1).exp().numpy().round(3).astype(np.float32)),
    }


def agreement(answers: Sequence[Any], targets: Sequence[Any]) -> tuple[float, float]:
    """Return the share of answers that are the target, and half of its 95% interval."""
    return mean_interval([answer == target for answer, target in zip(answers, targets, strict=True)])


def baselines(
    features: Any, episodes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
) -> dict[str, list[tuple[float, float]]]:
    """Fit and score both classifiers on many episodes.

    Args:
        features: [n, F]
        episodes: of each, the rows of its support [S] and its query [Q], and the classes of both.

    Returns:
        of each classifier and episode, accuracy and milliseconds of fitting.
    """
    return fit_and_score_each(features, episodes, fit_and_score)


def fit_and_score(
    name: str, support: np.ndarray, query: np.ndarray, targets: np.ndarray, answers: np.ndarray
) -> tuple[float, float]:
    """Return the accuracy of a classifier, and the milliseconds that fitting took."""
    model, elapsed = timed(lambda: fit(name, support, targets))
    return float((model.predict(query) == answers).mean()), elapsed
