"""The card as one HTML file: the Markdown, with the figures inside. No script, nothing from elsewhere."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token

from quickstudy.report.evidence import SHORT
from quickstudy.stats.intervals import OURS

CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: #1b1f24; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; overflow-wrap: break-word; }
main { max-width: 68rem; margin: 2rem auto; padding: 2.5rem 3.5rem 3rem; background: #fff; border: 1px solid #e1e5ea;
  border-radius: 12px; }
h1 { margin: 0 0 .6rem; font-size: 2rem; line-height: 1.2; letter-spacing: -.01em; }
h2 { margin: 2.8rem 0 .8rem; padding-top: 1.6rem; border-top: 1px solid #e1e5ea; font-size: 1.4rem; line-height: 1.25; }
h3 { margin: 1.8rem 0 .4rem; font-size: 1.08rem; }
p, ul { margin: .6rem 0; }
p, li { max-width: 46rem; }
p:has(> picture) { max-width: none; }
ul { padding-left: 1.2rem; }
li { margin: .3rem 0; }
h1 + p { font-size: 1.12rem; color: #3d4650; }
code { font: .88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  background: #f1f3f6; padding: .1em .3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { background: #f6f8fa; border: 1px solid #e1e5ea; border-radius: 8px; padding: .9rem 1.1rem; overflow-x: auto; }
pre code { background: none; padding: 0; overflow-wrap: normal; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
th { color: #59636e; font-weight: 600; text-align: left; vertical-align: bottom; border-bottom: 2px solid #d5dae0; }
th, td { padding: .35rem .35rem; }
tr > :first-child { padding-left: 0; }
td { border-bottom: 1px solid #edf0f3; vertical-align: top; }
.numbers td, .numbers th { white-space: nowrap; }
.numbers th { white-space: normal; min-width: 5.2rem; }
.scroll td:last-child { min-width: 13rem; }
.numbers td:last-child { min-width: 0; }
.methods td:nth-child(3) { color: #0072b2; background: #f2f8fc; }
.methods td:nth-child(3), .methods th:nth-child(3) { padding-left: .7rem; }
.numbers td:first-child, .numbers th:first-child { position: sticky; left: 0; background: #fff; }
picture img { display: block; width: 100%; height: auto; margin: 1.2rem 0; }
dl.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem; margin: 1.4rem 0; }
dl.tiles div { display: flex; flex-direction: column-reverse; justify-content: flex-end; padding: .9rem 1rem;
  background: #f2f8fc; border-radius: 10px; }
dl.tiles dt { color: #59636e; font-size: .85rem; }
dl.tiles dd { margin: 0; color: #0072b2; font-size: 1.7rem; font-weight: 700; line-height: 1.2; }
@media (max-width: 640px) {
  body { background: #fff; }
  main { margin: 0; padding: 1.2rem 1rem 2rem; border: 0; border-radius: 0; }
  h1 { font-size: 1.55rem; }
  h2 { font-size: 1.25rem; margin-top: 2rem; padding-top: 1.2rem; }
  dl.tiles { grid-template-columns: 1fr 1fr; }
  table { font-size: .78rem; }
  th, td { padding: .3rem .25rem; }
  .numbers th { min-width: 3rem; }
}
@media print { body { background: #fff; } main { border: 0; margin: 0; padding: 0; max-width: none; } }
"""


def html_page(text: str, wide: Mapping[str, bytes], narrow: Mapping[str, bytes]) -> str:
    """Args:
    text: the card in Markdown. HTML in it is shown, not obeyed.
    wide, narrow: PNG bytes by the file name that the Markdown links to; the narrow ones are for phones.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = _marked(parser.parse(text))
    title = next(tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open")

    def image(tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        token = tokens[index]
        name = str(token.attrs["src"])
        alt = escapeHtml("".join(child.content for child in token.children or []))
        return (
            f'<picture><source media="(max-width: 640px)" srcset="{_data(narrow[name])}">'
            f'<img src="{_data(wide[name])}" alt="{alt}"></picture>'
        )

    parser.renderer.rules["image"] = image  # type: ignore[attr-defined]
    body = parser.renderer.render(tokens, parser.options, {})
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escapeHtml(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n"
        "</html>\n"
    )


def _marked(tokens: Sequence[Token]) -> list[Token]:
    """The first table as tiles of a number and its meaning; the others in boxes that scroll on a narrow screen."""
    result: list[Token] = []
    first = True
    i = 0
    while i < len(tokens):
        token = tokens[i]
        if token.type != "table_open":
            result.append(token)
            i += 1
            continue
        end = next(j for j in range(i, len(tokens)) if tokens[j].type == "table_close")
        table = tokens[i : end + 1]
        if first:
            cells = [escapeHtml(cell.content) for cell in table if cell.type == "inline"]
            half = len(cells) // 2
            tiles = zip(cells[:half], cells[half:], strict=True)
            result.append(_html("".join(f"<div><dt>{what}</dt><dd>{value}</dd></div>" for what, value in tiles), "dl"))
        else:
            last = [cell for cell in table if cell.type == "th_open"][-1]
            kind = "scroll numbers" if "right" in str(last.attrs.get("style")) else "scroll"
            if any(cell.content == SHORT[OURS] for cell in table if cell.type == "inline"):
                kind += " methods"
            # Focusable, so that the keyboard can scroll it too.
            result += [_html(f'<div class="{kind}" tabindex="0">'), *table, _html("</div>")]
        first = False
        i = end + 1
    return result


def _html(content: str, tag: str = "") -> Token:
    whole = f'<{tag} class="tiles">{content}</{tag}>' if tag else content
    return Token("html_block", "", 0, content=f"{whole}\n")


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
