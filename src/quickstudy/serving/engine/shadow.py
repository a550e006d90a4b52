"""What the champion and the challenger answered to the same queries, counted and logged without any content."""

import numpy as np

from quickstudy.serving.engine.engine import Answered
from quickstudy.serving.http.logs import SHADOW
from quickstudy.serving.http.metrics import Metrics


def compare(metrics: Metrics, task: str, champion: Answered, challenger: Answered) -> None:
    """Count the queries, and log those that were answered differently.

    Classes are told by their places in the sorted list of the task's classes, so that no label is logged. Both have
    the same examples.
    """
    old, new = champion.answers, challenger.answers
    labels = [answers.probabilities.argmax(1) for answers in (old, new)]
    known = [answers.unknown <= answers.threshold for answers in (old, new)]
    differ = np.flatnonzero((known[0] != known[1]) | (known[0] & (labels[0] != labels[1])))
    metrics.shadow.labels("agree").inc(len(labels[0]) - len(differ))
    metrics.shadow.labels("disagree").inc(len(differ))
    if not len(differ):
        return
    disagreements = []
    for place in differ:
        entry = {}
        for side, name in enumerate(("champion", "challenger")):
            chances = (old, new)[side].probabilities[place]
            best = int(labels[side][place])
            entry[name] = {"class": best, "probability": float(chances[best]), "known": bool(known[side][place])}
        disagreements.append(entry)
    about = {
        "task": task,
        "revision": champion.ready.revision,
        "queries": len(labels[0]),
        "champion": champion.loaded.version,
        "challenger": challenger.loaded.version,
        "champion_digest": champion.loaded.digest,
        "challenger_digest": challenger.loaded.digest,
        "disagreements": disagreements,
    }
    SHADOW.info("shadow", extra={"about": about})
