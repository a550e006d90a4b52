"""How far the probabilities of tags are to be taken at their word, a modality."""

from collections.abc import Sequence

import numpy as np

from quickstudy.data.dataset import MODALITIES
from quickstudy.kinds.tag.shown.cells import Cell
from quickstudy.report.calibration import Calibration, calibration


def calibrations(found: Sequence[Cell]) -> list[Calibration]:
    """Return one for each modality: of a query and a tag the probability, and whether the query has the tag."""
    told = []
    for modality in MODALITIES:
        own = [cell for cell in found if cell.modality == modality]
        if own:
            given = [episode.ravel() for cell in own for episode in cell.probability]
            true = [episode.ravel() for cell in own for episode in cell.there]
            told.append(calibration(modality, given, true, np.concatenate([cell.nll for cell in own])))
    return told
