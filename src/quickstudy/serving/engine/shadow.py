"""What the champion and the challenger answered to the same queries, counted and logged without any content."""

import numpy as np

from quickstudy.kinds.targets import targets_of
from quickstudy.serving.engine.engine import Answered
from quickstudy.serving.http.logs import SHADOW
from quickstudy.serving.http.metrics import Metrics


def compare(metrics: Metrics, task: str, champion: Answered, challenger: Answered) -> None:
    """Count the queries, and log those that were answered differently.

    Classes, or tags, are told by their places in the sorted list of the task's, so that no label is logged. Both have
    the same examples.
    """
    old, new = champion.answers, challenger.answers
    known = [answers.known for answers in (old, new)]
    other = np.array([mine != theirs for mine, theirs in zip(old.targets, new.targets, strict=True)])
    differ = np.flatnonzero((known[0] != known[1]) | (known[0] & other))
    metrics.shadow.labels("agree").inc(len(other) - len(differ))
    metrics.shadow.labels("disagree").inc(len(differ))
    if not len(differ):
        return
    part = targets_of(champion.ready.adapted.task.kind)
    disagreements = []
    for place in differ:
        entry = {}
        for side, name in enumerate(("champion", "challenger")):
            answers = (old, new)[side]
            names = part.count([answers.targets[place]])
            entry[name] = {
                "classes": [answers.names.index(one) for one in names],
                "probability": float(answers.confidence[place]),
                "known": bool(known[side][place]),
            }
        disagreements.append(entry)
    about = {
        "task": task,
        "revision": champion.ready.revision,
        "queries": len(other),
        "champion": champion.loaded.version,
        "challenger": challenger.loaded.version,
        "champion_digest": champion.loaded.digest,
        "challenger_digest": challenger.loaded.digest,
        "disagreements": disagreements,
    }
    SHADOW.info("shadow", extra={"about": about})
