"""Quickstudy from Python: a model that learns a task from a handful of examples, here or in a service elsewhere.

    from quickstudy import Quickstudy

    qs = Quickstudy.load("models:/quickstudy@champion")            # or Quickstudy.connect("http://127.0.0.1:8000")
    task = qs.adapt(["Where is my parcel?", "I want my money back"], ["shipping", "refund"])
    task.predict("When will it arrive?")                           # 'shipping'

Examples are texts, paths, bytes of files, PIL images, arrays, or recordings (samples, rate): see `read_examples`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quickstudy.adaptation.taught import Example, Neighbour
from quickstudy.client.examples import Examples, is_one, read_examples
from quickstudy.system.environment import CHAMPION

if TYPE_CHECKING:
    from quickstudy.data.dataset import Modality

__all__ = ["Answer", "Example", "Neighbour", "Quickstudy", "Task"]


@dataclass(frozen=True)
class Answer:
    """What a task says of one query."""

    label: Any
    """the likeliest class, whether or not the query is unknown; of kind tag the list of tags"""
    probability: float
    """of it; of kind tag of the tag that is least sure"""
    probabilities: Mapping[str, float]
    """of each class, or tag"""
    unknown: bool
    """whether the query seems to be of none of the classes"""
    unlikeness: float
    """how unlike all examples it is; beyond `threshold` it is unknown"""
    threshold: float
    nearest: tuple[Neighbour, ...]
    """the examples that it lies nearest, the nearest first"""
    model: str
    """which model answered: its version in the registry, or the sha256 of its weights"""

    def __str__(self) -> str:
        label = self.label if isinstance(self.label, str) else ", ".join(self.label) or "none"
        return "unknown" if self.unknown else f"{label} ({self.probability:.0%})"


class Task(ABC):
    """A task that was learned. It grows and shrinks in place; what fails changes nothing."""

    kind: str
    modality: "Modality"

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Sorted; the columns of `predict_proba`."""

    @property
    @abstractmethod
    def examples(self) -> tuple[Example, ...]:
        """What it was taught, in the order of teaching."""

    @abstractmethod
    def add(self, examples: Any, labels: Any) -> list[str]:
        """Teach it more examples, also of new classes; gives their ids."""

    @abstractmethod
    def remove(self, ids: str | Sequence[str]) -> None:
        """Take examples back, by their ids. Two classes at least must be left."""

    @abstractmethod
    def save(self, path: str | Path) -> None:
        """Write it to a file, which `Quickstudy.open` reads."""

    @abstractmethod
    def _answer(self, examples: Examples) -> list[Answer]: ...

    def answer(self, queries: Any) -> Any:
        """An `Answer`, or a list of them for a list: the verdict, the probabilities, the nearest examples."""
        answers = self._answers(queries)
        return answers[0] if is_one(queries) else answers

    def predict(self, queries: Any) -> Any:
        """The likeliest class of a query, or an array of them [n] for a list. `answer` says too what is unknown."""
        answers = self._answers(queries)
        labels = np.empty(len(answers), dtype=object)
        labels[:] = [answer.label for answer in answers]
        return labels[0] if is_one(queries) else labels

    def predict_proba(self, queries: Any) -> np.ndarray:
        """float64 [N] of a query, [n, N] of a list: the probability of each of `classes`."""
        answers = self._answers(queries)
        # An answer knows its classes: in a service somebody else may have added one since.
        chances = np.array([[answer.probabilities.get(name, 0.0) for name in self.classes] for answer in answers])
        return chances[0] if is_one(queries) else chances.reshape(len(answers), len(self.classes))

    def _answers(self, queries: Any) -> list[Answer]:
        if not is_one(queries):
            queries = list(queries)
            if not queries:
                return []
        return self._answer(read_examples(queries, self.modality))

    def __len__(self) -> int:
        return len(self.examples)

    def __repr__(self) -> str:
        return f"<Task of {self.modality}: {len(self)} examples of {len(self.classes)} classes>"


class Quickstudy(ABC):
    """A model that adapts to tasks: `load` one here, or `connect` to a service."""

    @staticmethod
    def load(model: str | Path = CHAMPION, project: str | Path | None = None) -> "Quickstudy":
        """Load a model into this process.

        Args:
            model: ``models:/quickstudy@ALIAS``, ``models:/quickstudy/VERSION``, ``runs:/RUN/model`` or a folder.
            project: the folder of the project whose registry is asked; by default the one around the current folder.

        Raises:
            QuickstudyError: there is no such model; says which there are.
        """
        from quickstudy.system.environment import apply_environment

        apply_environment()  # before torch and MLflow are imported
        from quickstudy.client.local import LocalQuickstudy

        return LocalQuickstudy(str(model), None if project is None else Path(project))

    @staticmethod
    def connect(url: str, key: str | None = None, timeout: float = 30.0) -> "Quickstudy":
        """Use a service (`quickstudy serve`).

        Args:
            url: http://HOST:PORT, as `quickstudy serve` prints it.
            key: the API key; QUICKSTUDY_KEY of the environment where it is left out.
            timeout: seconds that an answer may take.

        Raises:
            QuickstudyError: nothing answers there, or it refuses the key.
        """
        from quickstudy.client.remote import RemoteQuickstudy

        return RemoteQuickstudy(url, key, timeout)

    @abstractmethod
    def adapt(
        self,
        examples: Any,
        labels: Any,
        *,
        kind: str | None = None,
        modality: "Modality | None" = None,
        name: str = "task",
        false_alarm: float | None = None,
    ) -> Task:
        """Learn a task from labelled examples.

        Args:
            examples: see `read_examples`; of one modality.
            labels: the class of each, or a list of its tags; they are told back as strings.
            kind: classify or tag; told from the labels where left out.
            modality: image, audio or text, where it cannot be told from the examples.
            name: what the task is called where a service lists it.
            false_alarm: share of queries of the task's own classes that may be called unknown; by default 0.05, and in
                a service what its settings say.

        Raises:
            QuickstudyError: an example that cannot be read, fewer than two classes, a modality that the model has not
                learned.
        """

    def __deepcopy__(self, memo: object) -> "Quickstudy":
        return self  # it never changes; scikit-learn copies an estimator's parameters

    @abstractmethod
    def open(self, name: str | Path) -> Task:
        """A task that was learned before: from a file that `Task.save` wrote, or by its id in a service.

        A file of a service holds the examples themselves, and makes a new task there. One of a model in this process
        holds vectors; it is of use with that model alone, as are the files of `quickstudy adapt`, which are read too.

        Raises:
            QuickstudyError: there is none, or it was learned by another model.
        """
