"""A model in this process, and the tasks that it learns."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from quickstudy.adaptation import adapted as serving
from quickstudy.adaptation.state import FALSE_ALARM, Support, TaskState
from quickstudy.client import Answer, Example, Neighbour, Quickstudy, Task
from quickstudy.client.examples import Examples, read_examples, read_labels
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, weights_digest
from quickstudy.registry import resolve
from quickstudy.system.atomic import write_bytes
from quickstudy.system.environment import find_project


class LocalQuickstudy(Quickstudy):
    """See `Quickstudy.load`."""

    def __init__(self, uri: str, project: Path | None = None):
        folder = resolve(uri, _root(uri, project))
        self._project = project
        self.uri, self.model, self.digest = uri, load_model(folder), weights_digest(folder)

    def adapt(
        self,
        examples: Any,
        labels: Any,
        *,
        modality: Modality | None = None,
        name: str = "task",
        false_alarm: float | None = None,
    ) -> "LocalTask":
        alarm = FALSE_ALARM if false_alarm is None else false_alarm
        if not 0 < alarm < 1:
            what, fix = f"false_alarm = {alarm}: not between 0 and 1", "Say 0.05 for one in twenty"
            raise QuickstudyError(what, fix=fix)
        read = read_examples(examples, modality)
        names = read_labels(labels, len(read.contents))
        started = time.perf_counter()
        task = serving.Task(read.modality, tuple(names), encoded(self.model, read), self.digest)
        adapted = serving.adapt(self.model, task, alarm)
        return LocalTask(self.model, adapted, read.names, alarm, (time.perf_counter() - started) * 1000)

    def open(self, name: str | Path) -> "LocalTask":
        path = Path(name)
        state = TaskState.read(path)
        if state.model != self.digest:
            fix = "Adapt it again, or load its model"
            raise QuickstudyError(f"was adapted by another model than {self.uri}", where=path, fix=fix)
        if state.support is None:
            fix = "Adapt it again; a learner that changes the encoder keeps none"
            raise QuickstudyError("holds no examples, so that it cannot grow", where=path, fix=fix)
        adapted = serving.restored(self.model, state)
        return LocalTask(self.model, adapted, state.support.names, state.support.false_alarm, state.adapt_ms)

    def __reduce__(self) -> Any:
        return LocalQuickstudy, (self.uri, self._project)  # in another process it is loaded there

    def __repr__(self) -> str:
        return f"<Quickstudy {self.uri}: {', '.join(self.model.modalities)}>"


class LocalTask(Task):
    """See `Task`. What the learner made of it is a value that a change replaces."""

    def __init__(
        self,
        model: MetaModel,
        adapted: serving.AdaptedTask,
        names: Sequence[str],
        false_alarm: float,
        adapt_ms: float,
    ):
        self.modality = adapted.task.modality
        self._model, self._adapted, self._false_alarm, self._adapt_ms = model, adapted, false_alarm, adapt_ms
        self._examples = _numbered(adapted.task.labels, names, 1)
        self._next = len(self._examples) + 1

    @property
    def classes(self) -> tuple[str, ...]:
        return self._adapted.task.classes

    @property
    def examples(self) -> tuple[Example, ...]:
        return self._examples

    def add(self, examples: Any, labels: Any) -> list[str]:
        read = read_examples(examples, self.modality)
        names = read_labels(labels, len(read.contents))
        grown = self._adapted.task.with_examples(names, encoded(self._model, read))
        self._adapted = serving.adapt(self._model, grown, self._false_alarm)
        added = _numbered(names, read.names, self._next)
        self._examples, self._next = self._examples + added, self._next + len(added)
        return [example.id for example in added]

    def remove(self, ids: str | Sequence[str]) -> None:
        gone = {ids} if isinstance(ids, str) else set(ids)
        if missing := gone - {example.id for example in self._examples}:
            raise QuickstudyError(f"the task has no example {min(missing)!r}", fix="task.examples has their ids")
        places = [place for place, example in enumerate(self._examples) if example.id in gone]
        self._adapted = serving.adapt(self._model, self._adapted.task.without(places), self._false_alarm)
        self._examples = tuple(example for example in self._examples if example.id not in gone)

    def save(self, path: str | Path) -> None:
        write_bytes(Path(path), self.state.to_bytes())

    @property
    def state(self) -> TaskState:
        """What a file keeps of it."""
        task = self._adapted.task
        count = Counter(task.labels)
        names = tuple(example.name for example in self._examples)
        return TaskState(
            task.modality,
            task.classes,
            tuple(count[name] for name in task.classes),
            self._adapted.learned,
            task.model,
            self._adapt_ms,
            Support(task.labels, names, task.vectors, self._false_alarm),
        )

    def _answer(self, examples: Examples) -> list[Answer]:
        answers = serving.answer(self._model, self._adapted, encoded(self._model, examples))
        best = answers.probabilities.argmax(1)
        return [
            Answer(
                answers.classes[best[i]],
                float(answers.probabilities[i, best[i]]),
                dict(zip(answers.classes, answers.probabilities[i].tolist(), strict=True)),
                bool(answers.unknown[i] > answers.threshold),
                float(answers.unknown[i]),
                float(answers.threshold),
                tuple(
                    Neighbour(self._examples[place], float(likeness))
                    for place, likeness in zip(answers.neighbours[i], answers.likeness[i], strict=True)
                ),
                self._adapted.task.model,
            )
            for i in range(len(best))
        ]


def encoded(model: MetaModel, examples: Examples) -> torch.Tensor:
    """float32 [n, D]; an example that cannot be read is named."""
    try:
        return serving.encode(model, examples.modality, examples.contents)
    except QuickstudyError:
        for number, (content, name) in enumerate(zip(examples.contents, examples.names, strict=True), 1):
            if error := serving.fault(content, examples.modality):
                raise QuickstudyError(error.what, where=f"example {number} ({name})", fix=error.fix) from None
        raise


def _numbered(labels: Sequence[str], names: Sequence[str], first: int) -> tuple[Example, ...]:
    pairs = zip(labels, names, strict=True)
    return tuple(Example(str(number), label, name) for number, (label, name) in enumerate(pairs, first))


def _root(uri: str, project: Path | None) -> Path:
    """The project whose registry is asked. A folder, or MLflow on a server, needs none."""
    try:
        return find_project(project)
    except QuickstudyError:
        if uri.startswith("models:") and "MLFLOW_TRACKING_URI" not in os.environ:
            what, fix = (
                "no project around this folder, to ask for its models",
                "Name its folder, by project=, or a model's",
            )
            raise QuickstudyError(what, where=project or Path.cwd(), fix=fix) from None
        return project or Path.cwd()
