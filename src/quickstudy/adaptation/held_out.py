"""How well a task is learned, told by its own examples: each in turn is left out and asked."""

import torch

from quickstudy.adaptation.adapted import Task
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.left_out import left_out
from quickstudy.kinds.scores import SCORES
from quickstudy.model.metamodel import MetaModel

MOST = 100
"""Examples that are left out, evenly spread over the task."""
PRODUCTS = 3e11
"""That are added up for all of them, about half a minute of two cores: of a very large task fewer are left out."""
FEWEST = 10


def asked_of(model: MetaModel, examples: int, names: int) -> int:
    """Return how many of so many examples, of so many classes or tags, are left out at most."""
    return max(FEWEST, min(MOST, int(PRODUCTS / effort(model, examples, names))))


def effort(model: MetaModel, examples: int, names: int) -> float:
    """Return about how many products are added up to leave one of so many examples out."""
    choices, classes = model.head.posed(names)
    return choices * model.vector_learner.effort(examples, classes, model.shape.dimension)


@torch.inference_mode()
def held_out(model: MetaModel, task: Task) -> tuple[float, int]:
    """Return the leave-one-out score of a task, and how many examples were asked.

    An example without which the task would be another one, as the only one of its class, is not left out.

    Returns:
        (score, asked); (0, 0) where nothing can be left out.
    """
    try:
        names, numbers = model.head.arrange(task.targets)
    except QuickstudyError:
        return 0.0, 0
    places = torch.nonzero(model.head.can_be_left_out(numbers, len(names))).squeeze(1)
    places = places[:: -(-len(places) // asked_of(model, len(task.targets), len(names))) or 1]
    if not len(places):
        return 0.0, 0
    answers = left_out(
        model.vector_learner, model.head.pose, model.head.read, task.vectors, numbers, len(names), places
    )
    (score,) = SCORES[model.kind].judge(answers[None], numbers[places][None])["score"]
    return score, len(places)
