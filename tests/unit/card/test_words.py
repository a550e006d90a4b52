"""What comes from outside is shown in Markdown and never obeyed, wherever it stands."""

import numpy as np
import pytest
from markdown_it import MarkdownIt

from quickstudy.card.text import TEMPLATES
from quickstudy.report.words import Markdown, bullets, listed, plain, rows

HOSTILE = [
    "# a heading",
    "####### none",
    "- a list",
    "+",
    "1. first",
    "12) twelfth",
    "===",
    "---",
    "> a quote",
    "```",
    "~~~",
    "a | b",
    "<b>bold</b> &amp; **bold** _it_",
    "[link](javascript:alert(1))",
    "![x](http://x/y.png)",
    "two\n\nparagraphs",
    "\u202egnirts",
]


def seen(text: str) -> tuple[str, set[str]]:
    """What a reader sees of Markdown, and the elements that it makes."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inline = [child for token in tokens for child in token.children or []]
    return "".join(child.content for child in inline), {token.type for token in [*tokens, *inline]}


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_shown_as_it_is(text: str) -> None:
    shown, elements = seen(plain(text))
    assert shown == " ".join("".join(c if c.isprintable() else " " for c in text).split())
    assert elements <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}


@pytest.mark.parametrize("text", ["97.3 ± 0.4", "+1.2 ± 0.4 ▲", "−0.8", "–", "1 example", "a_b", "C#", "1.0"])
def test_numbers_and_names_need_no_escapes(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_template_a_table_and_a_list_escape_what_is_not_marked(text: str) -> None:
    template = TEMPLATES.from_string("{% macro twice(it) %}{{ it }} {{ it }}{% endmacro %}{{ twice(text) }}{{ bold }}")
    made = template.render(text=text, bold=Markdown(" **yes**"))
    assert made == f"{plain(text)} {plain(text)} **yes**"
    assert rows([text], [[text]]).splitlines()[2] == f"| {plain(text)} |"
    assert bullets([text, Markdown("*yes*")]) == f"- {plain(text)}\n- *yes*"
    assert listed([text, 1]) == f"{plain(text)} and 1"


def test_what_is_escaped_once_is_not_escaped_again() -> None:
    assert listed([plain("*")]) == plain("*") == r"\*"
    assert rows(["a"], [[plain("*")]]).endswith(r"| \* |")


def test_numbers_of_numpy_are_numbers() -> None:
    assert rows(["a"], [[np.int64(3)]]).endswith("| 3 |")
