"""The card as a reader sees it."""

import re
from html.parser import HTMLParser
from pathlib import Path

from quickstudy.card import read_absent, read_parts
from quickstudy.card.page import html_page
from quickstudy.card.text import markdown
from quickstudy.report.evidence import read_gate


def card(build: Path, gate: Path | None = None) -> tuple[str, str]:
    """Its Markdown and its page, with pictures left blank: they take seconds to draw."""
    word = None if gate is None else read_gate(gate)
    text = markdown(read_parts(build, build.parent / "data", word), read_absent(build), word, build)
    pictures = dict.fromkeys(re.findall(r"\]\((\w+\.png)\)", text), b"")
    return text, html_page(text, pictures, pictures)


def table_after(text: str, heading: str) -> list[dict[str, str]]:
    """The first Markdown table after a heading."""
    lines = text[text.index(heading) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return [dict(zip(found[0], cells, strict=True)) for cells in found[2:]]


class Page(HTMLParser):
    """Elements with their attributes, and the text that a reader sees."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
