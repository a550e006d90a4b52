"""Chats on FAQs that pages hold with this replica.

A page brings its FAQ and what it has taught with every line, so that nothing is lost when the replica that it talked to
is gone: the next one begins where that ended, but for a question that was asked back.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from quickstudy.adaptation.adapted import Task, encode
from quickstudy.adaptation.growing import Growing
from quickstudy.adaptation.taught import Example, Neighbour
from quickstudy.serving.chat.chat import Adapt, Chat, Entry, Reply
from quickstudy.serving.engine import cost
from quickstudy.serving.engine.batcher import PIECE, cut
from quickstudy.serving.engine.loaded import Loaded
from quickstudy.system.turns import give_way

MOST, ENTRIES, CHARACTERS = 100, 20_000, 20_000_000
"""Conversations that are remembered, questions of all of them, and characters of those and their answers; the one that
was silent the longest goes first."""


@dataclass(frozen=True)
class _Reading:
    """What the task of an FAQ makes of a line."""

    probabilities: dict[str, float]
    unknown: bool
    nearest: Sequence[Neighbour]


class _Router:
    """A task of texts that is kept nowhere."""

    def __init__(self, loaded: Loaded, false_alarm: float, texts: list[str], labels: list[str]):
        self._model = loaded.model
        vectors = torch.empty(0, loaded.model.shape.dimension)
        self._task = Growing(loaded.model, Task("classify", "text", (), vectors, loaded.digest), (), false_alarm)
        self.add(texts, labels)

    @property
    def examples(self) -> Sequence[Example]:
        return self._task.examples

    def add(self, examples: list[str], labels: list[str]) -> list[str]:
        most = self._model.inputs.text.max_tokens
        parts = []
        for part, _ in cut(examples, [cost.of_text(text, most) for text in examples], lambda: PIECE / 2, len(examples)):
            parts.append(encode(self._model, "text", part))
            give_way()
        return self._task.add(labels, examples, torch.cat(parts))

    def remove(self, ids: list[str]) -> None:
        self._task.remove(ids)

    def answer(self, queries: str) -> _Reading:
        said = self._task.answer(encode(self._model, "text", [queries]))
        chances = dict(zip(said.names, said.probabilities[0].tolist(), strict=True))
        return _Reading(chances, not said.known[0], self._task.nearest(said, 0))


class Conversations:
    """Used on the thread that computes, where one gives way to another between two parts of its work.

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
        while len(self._chats) > 1 and self._are_too_many():
            self._chats.popitem(last=False)
        return reply, chat.taught

    def cost(
        self, loaded: Loaded, tenant: str, session: str, faq: Sequence[Entry], taught: Sequence[Entry], line: str
    ) -> float:
        """Return the units (cost.py) that `say` will cost: little where the conversation is remembered."""
        before, chat = self._chats.get((tenant, session, loaded.digest), (None, None))
        units = cost.of_text(line, loaded.model.inputs.text.max_tokens)
        entries = [*faq, *taught]
        if chat is None or before != tuple(faq) or chat.taught != list(taught):
            units += sum(cost.of_text(one.question, loaded.model.inputs.text.max_tokens) for one in entries)
            answers = len({one.answer for one in entries})
            units += cost.of_adapting(loaded.model, len(entries), answers) if entries else 0.0
        return units

    def _are_too_many(self) -> bool:
        entries = [one for told, chat in self._chats.values() for one in (*told, *chat.taught)]
        characters = sum(len(one.question) + len(one.answer) for one in entries)
        return len(self._chats) > MOST or len(entries) > ENTRIES or characters > CHARACTERS

    def _adapting(self, loaded: Loaded) -> Adapt:
        return lambda texts, labels: _Router(loaded, self._false_alarm, texts, labels)
