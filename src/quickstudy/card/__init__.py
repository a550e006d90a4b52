"""The model card: what the stages built, told on one page, in Markdown and as one HTML file, with its figures.

A pure function of its inputs: the same files give the same bytes.
"""

from pathlib import Path

from quickstudy.card import figures
from quickstudy.card.failures import episodes_to_look_at
from quickstudy.card.page import html_page
from quickstudy.card.text import markdown
from quickstudy.report.evidence import read_evidence

LARGEST = 1_000_000  # bytes of the page, with its figures
DPI = (144, 110, 84, 64, 48)  # the first that the page stays below it with


def write_card(build: Path, out: Path, data: Path | None = None, gate: Path | None = None) -> None:
    """Write card.md, card.html and the figures that they show.

    Args:
        build: the stages' outputs: tasks, model, meta_train, evaluate.
        out: folder for the card.
        data: the data root, for licences and sources; by default the one beside ``build``.
        gate: what the gate left, where it was asked about this version: verdict.json (`gate.Verdict.record`),
            champion.parquet (the champion's rows on the same frozen episodes, as evaluate/episodes.parquet has them;
            not read where the verdict knows no champion) and, if it is there, lineage.json of the version's run. The
            card then also says what the gate said, and how the version compares with the champion.

    Raises:
        QuickstudyError: a file of an earlier stage is missing, or the champion answered other episodes.
    """
    evidence = read_evidence(build, data if data is not None else build.parent / "data", gate)
    shown = episodes_to_look_at(evidence)
    for dpi in DPI:
        wide, narrow = (figures.draw(evidence, shown, narrow, dpi) for narrow in (False, True))
        text = markdown(evidence, shown, set(wide))
        page = html_page(text, wide, narrow)
        if len(page.encode()) <= LARGEST:
            break
    out.mkdir(parents=True, exist_ok=True)
    for name, png in wide.items():
        (out / name).write_bytes(png)
    (out / "card.md").write_text(text, encoding="utf-8")
    (out / "card.html").write_text(page, encoding="utf-8")
