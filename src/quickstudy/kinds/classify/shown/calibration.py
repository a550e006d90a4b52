"""Are its probabilities to be taken at their word? Reliability and expected calibration error, a modality."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from quickstudy.data.dataset import MODALITIES, Modality
from quickstudy.kinds.classify.shown.failures import truth
from quickstudy.report.evidence import KindEvidence
from quickstudy.stats.intervals import mean_interval

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Of the answers of a modality."""

    modality: Modality
    bins: pd.DataFrame
    """by growing confidence: queries, confidence (mean), accuracy, half (width of its 95% interval)"""
    error: float
    """expected calibration error"""
    confidence: float
    accuracy: float
    nll: float
    """mean negative log likelihood of the true classes, in nats"""
    nll_half: float


def calibrations(evidence: KindEvidence) -> list[Calibration]:
    """Return one for each modality; of no answers, none."""
    found = []
    for modality in MODALITIES:
        own = evidence.answered[evidence.answered["modality"] == modality]
        if len(own) == 0:
            continue
        right = [a == truth(way, len(a)) for way, a in zip(own["way"], own["answers"], strict=True)]
        episode = np.repeat(np.arange(len(own)), [len(one) for one in right])
        confidence, hits = np.concatenate([*own["confidences"]]), np.concatenate(right)
        bins = reliability(confidence, hits, episode)
        error = calibration_error(bins)
        likelihood = mean_interval(own["nll"].to_numpy())
        found.append(Calibration(modality, bins, error, float(confidence.mean()), float(hits.mean()), *likelihood))
    return found


def reliability(confidence: np.ndarray, hits: np.ndarray, episode: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Return accuracy by confidence, in bins of equally many queries (Nguyen and O'Connor 2015, "Posterior calibration
    and exploratory analysis for natural language processing models", EMNLP, https://arxiv.org/abs/1508.05154).

    Queries of the same confidence are in the same bin, so that there may be fewer bins, of unlike sizes. The queries
    of an episode share its support set: the variance of a bin's accuracy is that of a ratio of totals over episodes.
    (`sklearn.calibration.calibration_curve` has bins like these, and neither their sizes nor their intervals.)

    Args:
        confidence: [n] probability of the class answered. hits: bool [n], whether it was right.
        episode: [n] number of the episode that each belongs to.

    Returns:
        columns queries, confidence (mean), accuracy, half (width of its 95% interval), by growing confidence.
    """
    order = np.argsort(confidence, kind="stable")
    ordered = confidence[order]
    cuts = np.arange(1, bins) * len(ordered) // bins
    starts = np.unique([0, *np.searchsorted(ordered, ordered[cuts])]) if len(ordered) else np.array([], dtype=np.int64)
    rows = []
    for part in np.split(order, starts[1:]):
        accuracy = hits[part].mean()
        _, owner = np.unique(episode[part], return_inverse=True)
        apart = np.bincount(owner, weights=hits[part] - accuracy)
        half = 1.96 * np.sqrt((apart**2).sum()) / len(part)
        rows.append((len(part), confidence[part].mean(dtype=np.float64), accuracy, half))
    return pd.DataFrame(rows, columns=["queries", "confidence", "accuracy", "half"])


def calibration_error(bins: pd.DataFrame) -> float:
    """Return the mean distance between confidence and accuracy over the bins, each weighed by its queries: the expected
    calibration error (Guo et al. 2017, "On calibration of modern neural networks", ICML,
    https://arxiv.org/abs/1706.04599)."""
    return float(np.average((bins["confidence"] - bins["accuracy"]).abs(), weights=bins["queries"]))
