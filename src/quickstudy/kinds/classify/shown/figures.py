"""The figures of classification: how far its probabilities can be trusted, and episodes to look at."""

from matplotlib.figure import Figure

from quickstudy.config import AudioInput
from quickstudy.kinds.classify.shown.calibration import calibrations
from quickstudy.kinds.classify.shown.episodes import draw_episodes
from quickstudy.kinds.classify.shown.failures import episodes_to_look_at
from quickstudy.kinds.pictures import eye
from quickstudy.report.calibration import diagrams
from quickstudy.report.evidence import KindEvidence


def figures(evidence: KindEvidence, narrow: bool) -> dict[str, Figure]:
    """Draw the figures, by name; none where the evaluation did not keep its answers."""
    drawn = {}
    if found := calibrations(evidence):
        drawn["calibration"] = diagrams(
            found, narrow, given="probability it gives its answer", true="answers that are right"
        )
    audio = AudioInput.model_validate(evidence.model["inputs"]["audio"])
    for episodes in episodes_to_look_at(evidence):
        if (see := eye(episodes[0].modality, audio)) is not None:
            drawn[f"episodes_{episodes[0].modality}"] = draw_episodes(episodes, see, narrow)
    return drawn
