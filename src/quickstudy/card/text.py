"""The card in Markdown: the template beside this file, filled in."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from quickstudy.card import costs, datasets, figures, gate, results
from quickstudy.card.part import Absent, Part
from quickstudy.report.evidence import QUICKSTUDY, GateWord
from quickstudy.report.words import Markdown, capital, figure, listed, plain

PLURALS = {"image": "images", "audio": "recordings", "text": "texts"}


def _escaped(value: object) -> object:
    """Return what a template puts in so that Markdown does not obey it."""
    return value if hasattr(value, "__html__") else plain(value)


# Jinja escapes for HTML what is not marked as safe. All is marked once it is escaped for Markdown instead.
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    finalize=_escaped,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def markdown(parts: Sequence[Part], absent: Sequence[Absent], word: GateWord | None, build: Path) -> str:
    """Return the whole card.

    Args:
        parts: one a kind of task.
        absent: the kinds that the model has no part for.
        word: what the gate said, where it was asked.
        build: the folder that all was read from.
    """
    several = len(parts) > 1
    text = TEMPLATES.get_template("card.md.jinja").render(
        parts=parts,
        absent=absent,
        several=several,
        h=Markdown("###" if several else "##"),  # of the headings in a kind's part
        tasks=[part.shown.task for part in parts],
        reads=_reads(parts),
        gate=word,
        rules=gate.rules,
        beside_champion=gate.beside_champion,
        results=results,
        costs=costs,
        datasets=datasets,
        facts=list(_facts(parts, word)),
        link=_link,
        weights_file=lambda part: f"build/{part.evidence.weights_file.relative_to(build).as_posix()}",
        listed=listed,
        code=_code,
        capital=capital,
        QUICKSTUDY=QUICKSTUDY,
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _reads(parts: Sequence[Part]) -> Markdown:
    modalities = dict.fromkeys(name for part in parts for name in part.evidence.modalities)
    return listed(PLURALS.get(name, name) for name in modalities)


def _link(part: Part, name: str) -> Markdown:
    told = figures.ALTERNATIVES[name].format(score=part.shown.score, per=f" {part.shown.per}" if part.shown.per else "")
    return figure(part.evidence.kind, name, capital(told))


def _code(value: object) -> Markdown:
    """Return what stands between backticks or in a block of code, where nothing can be escaped."""
    return Markdown(" ".join(str(value).replace("`", " ").split()))


def _facts(parts: Sequence[Part], word: GateWord | None) -> Iterable[tuple[str, object]]:
    """Return what the model was built from, and its weights."""
    known = word.lineage if word is not None else {}
    for what, name in (("git commit", "git_commit"), ("data (DVC)", "data_hash")):
        if known.get(name) is not None:
            yield what, known[name]
    for part in parts:
        of = f" of {part.evidence.kind}" if len(parts) > 1 else ""
        if part.evidence.lineage.get("seed") is not None:
            yield f"seed{of}", part.evidence.lineage["seed"]
        yield f"weights{of} (SHA-256)", part.evidence.weights
