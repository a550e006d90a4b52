"""A conversation on a list of questions and answers: what is said, what is asked back, what is learned from it.

Each answer is a class of one task, and the ways in which people ask for it are its examples. A question is routed by
the adapted model. Between two answers that are nearly as likely the person is asked; what is like no known question is
not answered. A correction is one more example, and counts from the next question on.

    question ──► known word for word, or one answer is likely ──► answer
             ──► two are close ──► asked back ──► "1" or "2" ──► learned, answer
             ──► like none ──► not known ──► /teach ANSWER ──► learned
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from quickstudy.adaptation.taught import Example, Neighbour
from quickstudy.errors import QuickstudyError

CANDIDATES = 2
"""Answers that the person chooses from."""
NONE_OF_THEM = frozenset({"0", "no", "none", "none of them", "neither", "nothing"})
PLACES = {"first": 1, "the first": 1, "the first one": 1, "second": 2, "the second": 2, "the second one": 2}

HELP = """Ask a question. Where two answers are close you are asked which you mean: say its number, or 0 for neither.
/teach ANSWER   this is the answer to my last question
/wrong          that was not the answer; shows the next likely ones
/why            the known questions that the last one lies nearest
/undo           forget what was taught last
/help           this"""


class Verdict(Protocol):
    """What a task says of a question."""

    @property
    def probabilities(self) -> Mapping[str, float]: ...
    @property
    def unknown(self) -> bool: ...
    @property
    def nearest(self) -> Sequence[Neighbour]: ...


class Router(Protocol):
    """A task of texts, as the Python client gives it."""

    @property
    def examples(self) -> Sequence[Example]: ...
    def answer(self, queries: str) -> Verdict: ...
    def add(self, examples: list[str], labels: list[str]) -> list[str]: ...
    def remove(self, ids: list[str]) -> None: ...


Adapt = Callable[[list[str], list[str]], Router]
"""Questions and the class of each → the task."""


@dataclass(frozen=True)
class Entry:
    """A way to ask, and what is answered."""

    question: str
    answer: str


@dataclass(frozen=True)
class Reply:
    """What the person is told."""

    kind: Literal["answer", "choose", "unknown", "told"]
    text: str
    choices: tuple[str, ...] = ()
    """questions of which the next line may choose one, by its number from 1 on"""
    learned: bool = False
    """whether something was learned by it, or forgotten: `Chat.taught` is another one now"""

    def __str__(self) -> str:
        return "\n".join([self.text, *(f"  {number}. {choice}" for number, choice in enumerate(self.choices, 1))])


@dataclass
class Chat:
    """A conversation; `say` is all of it.

    Raises:
        QuickstudyError: fewer than two answers, or a question with two of them.
    """

    adapt: Adapt
    entries: Sequence[Entry]
    close: float
    """The likeliest answer is given where the second has less than this share of its probability."""
    taught: list[Entry] = field(default_factory=list)
    """What was learned in conversation, the oldest first; a later one overrules what stands before it."""

    # What it knows: each answer is a topic, whose number is the name of its class.
    _task: Router = field(init=False, repr=False)
    _answers: dict[str, str] = field(init=False, repr=False)
    """of each topic"""
    _topics: dict[str, str] = field(init=False, repr=False)
    """of each known question, in plain words"""
    _next: int = field(init=False, repr=False)
    """topic"""

    # What is being talked about.
    _question: str | None = field(init=False, repr=False)
    _verdict: Verdict | None = field(init=False, repr=False)
    """of the question, where the model was asked"""
    _choices: tuple[str, ...] = field(init=False, repr=False)
    """topics of which the next line may choose one"""
    _rejected: list[str] = field(init=False, repr=False)
    """topics that were answered or offered already"""

    def __post_init__(self) -> None:
        given: dict[str, Entry] = {}
        for entry in self.entries:
            other = given.setdefault(_plain(entry.question), entry)
            if other.answer != entry.answer:
                what = f"the question {entry.question!r} has two answers"
                raise QuickstudyError(what, fix="Keep one of them, or ask in other words")
        self._forget_question()
        self._start()

    def say(self, line: str) -> Reply:
        """One line of the person's → what to answer."""
        # What is taught is kept in a file; nothing comes into it that cannot be read again.
        line = " ".join("".join(one for one in line if one.isprintable() or one.isspace()).split())
        if not line:
            return Reply("told", "Ask a question, or /help.")
        if line.startswith("/"):
            command, _, rest = line.partition(" ")
            return self._command(command.lower(), rest.strip())
        if self._choices:
            plain = _plain(line)
            if plain in NONE_OF_THEM:
                self._choices = ()
                return Reply("unknown", "Then I do not know. If you do, tell me: /teach ANSWER")
            number = int(plain) if plain.isdecimal() else PLACES.get(plain, 0)
            if 1 <= number <= len(self._choices):
                return self._learn(self._choices[number - 1], self._answers[self._choices[number - 1]])
        return self._ask(line)

    # What a line asks for

    def _ask(self, question: str) -> Reply:
        self._forget_question()
        self._question = question
        if (known := self._topics.get(_plain(question))) is not None:  # word for word
            self._rejected = [known]
            return Reply("answer", self._answers[known])
        verdict = self._verdict = self._task.answer(question)
        ranked = self._ranked(verdict)
        first, second = ranked[:2]
        if verdict.unknown:
            return self._choose("unknown", "I do not know that. If you mean one of these, say its number:", ranked)
        if verdict.probabilities[second] >= self.close * verdict.probabilities[first]:
            return self._choose("choose", "Which one do you mean? (0: neither)", ranked)
        self._rejected = [first]
        return Reply("answer", self._answers[first])

    def _command(self, command: str, rest: str) -> Reply:
        if command == "/help":
            return Reply("told", HELP)
        if command == "/undo":
            return self._undo()
        if command not in ("/teach", "/wrong", "/why"):
            return Reply("told", f"There is no {command}; /help says what there is.")
        if self._question is None:
            return Reply("told", "Ask a question first.")
        if command == "/why":
            return self._why()
        if command == "/wrong":
            ranked = [one for one in self._ranked(self._judged()) if one not in self._rejected]
            if not ranked:
                return Reply("unknown", "I have no other answer. If you know it, tell me: /teach ANSWER")
            return self._choose("choose", "I see. Is it one of these? (0: neither)", ranked)
        if not rest:
            return Reply("told", "Say the answer too: /teach ANSWER")
        same = [topic for topic, answer in self._answers.items() if _plain(answer) == _plain(rest)]
        return self._learn(same[0] if same else None, rest)

    def _choose(self, kind: Literal["choose", "unknown"], text: str, ranked: list[str]) -> Reply:
        self._choices = tuple(ranked[:CANDIDATES])
        self._rejected = [*self._rejected, *self._choices]
        return Reply(kind, text, tuple(self._title(topic) for topic in self._choices))

    def _why(self) -> Reply:
        verdict = self._judged()
        near = [f"  {one.example.name} (likeness {one.likeness:.2f})" for one in verdict.nearest]
        likeliest = self._ranked(verdict)[0]
        sure = f"The likeliest answer has {verdict.probabilities[likeliest]:.0%}"
        unlike = ", but the question is too unlike all that I know" if verdict.unknown else ""
        return Reply("told", "\n".join([f"{sure}{unlike}. Nearest known questions:", *near]))

    # What it knows

    def _start(self) -> None:
        """Learn all that is known, at once."""
        entries = {_plain(entry.question): entry for entry in [*self.entries, *self.taught]}.values()
        self._answers, self._topics = {}, {}
        number = {answer: str(n) for n, answer in enumerate(dict.fromkeys(entry.answer for entry in entries), 1)}
        if len(number) < 2:
            raise QuickstudyError("one answer is no choice", fix="Give two or more, each with a question")
        for entry in entries:
            topic = number[entry.answer]
            self._answers[topic] = entry.answer
            self._topics[_plain(entry.question)] = topic
        self._next = len(number) + 1
        self._task = self.adapt([entry.question for entry in entries], [number[entry.answer] for entry in entries])

    def _learn(self, topic: str | None, answer: str) -> Reply:
        """The last question is asked for this topic; None is a new one."""
        assert self._question is not None
        question, plain = self._question, _plain(self._question)
        if topic is None:
            topic, self._next = str(self._next), self._next + 1
        answer = self._answers.setdefault(topic, answer)
        if (before := self._topics.get(plain)) != topic:
            old = [known.id for known in self._task.examples if _plain(known.name) == plain]
            if before is not None and len(self._answers) == 2 and list(self._topics.values()).count(before) == 1:
                return Reply("told", "That would leave one answer to all questions; teach me another one first.")
            self._task.add([question], [topic])
            if old:
                self._task.remove(old)
            self._topics[plain] = topic
            if before is not None and before not in self._topics.values():
                del self._answers[before]  # nobody can ask for it any more
            self.taught = [*self.taught, Entry(question, answer)]
        self._choices, self._rejected = (), [topic]
        return Reply("answer", answer, learned=before != topic)

    def _undo(self) -> Reply:
        if not self.taught:
            return Reply("told", "Nothing was taught.")
        *self.taught, last = self.taught
        self._forget_question()
        self._start()
        return Reply("told", f"Forgotten: {last.question}", learned=True)

    def _title(self, topic: str) -> str:
        """How a person is asked whether they mean it."""
        return next(known.name for known in self._task.examples if known.label == topic)

    def _judged(self) -> Verdict:
        """Of the last question; one that is known word for word was not judged yet."""
        assert self._question is not None
        if self._verdict is None:
            self._verdict = self._task.answer(self._question)
        return self._verdict

    def _ranked(self, verdict: Verdict) -> list[str]:
        """Topics, the likeliest first."""
        return sorted(verdict.probabilities, key=lambda topic: -verdict.probabilities[topic])

    def _forget_question(self) -> None:
        self._question, self._verdict, self._choices, self._rejected = None, None, (), []


def _plain(text: str) -> str:
    """The same for what differs in case, blanks and the mark at the end alone."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).strip(" ?!.…¿¡\"'") or text
