"""messages: customers who want one, two or three things at once, by the grammar of the phrasebook. Kind tag, text.

A group is a service (a bank, a travel agency, a household assistant); its tags are what a message may be about.
"""

import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from quickstudy.data.dataset import DatasetInfo, Split, make_table
from quickstudy.starter import phrasebook
from quickstudy.starter.work import Progress, generator, silent

COUNT = 420
"""Messages of a group."""
MANY = (0.45, 0.40, 0.15)
"""How often a message is about one thing, two, three."""
JOINTS = (
    "{a}. {B}",
    "{a}. also, {b}",
    "{a}, and {b}",
    "{a}. and another thing: {b}",
    "{a}. besides that {b}",
    "hi, two things. {a}, then {b}",
    "{a}; {b}",
    "{a}. oh, and {b}",
    "{a}. {B} thanks",
)
PINNED: dict[str, Split] = {"finance": "test", "cooking": "test", "health": "test", "travel": "validation"}
"""Ten groups are few for a hash to spread; the others are learned from."""


def build(progress: Progress = silent, limit: int | None = None) -> tuple[DatasetInfo, pa.Table]:
    """Write the dataset.

    Args:
        progress: told (done, total) in groups.
        limit: messages a group, for tests; None for all.
    """
    intents: dict[str, list[str]] = {}
    for label in phrasebook.labels():
        group, _, name = label.partition("/")
        if group not in phrasebook.COUNT:
            intents.setdefault(group, []).append(name)
    texts: list[str] = []
    targets: list[list[str]] = []
    groups: list[str] = []
    for done, (group, names) in enumerate(intents.items(), 1):
        for text, tags in _messages(group, names, min(COUNT, limit or COUNT)):
            texts.append(text)
            targets.append(tags)
            groups.append(group)
        progress(done, len(intents))
    info = DatasetInfo(
        name="messages",
        modality="text",
        kind="tag",
        description="Messages from a small grammar, each about one, two or three of the things that customers of "
        f"{len(intents)} services want.",
        licence="Apache-2.0 (part of quickstudy)",
        source="quickstudy.starter.messages",
        group="service",
        meta_split=PINNED,
        episode_scope="group",
    )
    return info, make_table("text", texts, targets, groups, kind="tag")


def _messages(group: str, names: list[str], count: int) -> Iterable[tuple[str, list[str]]]:
    rng = generator("messages", group)
    parts = {name: phrasebook.versions(f"{group}/{name}", "messages", count) for name in names}
    seen: set[str] = set()
    while len(seen) < count:
        size = 1 + int(rng.choice(len(MANY), p=MANY))
        chosen = [names[i] for i in rng.permutation(len(names))[:size]]
        text = _joined([parts[name][rng.integers(len(parts[name]))] for name in chosen], rng)
        if text not in seen:
            seen.add(text)
            yield text, sorted(chosen)


def _joined(parts: list[str], rng: np.random.Generator) -> str:
    text = parts[0]
    for part in parts[1:]:
        bare = re.sub(r"[.?!]+$", "", text)
        after = re.sub(r"^(\w)", lambda match: match[1].lower(), part) if not part.startswith("I ") else part
        text = JOINTS[rng.integers(len(JOINTS))].format(a=bare, b=after, B=part)
    return text
