"""How well tags were found: micro F1; beside it macro F1, whole sets found, and the likelihood of the true tags."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from quickstudy.kinds.linear import CLASSIFIERS, fit, fit_and_score_each, timed

NAME = "micro F1"
"""What `score` is called."""

BASELINES: tuple[str, ...] = CLASSIFIERS
"""One classifier a tag, against the rest."""

DRAWS = 1000
"""Resamples of the bootstrap."""


def judge(logits: Tensor, targets: Tensor) -> dict[str, list[Any]]:
    """Return what an evaluation keeps of each episode.

    Args:
        logits: [B, Q, N], above 0 where a query has a tag.
        targets: int64 [B, Q, N]

    Returns:
        ``score``, micro F1 over the tags; ``macro_f1``, the mean of each tag's; ``exact``, the share of queries whose
        whole set was found; ``nll``, the mean negative log likelihood of having or not having a tag, in nats;
        ``answers`` uint8 [Q·N], of each query how probable each tag is: `byte_of`.
    """
    given, there = logits > 0, targets > 0
    hits, told, true = (given & there).double(), given.double(), there.double()
    micro = _f1(hits.sum((1, 2)), told.sum((1, 2)), true.sum((1, 2)))
    macro = _f1(hits.sum(1), told.sum(1), true.sum(1)).mean(1)
    nll = F.binary_cross_entropy_with_logits(logits.double(), targets.double(), reduction="none").mean((1, 2))
    return {
        "score": micro.tolist(),
        "macro_f1": macro.tolist(),
        "exact": (given == there).all(2).double().mean(1).tolist(),
        "nll": nll.tolist(),
        "answers": list(byte_of(logits).flatten(1).numpy()),
    }


def byte_of(logits: Tensor) -> Tensor:
    """Return probabilities of logits in 256ths, rounded down, uint8; from one half on a tag was given: `given_of`."""
    byte = (256 * logits.double().sigmoid()).long()
    return byte.clamp(0, 255).where(logits > 0, byte.clamp(0, 127)).to(torch.uint8)


def given_of(byte: np.ndarray) -> np.ndarray:
    """Return bool of `byte_of`: where a tag was given."""
    return byte >= 128


def probability_of(byte: np.ndarray) -> np.ndarray:
    """Return float32 probabilities of `byte_of`: the middle of what is rounded to each."""
    return (byte.astype(np.float32) + 0.5) / 256


def agreement(answers: Sequence[Any], targets: Sequence[Any]) -> tuple[float, float]:
    """Return the micro F1 of sets of tags, and half of its 95% interval by the bootstrap over examples."""
    pairs = [(set(answer), set(target)) for answer, target in zip(answers, targets, strict=True)]
    counts = np.array([(len(answer & target), len(answer), len(target)) for answer, target in pairs], dtype=float)
    drawn = np.random.default_rng(0).integers(0, len(counts), (DRAWS, len(counts)))
    spread = _ratio(counts[drawn].sum(1))
    low, high = np.quantile(spread, (0.025, 0.975))
    return float(_ratio(counts.sum(0))), float(high - low) / 2


def baselines(
    features: Any, episodes: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
) -> dict[str, list[tuple[float, float]]]:
    """Return micro F1 and milliseconds of fitting of each of ``BASELINES`` on each episode.

    Args:
        features: [n, F]
        episodes: of each the rows of its support [S] and of its query [Q], and the tags of both [S, N], [Q, N], 0 or 1.
    """
    return fit_and_score_each(features, episodes, _fit_and_score)


def _fit_and_score(
    name: str, support: np.ndarray, query: np.ndarray, targets: np.ndarray, answers: np.ndarray
) -> tuple[float, float]:
    """Micro F1 of a classifier for each tag, against the rest, and the milliseconds that fitting took."""
    models, elapsed = timed(lambda: [_fit(name, support, targets[:, tag]) for tag in range(targets.shape[1])])
    given = np.stack([np.full(len(query), 1) if one is None else one.predict(query) for one in models], axis=1)
    hits, told, true = (given & answers).sum(), given.sum(), answers.sum()
    return float(_ratio(np.array([hits, told, true], dtype=float))), elapsed


def _fit(name: str, support: np.ndarray, targets: np.ndarray) -> Any:
    """A classifier of one tag; None where every example has it. One that no example has is not asked about."""
    return None if targets.all() else fit(name, support, targets, class_weight="balanced")


def _f1(hits: Tensor, told: Tensor, true: Tensor) -> Tensor:
    """2 · hits / (told + true); 1 where there is nothing to find and nothing was found."""
    return (2 * hits / (told + true).clamp(min=1)).where(told + true > 0, hits.new_ones(()))


def _ratio(counts: np.ndarray) -> np.ndarray:
    """The same of counts [..., 3]: hits, told, true."""
    both = counts[..., 1] + counts[..., 2]
    return np.where(both > 0, 2 * counts[..., 0] / np.maximum(both, 1), 1.0)
