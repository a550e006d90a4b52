"""How far the probabilities that it gives its answers are to be taken at their word, a modality."""

from quickstudy.data.dataset import MODALITIES
from quickstudy.kinds.classify.shown.failures import truth
from quickstudy.report.calibration import Calibration, calibration
from quickstudy.report.evidence import KindEvidence


def calibrations(evidence: KindEvidence) -> list[Calibration]:
    """Return one for each modality: of an answer its probability, and whether it was right; of no answers, none."""
    found = []
    for modality in MODALITIES:
        own = evidence.answered[evidence.answered["modality"] == modality]
        if len(own):
            right = [a == truth(way, len(a)) for way, a in zip(own["way"], own["answers"], strict=True)]
            found.append(calibration(modality, [*own["confidences"]], right, own["nll"].to_numpy()))
    return found
