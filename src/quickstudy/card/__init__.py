"""The model card: what the stages built, told on one page, in Markdown and as one HTML file, with its figures.

A pure function of its inputs: the same files give the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from quickstudy.card import figures
from quickstudy.card.page import html_page
from quickstudy.card.part import Absent, Part
from quickstudy.card.text import markdown
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.shown import SHOWN
from quickstudy.report.evidence import GateWord, evidence_folders, read_evidence, read_gate, without_part
from quickstudy.report.style import webp

LARGEST = 1_000_000  # bytes of the page, with its figures
# Of the figures, and whether phones are given narrow ones of their own: the first that the page stays below it with.
DPI = ((144, True), (128, True), (110, True), (84, True), (64, True), (64, False), (48, False), (36, False))


def write_card(build: Path, out: Path, data: Path | None = None, gate: Path | None = None) -> None:
    """Write card.md, card.html and the figures that they show.

    Args:
        build: the stages' outputs: tasks, model, meta_train, evaluate, of each kind of task.
        out: folder for the card.
        data: the data root, for licences and sources; by default the one beside ``build``.
        gate: what the gate left, where it was asked about this version: verdict.json (`gate.Verdict.record`),
            champion.parquet (the champion's rows on the same frozen episodes, as evaluate/episodes.parquet has them;
            not read where the verdict knows no champion) and, if it is there, lineage.json of the version's run. The
            card then also says what the gate said, and how the version compares with the champion.

    Raises:
        QuickstudyError: a file of an earlier stage is missing, there is no model, or the champion answered other
            episodes.
    """
    word = None if gate is None else read_gate(gate)
    parts = read_parts(build, data if data is not None else build.parent / "data", word)
    text = markdown(parts, read_absent(build), word, build)
    wide, page = _drawn(parts, text)
    out.mkdir(parents=True, exist_ok=True)
    for name, png in wide.items():
        (out / name).write_bytes(png)
    (out / "card.md").write_text(text, encoding="utf-8")
    (out / "card.html").write_text(page, encoding="utf-8")


def _drawn(parts: Sequence[Part], text: str) -> tuple[Mapping[str, bytes], str]:
    """Return the wide figures, and the page with all of them, as fine as the page's size allows."""
    bytes_a_dot = 0.0
    for dpi, phones in DPI:
        dots = dpi * (2 if phones else 1)
        # Bytes grow about as the resolution does (measured): what would be far too many is not drawn first.
        if bytes_a_dot * dots > 1.2 * LARGEST and (dpi, phones) != DPI[-1]:
            continue
        wide = figures.draw(parts, False, dpi)
        page = html_page(text, _packed(wide), _packed(figures.draw(parts, True, dpi)) if phones else {})
        if (size := len(page.encode())) <= LARGEST:
            break
        bytes_a_dot = size / dots
    return wide, page


def _packed(pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: webp(png) for name, png in pictures.items()}


def read_parts(build: Path, data: Path, word: GateWord | None) -> list[Part]:
    """Read the evidence of every kind of task that the model has a part for.

    Args:
        data: the data root.
        word: what the gate said, where it was asked.

    Raises:
        QuickstudyError: a file is missing, or the model has no part at all.
    """
    folders = {kind: evidence_folders(build, kind) for kind in SHOWN}
    kinds = [kind for kind, one in folders.items() if one.model.is_dir() and without_part(one) is None]
    if not kinds:
        raise QuickstudyError(
            "there is no model to write a card of", where=build / "model", fix="`quickstudy run` trains one"
        )
    return [Part(SHOWN[kind], read_evidence(kind, folders[kind], data), word) for kind in kinds]


def read_absent(build: Path) -> list[Absent]:
    """Read of which kinds of task the model has no part, and why."""
    found = {kind: without_part(evidence_folders(build, kind)) for kind in SHOWN}
    return [Absent(SHOWN[kind], why) for kind, why in found.items() if why is not None]
