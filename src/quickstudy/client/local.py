"""A model in this process, and the tasks that it learns."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from quickstudy.adaptation import adapted
from quickstudy.adaptation.growing import Growing
from quickstudy.adaptation.state import FALSE_ALARM, Support, TaskState
from quickstudy.client import Answer, Example, Quickstudy, Task
from quickstudy.client.examples import Examples, read_examples, read_labels
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, parts_of, weights_digest
from quickstudy.registry import resolve
from quickstudy.system.atomic import write_bytes
from quickstudy.system.environment import find_project


class LocalQuickstudy(Quickstudy):
    """See `Quickstudy.load`."""

    def __init__(self, uri: str, project: Path | None = None):
        folder = resolve(uri, _root(uri, project))
        self._project, self._folder = project, folder
        self.uri = uri
        self._parts: dict[str, tuple[MetaModel, str]] = {}
        self.kinds = tuple(parts_of(folder))

    @property
    def model(self) -> MetaModel:
        """The part that classifies."""
        return self.part("classify")[0]

    @property
    def digest(self) -> str:
        """sha256 of that part's weights."""
        return self.part("classify")[1]

    def part(self, kind: str) -> tuple[MetaModel, str]:
        """Return the model's part for a kind and the sha256 of its weights; it is read when it is first asked for.

        Raises:
            QuickstudyError: it has none.
        """
        if kind not in self._parts:
            self._parts[kind] = load_model(self._folder, kind), weights_digest(self._folder, kind)
        return self._parts[kind]

    def adapt(
        self,
        examples: Any,
        labels: Any,
        *,
        kind: str | None = None,
        modality: Modality | None = None,
        name: str = "task",
        false_alarm: float | None = None,
    ) -> "LocalTask":
        alarm = FALSE_ALARM if false_alarm is None else false_alarm
        if not 0 < alarm < 1:
            what, fix = f"false_alarm = {alarm}: not between 0 and 1", "Say 0.05 for one in twenty"
            raise QuickstudyError(what, fix=fix)
        read = read_examples(examples, modality)
        kind, targets = read_labels(labels, len(read.contents), kind)
        model, digest = self.part(kind)
        started = time.perf_counter()
        task = adapted.Task(kind, read.modality, tuple(targets), encoded(model, read), digest)
        growing = Growing(model, task, read.names, alarm)
        _ = growing.adapted  # what is no task is told here
        return LocalTask(model, growing, (time.perf_counter() - started) * 1000)

    def open(self, name: str | Path) -> "LocalTask":
        path = Path(name)
        state = TaskState.read(path)
        model, digest = self.part(state.kind)
        if state.model != digest:
            fix = "Adapt it again, or load its model"
            raise QuickstudyError(f"was adapted by another model than {self.uri}", where=path, fix=fix)
        if state.support is None:
            fix = "Adapt it again; a learner that changes the encoder keeps none"
            raise QuickstudyError("holds no examples, so that it cannot grow", where=path, fix=fix)
        kept = state.support
        task = adapted.Task(state.kind, state.modality, kept.targets, kept.vectors, state.model)
        return LocalTask(model, Growing(model, task, kept.names, kept.false_alarm), state.adapt_ms)

    def __reduce__(self) -> Any:
        return LocalQuickstudy, (self.uri, self._project)  # in another process it is loaded there

    def __repr__(self) -> str:
        return f"<Quickstudy {self.uri}: {', '.join(self.kinds)}>"


class LocalTask(Task):
    """See `Task`. What the learner made of it is a value that a change replaces."""

    def __init__(self, model: MetaModel, growing: Growing, adapt_ms: float):
        self.kind, self.modality = growing.task.kind, growing.task.modality
        self._model, self._growing, self._adapt_ms = model, growing, adapt_ms

    @property
    def classes(self) -> tuple[str, ...]:
        return self._growing.adapted.names

    @property
    def examples(self) -> tuple[Example, ...]:
        return self._growing.examples

    def add(self, examples: Any, labels: Any) -> list[str]:
        read = read_examples(examples, self.modality)
        _, targets = read_labels(labels, len(read.contents), self.kind)
        grown = self._growing.copy()
        added = grown.add(targets, read.names, encoded(self._model, read))
        self._keep(grown)
        return added

    def remove(self, ids: str | Sequence[str]) -> None:
        shrunk = self._growing.copy()
        shrunk.remove([ids] if isinstance(ids, str) else ids)
        self._keep(shrunk)

    def _keep(self, changed: Growing) -> None:
        """Take a changed task in the place of this one, if it is one."""
        _ = changed.adapted
        self._growing = changed

    def save(self, path: str | Path) -> None:
        write_bytes(Path(path), self.state.to_bytes())

    @property
    def state(self) -> TaskState:
        """What a file keeps of it."""
        learned, task = self._growing.adapted, self._growing.task
        _, numbers = self._model.head.arrange(task.targets)
        names = tuple(example.name for example in self.examples)
        return TaskState(
            task.kind,
            task.modality,
            learned.names,
            self._model.head.shots(numbers, len(learned.names)),
            learned.learned,
            task.model,
            self._adapt_ms,
            Support(task.targets, names, task.vectors, self._growing.false_alarm),
        )

    def _answer(self, examples: Examples) -> list[Answer]:
        said = self._growing.answer(encoded(self._model, examples))
        return [
            Answer(
                target,
                float(sure),
                dict(zip(said.names, chances.tolist(), strict=True)),
                not known,
                float(unlike),
                float(said.threshold),
                self._growing.nearest(said, place),
                self._growing.task.model,
            )
            for place, (target, sure, chances, known, unlike) in enumerate(
                zip(said.targets, said.confidence, said.probabilities, said.known, said.unknown, strict=True)
            )
        ]


def encoded(model: MetaModel, examples: Examples) -> torch.Tensor:
    """float32 [n, D]; an example that cannot be read is named."""
    try:
        return adapted.encode(model, examples.modality, examples.contents)
    except QuickstudyError:
        for number, (content, name) in enumerate(zip(examples.contents, examples.names, strict=True), 1):
            if error := adapted.fault(content, examples.modality):
                raise QuickstudyError(error.what, where=f"example {number} ({name})", fix=error.fix) from None
        raise


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
