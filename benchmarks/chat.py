"""What a chat on 30 answers says: right, wrong, asked back, not known; and what it says out of its scope.

    .venv/bin/python benchmarks/chat.py FOLDER [--model models:/quickstudy@champion] [--datasets ../shared/datasets]
        [--split test]

30 of CLINC150's intents are the answers, each with 1 to 5 ways to ask drawn from its training part; 10 draws. Asked are
all questions of these intents in the test part, and its questions out of scope. Every question goes through
`quickstudy.serving.chat.chat` itself, with `chat.close` and `chat.false_alarm` of params.yaml. `--split validation`
asks val and oos_val, tries other numbers too, and writes nothing: by that they were chosen. Vectors are kept in FOLDER.
Intervals are 95%, Student's t over the draws.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from open_set import PARTS, PROJECT, Part, arguments, percent, read, trained, vectors
from torch import Tensor

from quickstudy.adaptation.adapted import AdaptedTask, Task, adapt, answer
from quickstudy.adaptation.taught import Example, Neighbour
from quickstudy.config import load_settings
from quickstudy.model.metamodel import MetaModel
from quickstudy.serving.chat.chat import Chat, Entry
from quickstudy.stats.intervals import mean_interval
from quickstudy.system.atomic import write_json
from quickstudy.system.environment import CHAMPION

INTENTS, PHRASINGS, SEEDS = 30, (1, 5), 10
CLOSE, ALARMS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), (0.05, 0.1, 0.15, 0.2)
KNOWN = ("right", "wrong", "asked, with the right one", "asked, without it", "not known")
STRANGE = ("answered", "asked", "not known")


@dataclass
class Said:
    """What an adapted task says of a question."""

    probabilities: dict[str, float]
    unknown: bool
    nearest: Sequence[Neighbour] = ()


@dataclass
class Routed:
    """A task whose texts were encoded before."""

    model: MetaModel
    adapted: AdaptedTask
    examples: list[Example]
    known: dict[str, Tensor] = field(repr=False)

    def answer(self, query: str) -> Said:
        told = answer(self.model, self.adapted, self.known[query][None])
        probabilities = dict(zip(told.names, told.probabilities[0].tolist(), strict=True))
        return Said(probabilities, bool(told.unknown[0] > told.threshold))

    def add(self, examples: list[str], labels: list[str]) -> list[str]:
        raise AssertionError("nothing is taught here")

    def remove(self, ids: list[str]) -> None:
        raise AssertionError("nothing is taught here")


def router(model: MetaModel, known: dict[str, Tensor], alarm: float) -> Callable[[list[str], list[str]], Routed]:
    def made(questions: list[str], topics: list[str]) -> Routed:
        task = Task("classify", "text", tuple(topics), torch.stack([known[question] for question in questions]), "")
        shown = [Example(str(i), topics[i], question) for i, question in enumerate(questions)]
        return Routed(model, adapt(model, task, alarm), shown, known)

    return made


def drawn(train: Part, seed: int) -> list[Entry]:
    """An FAQ; the answer is the intent's name."""
    random, entries = np.random.default_rng(seed), []
    for intent in random.choice(np.unique(train.labels), INTENTS, replace=False):
        count = random.integers(PHRASINGS[0], PHRASINGS[1] + 1)
        rows = random.choice(np.flatnonzero(train.labels == intent), count, replace=False)
        entries += [Entry(" ".join(train.texts[row].split()), str(intent)) for row in rows]
    return entries


def talk(chat: Chat, entries: list[Entry], inside: Part, outside: Part) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of what is said to questions of the FAQ's intents, and to those of none."""
    intents = {entry.answer for entry in entries}
    asks = {entry.question: entry.answer for entry in entries}
    known: Counter[str] = Counter()
    for text, intent in zip(inside.texts, inside.labels, strict=True):
        if intent in intents:
            reply = chat.say(text)
            if reply.kind == "answer":
                known["right" if reply.text == intent else "wrong"] += 1
            elif reply.kind == "unknown":
                known["not known"] += 1
            else:
                offered = intent in {asks[question] for question in reply.choices}
                known["asked, with the right one" if offered else "asked, without it"] += 1
    words = {"answer": "answered", "choose": "asked", "unknown": "not known"}
    strange = Counter(words[chat.say(text).kind] for text in outside.texts)
    return (
        {name: known[name] / known.total() for name in KNOWN},
        {name: strange[name] / strange.total() for name in STRANGE},
    )


def main() -> None:
    asked = arguments(__doc__, CHAMPION, f"{CHAMPION} where none is named")
    model, model_name = trained(asked.model)
    parts = {part: read(asked.datasets, part) for part in ("train", *PARTS[asked.split])}
    known: dict[str, Tensor] = {}
    for name, part in parts.items():
        lines = [" ".join(text.split()) for text in part.texts]  # as a chat reads them
        known |= zip(lines, vectors(asked.folder, model_name, model, name, part), strict=True)

    settings = load_settings(PROJECT / "params.yaml").chat
    tried = [(settings.close, settings.false_alarm)]
    if asked.split == "validation":
        tried = [(close, alarm) for alarm in ALARMS for close in CLOSE]
    faqs = [drawn(parts["train"], seed) for seed in range(SEEDS)]
    print("| close | false alarm | " + " | ".join([*KNOWN, *(f"out of scope: {name}" for name in STRANGE)]) + " |")
    print("|--:" * (2 + len(KNOWN) + len(STRANGE)) + "|")
    for close, alarm in tried:
        told = [
            talk(Chat(router(model, known, alarm), faq, close), faq, *(parts[part] for part in PARTS[asked.split]))
            for faq in faqs
        ]
        shares = {name: [one[0][name] for one in told] for name in KNOWN}
        shares |= {f"out of scope: {name}": [one[1][name] for one in told] for name in STRANGE}
        print(f"| {close:g} | {alarm:g} | " + " | ".join(map(percent, shares.values())) + " |", flush=True)
    if asked.split == "test":
        result = {name: mean_interval(values) for name, values in shares.items()}
        write_json(PROJECT / "benchmarks/results/chat.json", {"close": close, "false_alarm": alarm, **result})


if __name__ == "__main__":
    main()
