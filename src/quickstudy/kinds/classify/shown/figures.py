"""The figures of classification: how far its probabilities can be trusted, and episodes to look at."""

from matplotlib.figure import Figure

from quickstudy.kinds.classify.shown.calibration import calibrations
from quickstudy.kinds.classify.shown.episodes import draw_episodes
from quickstudy.kinds.classify.shown.failures import episodes_to_look_at
from quickstudy.kinds.pictures import episode_figures
from quickstudy.report.calibration import diagrams
from quickstudy.report.evidence import KindEvidence


def figures(evidence: KindEvidence, narrow: bool) -> dict[str, Figure]:
    """Draw the figures, by name; none where the evaluation did not keep its answers."""
    drawn = {}
    if found := calibrations(evidence):
        drawn["calibration"] = diagrams(
            found, narrow, given="probability it gives its answer", true="answers that are right"
        )
    return drawn | episode_figures(evidence, episodes_to_look_at(evidence), draw_episodes, narrow)
