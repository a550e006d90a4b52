"""Chats on FAQs that pages hold with this replica.

A page brings its FAQ and what it has taught with every line, so that nothing is lost when the replica that it talked to
is gone: the next one begins where that ended, but for a question that was asked back.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quickstudy.adaptation.adapted import AdaptedTask, Task, adapt, answer, encode
from quickstudy.adaptation.taught import Example, Neighbour
from quickstudy.serving.chat.chat import Adapt, Chat, Entry, Reply
from quickstudy.serving.engine.loaded import Loaded

MOST = 100
"""Conversations that are remembered; the one that was silent the longest goes first."""


@dataclass(frozen=True)
class _Verdict:
    probabilities: dict[str, float]
    unknown: bool
    nearest: list[Neighbour]


class _Router:
    """A task of texts that is kept nowhere."""

    def __init__(self, loaded: Loaded, false_alarm: float, texts: list[str], labels: list[str]):
        self._model, self._false_alarm, self._next = loaded.model, false_alarm, 0
        self._task = Task("text", (), torch.empty(0, loaded.model.shape.dimension), loaded.digest)
        self._adapted: AdaptedTask | None = None
        self.examples: list[Example] = []
        self.add(texts, labels)

    def add(self, examples: list[str], labels: list[str]) -> list[str]:
        self._task = self._task.with_examples(labels, encode(self._model, "text", examples))
        new = [
            Example(str(self._next + i), label, text)
            for i, (text, label) in enumerate(zip(examples, labels, strict=True))
        ]
        self._next += len(new)
        self.examples = [*self.examples, *new]
        self._adapted = None
        return [one.id for one in new]

    def remove(self, ids: list[str]) -> None:
        gone = [place for place, one in enumerate(self.examples) if one.id in ids]
        self._task = self._task.without(gone)
        self.examples = [one for one in self.examples if one.id not in ids]
        self._adapted = None

    def answer(self, queries: str) -> _Verdict:
        if self._adapted is None:
            self._adapted = adapt(self._model, self._task, self._false_alarm)
        said = answer(self._model, self._adapted, encode(self._model, "text", [queries]))
        places = zip(said.neighbours[0].tolist(), said.likeness[0].tolist(), strict=True)
        return _Verdict(
            dict(zip(said.classes, said.probabilities[0].tolist(), strict=True)),
            bool(said.unknown[0] > said.threshold),
            [Neighbour(self.examples[place], likeness) for place, likeness in places],
        )


class Conversations:
    """Used on the thread that computes, by one at a time.

    Args:
        close: see `quickstudy.serving.chat.chat.Chat`.
    """

    def __init__(self, false_alarm: float, close: float):
        self._false_alarm, self._close = false_alarm, close
        self._chats: OrderedDict[tuple[str, str, str], tuple[tuple[Entry, ...], Chat]] = OrderedDict()

    def say(
        self, loaded: Loaded, tenant: str, session: str, faq: Sequence[Entry], taught: Sequence[Entry], line: str
    ) -> tuple[Reply, list[Entry]]:
        """A line of a conversation → what is answered, and all that was taught by then.

        Raises:
            QuickstudyError: an FAQ that is none, or a model that has not learned texts.
        """
        key, told = (tenant, session, loaded.digest), tuple(faq)
        before, chat = self._chats.pop(key, (None, None))
        if chat is None or before != told or chat.taught != list(taught):
            chat = Chat(self._adapting(loaded), told, self._close, list(taught))
        reply = chat.say(line)
        self._chats[key] = (told, chat)
        while len(self._chats) > MOST:
            self._chats.popitem(last=False)
        return reply, chat.taught

    def _adapting(self, loaded: Loaded) -> Adapt:
        return lambda texts, labels: _Router(loaded, self._false_alarm, texts, labels)
