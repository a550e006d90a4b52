"""How well a task is learned, told by its own examples: each in turn is left out and asked."""

from collections import Counter

import torch

from quickstudy.adaptation.adapted import Task
from quickstudy.learners import VectorLearner
from quickstudy.model.metamodel import MetaModel

MOST = 100
"""Examples that are left out, evenly spread over the task."""
ROWS = 20_000
"""Vectors of the tasks that are adapted at once."""


@torch.inference_mode()
def held_out(model: MetaModel, task: Task) -> tuple[int, int]:
    """Leave-one-out accuracy of a task.

    An only example of its class is not left out: without it the class is not known.

    Returns:
        (right, asked); (0, 0) where nothing can be left out.
    """
    assert isinstance(model.learner, VectorLearner)
    classes, count = task.classes, Counter(task.labels)
    places = [place for place, label in enumerate(task.labels) if count[label] > 1]
    places = places[:: -(-len(places) // MOST) or 1]
    if not places or len(classes) < 2:
        return 0, 0
    targets = torch.tensor([classes.index(label) for label in task.labels])
    everything = torch.arange(len(targets))
    right, step = 0, max(1, ROWS // len(targets))
    for start in range(0, len(places), step):
        out = torch.tensor(places[start : start + step])
        kept = torch.stack([everything[everything != place] for place in out])  # [B, S - 1]
        state = model.learner.adapt(task.vectors[kept], targets[kept], len(classes))
        scores = model.learner.score(state, task.vectors[out][:, None])  # [B, 1, N]
        right += int((scores[:, 0].argmax(-1) == targets[out]).sum())
    return right, len(places)
