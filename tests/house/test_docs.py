"""What people read first: short enough to be read, and every link leads somewhere."""

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("README.md", "docs/*.md", "benchmarks/**/*.md", "mlruns/*.md")
    for path in REPOSITORY.glob(pattern)
)
MARKDOWN = MarkdownIt("commonmark").enable("table")


def tokens(path: Path) -> list[Token]:
    return MARKDOWN.parse(path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: list[str] = []
    parsed = tokens(path)
    for place, token in enumerate(parsed):
        if token.type == "heading_open":
            words = "".join(part.content for part in parsed[place + 1].children or [])
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            again = found.count(name)
            found.append(name)
            if again:
                found.append(f"{name}-{again}")
    return set(found)


def links(path: Path) -> list[str]:
    inline = [part for token in tokens(path) for part in token.children or []]
    found = [part.attrGet("href") if part.type == "link_open" else part.attrGet("src") for part in inline]
    return [str(link) for link in found if link and not re.match(r"[a-z]+:", str(link))]


def test_the_readme_is_read_in_two_minutes() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").split()) <= 1000


def test_the_readme_leads_to_every_page() -> None:
    assert {f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")} <= set(links(REPOSITORY / "README.md"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for link in links(REPOSITORY / page):
        name, _, anchor = link.partition("#")
        target = (REPOSITORY / page).parent / name if name else REPOSITORY / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES)
def test_tables_are_tables(page: str) -> None:
    """A row with a cell more or less is cut or filled by whatever shows it, without a word."""
    lines = (REPOSITORY / page).read_text(encoding="utf-8").splitlines()
    for token in tokens(REPOSITORY / page):
        if token.type == "table_open":
            begin, end = token.map or (0, 0)
            widths = [len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line))) for line in lines[begin:end]]
            assert len(set(widths)) == 1, (begin + 1, widths)


@pytest.mark.parametrize("page", PAGES)
def test_no_row_stands_outside_a_table(page: str) -> None:
    outside = [
        token.content
        for token in tokens(REPOSITORY / page)
        if token.type == "inline" and re.search(r"^\|.*\|$", token.content, re.M)
    ]
    assert outside == []
