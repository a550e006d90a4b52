"""How well classify was answered: accuracy; beside it the likelihood of the true classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from quickstudy.kinds.classify.baselines import CLASSIFIERS, score_episodes
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
    features: Any, episodes: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
) -> dict[str, list[tuple[float, float]]]:
    """Return score and milliseconds of fitting of each of ``BASELINES`` on each episode.

    Args:
        features: [n, F]
        episodes: of each the rows of its support [S] and of its query [Q], and the targets of both.
    """
    return score_episodes(features, episodes)
