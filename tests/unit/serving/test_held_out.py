"""Leave-one-out accuracy, against leaving one out by hand."""

import torch

from quickstudy.adaptation.adapted import Task, adapt, answer
from quickstudy.adaptation.held_out import held_out
from quickstudy.config import Settings
from quickstudy.model.metamodel import MetaModel


def test_it_is_what_adapting_without_each_example_gives(tiny: Settings) -> None:
    torch.manual_seed(0)
    model = MetaModel(tiny.inputs, tiny.model.model_copy(update={"learner": "adapt"}), {"image"})
    labels = ("a", "b", "c", "a", "b", "a", "b", "only")
    vectors = torch.randn(8, model.shape.dimension) + 1.5 * torch.tensor([ord(one[0]) % 4 for one in labels])[:, None]
    whole = Task("classify", "image", labels, vectors, "digest")
    right = []
    for place in (0, 1, 3, 4, 5, 6):  # c and only are the only ones of theirs
        said = answer(model, adapt(model, whole.without([place]), 0.05), vectors[[place]])
        right.append(said.targets[0] == labels[place])
    assert held_out(model, whole) == (sum(right) / 6, 6)
    assert sum(right) > 0


def test_a_task_of_single_examples_tells_nothing(tiny: Settings) -> None:
    model = MetaModel(tiny.inputs, tiny.model.model_copy(update={"learner": "adapt"}), {"image"})
    vectors = torch.randn(2, model.shape.dimension)
    assert held_out(model, Task("classify", "image", ("a", "b"), vectors, "digest")) == (0, 0)
