"""A task that grows and shrinks in place; what fails changes nothing."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from quickstudy.adaptation.adapted import AdaptedTask, Answers, Task, adapt, answer
from quickstudy.adaptation.taught import Example, Neighbour
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel


class Growing:
    """A task and its numbered examples.

    Args:
        model: that answers.
        task: to begin with; it may have too few examples to answer yet.
        names: how to show each of its examples to a person [S].
        false_alarm: share of queries of its own classes that may be called unknown.
    """

    def __init__(self, model: MetaModel, task: Task, names: Sequence[str], false_alarm: float):
        self._model, self.task, self.false_alarm = model, task, false_alarm
        self.examples = _numbered(task.targets, names, 1)
        self._next = len(self.examples) + 1
        self._adapted: AdaptedTask | None = None

    @property
    def adapted(self) -> AdaptedTask:
        """What the learner makes of it now.

        Raises:
            QuickstudyError: it has too few examples, as of one class alone.
        """
        if self._adapted is None:
            self._adapted = adapt(self._model, self.task, self.false_alarm)
        return self._adapted

    def add(self, targets: Sequence[Any], names: Sequence[str], vectors: Tensor) -> list[str]:
        """Add examples: targets [n], names [n], vectors [n, D]. Return their ids."""
        added = _numbered(targets, names, self._next)
        self.task = self.task.with_examples(targets, vectors)
        self.examples, self._next, self._adapted = self.examples + added, self._next + len(added), None
        return [example.id for example in added]

    def remove(self, ids: Sequence[str]) -> None:
        """Remove examples.

        Raises:
            QuickstudyError: it has no such example.
        """
        gone = set(ids)
        if missing := gone - {example.id for example in self.examples}:
            raise QuickstudyError(f"the task has no example {min(missing)!r}", fix="task.examples has their ids")
        self.task = self.task.without([place for place, one in enumerate(self.examples) if one.id in gone])
        self.examples, self._adapted = tuple(one for one in self.examples if one.id not in gone), None

    def answer(self, query: Tensor) -> Answers:
        """Answer queries [Q, D]."""
        return answer(self._model, self.adapted, query)

    def nearest(self, answers: Answers, place: int) -> tuple[Neighbour, ...]:
        """Return the examples that the query at a place of answers lies nearest, the nearest first."""
        pairs = zip(answers.neighbours[place].tolist(), answers.likeness[place].tolist(), strict=True)
        return tuple(Neighbour(self.examples[number], likeness) for number, likeness in pairs)

    def copy(self) -> "Growing":
        """Return another that is the same now."""
        twin = Growing(self._model, self.task, [one.name for one in self.examples], self.false_alarm)
        twin.examples, twin._next, twin._adapted = self.examples, self._next, self._adapted
        return twin


def _numbered(targets: Sequence[Any], names: Sequence[str], first: int) -> tuple[Example, ...]:
    pairs = zip(targets, names, strict=True)
    return tuple(Example(str(number), target, name) for number, (target, name) in enumerate(pairs, first))
