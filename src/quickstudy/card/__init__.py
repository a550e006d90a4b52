"""The model card: what the stages built, told on one page, in Markdown and as one HTML file, with its figures.

A pure function of its inputs: the same files give the same bytes.
"""

from pathlib import Path

from quickstudy.card import figures
from quickstudy.card.evidence import read_evidence
from quickstudy.card.page import html_page
from quickstudy.card.text import markdown


def write_card(build: Path, out: Path, data: Path | None = None) -> None:
    """Write card.md, card.html and the figures that they show.

    Args:
        build: the stages' outputs: tasks, model, meta_train, evaluate.
        out: folder for the card.
        data: the data root, for licences and sources; by default the one beside ``build``.

    Raises:
        QuickstudyError: a file of an earlier stage is missing.
    """
    evidence = read_evidence(build, data if data is not None else build.parent / "data")
    wide, narrow = figures.draw(evidence, narrow=False), figures.draw(evidence, narrow=True)
    text = markdown(evidence, shown=set(wide))
    page = html_page(text, wide, narrow)
    out.mkdir(parents=True, exist_ok=True)
    for name, png in wide.items():
        (out / name).write_bytes(png)
    (out / "card.md").write_text(text, encoding="utf-8")
    (out / "card.html").write_text(page, encoding="utf-8")
