"""What names, texts and errors of anybody's say is shown, and never obeyed, by the terminal or by rich."""

import ast
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from quickstudy.system import progress as progress_
from quickstudy.system.printing import print, printable
from quickstudy.system.terminal import Console
from tests.toy.project import REPOSITORY

EVIL = "[red]x[/red] [link=http://evil]y[/link] :smile: \x1b[31m\x1b]0;title\x07 \x9b31m \u202eabc\u200b [/]"
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u200b\u200e\u200f]")
SAFE = printable(EVIL)
RICH = EVIL.replace("\x07", "")
"""rich leaves a bell out by itself."""


def test_control_characters_are_written_out() -> None:
    assert SAFE == (
        "[red]x[/red] [link=http://evil]y[/link] :smile: \\u001b[31m\\u001b]0;title\\u0007 \\u009b31m "
        "\\u202eabc\\u200b [/]"
    )
    assert printable("Grüße, 你好, नमस्ते,\tA\n") == "Grüße, 你好, नमस्ते,\tA\n"
    value = {"name": EVIL, "tag": "\U000e0041"}
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


def shown(*what: object, terminal: bool = True) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=400, color_system="truecolor" if terminal else None)
    for one in what:
        console.print(one)
    return out.getvalue()


def test_lines_and_tables_show_what_they_are_given() -> None:
    table = Table(RICH, "number", title=RICH, caption=RICH, box=None)
    table.add_row(RICH, "12")
    assert shown(RICH, terminal=False).strip() == printable(RICH)
    told = shown(table, terminal=False)
    assert told.count(printable(RICH)) == 4 and not UNSEEN.search(told)
    colours = re.sub("\x1b\\[[0-9;]*m", "", shown(table))  # rich's own
    assert colours.count(printable(RICH)) == 4 and not UNSEEN.search(colours)


def test_bars_and_what_is_waited_for_show_what_they_are_given() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=400, color_system=None, legacy_windows=False)
    with Progress(TextColumn("{task.description}", markup=False), console=console, transient=False) as bars:
        bars.add_task(RICH, total=1)
    with console.status(RICH):
        pass
    said = out.getvalue()
    assert printable(RICH) in said and RICH not in said
    assert "\x1b]0;" not in said and "\x9b" not in said and "\u202e" not in said


def test_progress_and_errors_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(progress_.EVENTS, raising=False)
    out = io.StringIO()
    progress_.say({"event": "error", "text": EVIL}, out)
    progress_.say({"event": "progress", "what": EVIL, "done": 1, "total": 2}, out)
    print(EVIL, file=out)
    assert out.getvalue() == f"quickstudy: {SAFE}\n{SAFE}: 1 of 2\n{SAFE}\n"
    monkeypatch.setenv(progress_.EVENTS, "1")
    out = io.StringIO()
    progress_.say({"event": "error", "text": EVIL}, out)
    assert progress_.read_event(out.getvalue()) == {"event": "error", "text": EVIL} and not UNSEEN.search(
        out.getvalue()
    )


def _imports(tree: ast.AST) -> dict[str, str]:
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("path", sorted((REPOSITORY / "src/quickstudy/cli").glob("*.py")), ids=lambda path: path.stem)
def test_no_verb_goes_around_it(path: Path) -> None:
    """One console and one print for all verbs; markup is nowhere made of text."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = _imports(tree)
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    if "print" in called:
        assert imported["print"] == "quickstudy.system.printing.print"
    if "Console" in imported:
        assert imported["Console"] == "quickstudy.system.terminal.Console"
    methods = {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert not methods & {"from_markup", "from_ansi", "secho"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "TextColumn":
            options = {option.arg: ast.unparse(option.value) for option in node.keywords}
            assert options.get("markup") == "False"
        if isinstance(node, ast.keyword) and node.arg == "markup":
            assert ast.unparse(node.value) == "False"


# ---- verbs


QUICKSTUDY = str(Path(sys.executable).parent / "quickstudy")
NAMES = "[bold]a[/bold] \x1b[2J"


def call(root: Path, *words: str) -> tuple[int, str]:
    done = subprocess.run([QUICKSTUDY, *words], cwd=root, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_verbs_show_what_people_have_written(three: Path) -> None:
    (three / "data").mkdir(exist_ok=True)
    table = "text,label\n" + "".join(f'"{kind} {i} {NAMES}","{kind} {NAMES}"\n' for kind in "ab" for i in range(6))
    (three / "t.csv").write_text(table)
    code, said = call(
        three, "data", "import", "t.csv", "--name", "notes", "--group", "class", "--licence", f"mine {NAMES}"
    )
    assert code == 0, said
    for words in (("list",), ("check",), ("check", "notes")):
        code, more = call(three, "data", *words)
        said += more
    for words in (
        ("promote", "1", "--approve", "--reason", f"better {NAMES}"),
        ("history", "--accept", "--reason", f"{NAMES}"),
        ("data", "import", f"none {NAMES}.csv", "--name", "x"),
        ("lineage", f"none {NAMES}"),
        ("history", "--on", NAMES),
    ):
        said += call(three, *words)[1]
    assert "[bold]a[/bold]" in said and "\\u001b[2J" in said and "\x1b" not in said


def test_what_is_asked_for_as_a_file_is_written_before_anything_is_shown(three: Path) -> None:
    """A reader who has gone, as `| head` does, costs no result."""
    for name in ("one", "two"):
        (three / f"inbox/{name}").mkdir(parents=True)
        (three / f"inbox/{name}/broken.csv").write_text("x\n")
    command = f"exec 3>&1; {QUICKSTUDY} data take --json found.json >&- 2>/dev/null"
    subprocess.run(["bash", "-c", command], cwd=three)
    assert isinstance(json.loads((three / "found.json").read_text()), list)
