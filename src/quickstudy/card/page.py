"""The card as one HTML file: the Markdown, with the figures inside. No script, nothing from elsewhere."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markdown_it.token import Token

from quickstudy.report.evidence import QUICKSTUDY

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def html_page(text: str, wide: Mapping[str, bytes], narrow: Mapping[str, bytes]) -> str:
    """Return the page.

    Args:
        text: the card in Markdown. HTML in it is shown, not obeyed.
        wide: WebP bytes by the file name that the Markdown links to.
        narrow: those for phones; where one is left out, phones show the wide one.
    """
    elements: Any = TEMPLATES.get_template("parts.html.jinja").module
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = [*_arranged(parser.parse(text), elements)]
    title = next(tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open")

    def image(tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        name = str(token.attrs["src"])
        alternative = "".join(child.content for child in token.children or [])
        return elements.picture(_data(narrow[name]) if name in narrow else "", _data(wide[name]), alternative)

    parser.renderer.rules["image"] = image  # type: ignore[attr-defined]
    body = parser.renderer.render(tokens, parser.options, {})
    return TEMPLATES.get_template("page.html.jinja").render(title=title, body=body) + "\n"


def _arranged(tokens: Sequence[Token], elements: Any) -> Iterable[Token]:
    """Yield the tables of the beginning as tiles of a number and its meaning, the others in boxes that scroll on a
    narrow screen."""
    headings = 0
    table: list[Token] | None = None
    for token in tokens:
        headings += token.type == "heading_open"
        if token.type == "table_open":
            table = []
        if table is None:
            yield token
            continue
        table.append(token)
        if token.type == "table_close":
            if headings > 1:  # one is the title
                yield from (_html(elements.box(" ".join(_classes(table)))), *table, _html("</div>\n"))
            else:
                cells = _texts(table)
                half = len(cells) // 2
                yield _html(elements.tiles(list(zip(cells[:half], cells[half:], strict=True))))
            table = None


def _classes(table: Sequence[Token]) -> Iterable[str]:
    yield "scroll"
    last = [cell for cell in table if cell.type == "th_open"][-1]
    if "right" in str(last.attrs.get("style")):
        yield "numbers"
    if QUICKSTUDY in _texts(table):
        yield "methods"


def _texts(table: Sequence[Token]) -> list[str]:
    return [cell.content for cell in table if cell.type == "inline"]


def _html(content: str) -> Token:
    return Token("html_block", "", 0, content=content)


def _data(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
