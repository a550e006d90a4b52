"""Episodes to look at: a typical one with mistakes and the worst one, whatever the kind of task."""

from typing import Literal, NamedTuple

import pandas as pd

from quickstudy.data.dataset import MODALITIES
from quickstudy.report.evidence import KindEvidence


class Extreme(NamedTuple):
    """An episode to look at."""

    why: Literal["typical", "worst"]
    row: pd.Series
    """of `KindEvidence.answered`"""


def typical_and_worst(evidence: KindEvidence) -> list[list[Extreme]]:
    """Return, for each modality that made mistakes, of its weakest suite at the fewest shots: the episode whose score
    is nearest to the median of those below 1, and the worst; of equals the first."""
    found = []
    for modality in MODALITIES:
        own = evidence.answered[evidence.answered["modality"] == modality]
        own = own[own["shot"] == own["shot"].min()]
        if len(own) == 0 or own["score"].min() == 1:
            continue
        suite = own.groupby("suite", sort=False)["score"].mean().idxmin()
        own = own[(own["suite"] == suite) & (own["score"] < 1)].sort_values("episode", ignore_index=True)
        typical = (own["score"] - own["score"].median()).abs().idxmin()
        worst = own["score"].idxmin()
        chosen = [Extreme("worst", own.loc[worst])]
        if typical != worst:
            chosen.insert(0, Extreme("typical", own.loc[typical]))
        found.append(chosen)
    return found
