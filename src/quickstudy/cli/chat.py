"""Talk to a list of questions and answers."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.sources import NOTHING, How, reads_source
from quickstudy.cli.tasks import PANEL, ModelOption
from quickstudy.system.atomic import draft
from quickstudy.system.environment import CHAMPION
from quickstudy.system.printing import print

if TYPE_CHECKING:
    from quickstudy.serving.chat.chat import Entry


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=PANEL)(chat)


_OF_MANY = ("kind", "modality", "separator", "label_columns", "group", "domain", "pattern")


@reads_source(without=_OF_MANY, default=lambda: {"content": "question", "label": "answer"})
def chat(
    faq: Annotated[Path, typer.Argument(help="A table (.csv, .jsonl, .parquet …) with the columns question, answer.")],
    learned: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep what is taught in this file (.jsonl), and begin with it.")
    ] = None,
    how: How = NOTHING,
    model: ModelOption = CHAMPION,
    close: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Ask back where the second answer has this share of the first's probability."),
    ] = None,
    false_alarm: Annotated[
        float | None, typer.Option(min=0.001, max=0.5, help="Share of known questions that may be called unknown.")
    ] = None,
) -> None:
    """Talk to an FAQ: it answers, asks back between two close answers, says when it does not know, and learns.

    A row is a way to ask and its answer; one to five rows share an answer. A line of yours is a question; what you
    teach counts from the next one on. Ctrl-D ends it.

    [dim]quickstudy chat docs/faq.csv --learned taught.jsonl[/dim]

    Where two answers are close you are asked which one you mean: say its number, or 0 for neither. And:

    [dim]/teach ANSWER[/dim]  this is the answer to my last question

    [dim]/wrong[/dim]  that was not the answer; shows the next likely ones

    [dim]/why[/dim]  the known questions that the last one lies nearest

    [dim]/undo[/dim]  forget what was taught last

    It reads a pipe as well: [dim]echo "When do you open?" | quickstudy chat docs/faq.csv[/dim]
    """
    from quickstudy.client import Quickstudy
    from quickstudy.config import load_settings
    from quickstudy.serving.chat.chat import Chat
    from quickstudy.system.environment import find_project

    settings = load_settings(find_project() / "params.yaml")
    entries, taught = _read_faq(faq, how), _read_learned(learned)
    share = settings.chat.close if close is None else close
    alarm = settings.chat.false_alarm if false_alarm is None else false_alarm
    qs = Quickstudy.load(model)
    talk = Chat(
        lambda questions, answers: qs.adapt(questions, answers, modality="text", false_alarm=alarm),
        entries,
        share,
        taught,
    )
    if sys.stdin.isatty():
        known = f"{len({entry.answer for entry in entries})} answers to {len(entries)} questions"
        print(f"{known}, and {len(taught)} that were taught. /help helps, Ctrl-D ends.")
    for line in _lines():
        reply = talk.say(line)
        print(reply, flush=True)
        if reply.learned and learned is not None:
            _keep(talk.taught, learned)
    if learned is None and talk.taught:
        print(f"{len(talk.taught)} that were taught are forgotten now; --learned FILE keeps them", file=sys.stderr)


def _lines() -> Iterator[str]:
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    import readline  # noqa: F401 (the arrow keys work)

    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


def _read_faq(path: Path, how: How) -> "list[Entry]":
    from quickstudy.ingest.importers.source import import_source
    from quickstudy.serving.chat.chat import Entry

    options = how.options(kind="classify", modality="text", group="none")
    _, table = import_source(path, "faq", options, note=lambda line: print(f"Note: {line}", file=sys.stderr))
    pairs = zip(table.column("text").to_pylist(), table.column("label").to_pylist(), strict=True)
    return [Entry(question, answer) for question, answer in pairs]


def _read_learned(path: Path | None) -> "list[Entry]":
    from quickstudy.errors import QuickstudyError
    from quickstudy.ingest.importers.options import ImportOptions
    from quickstudy.ingest.importers.source import read_queries
    from quickstudy.serving.chat.chat import Entry

    if path is not None and path.suffix != ".jsonl":
        raise QuickstudyError("what is taught is kept as JSON Lines", where=path, fix="Name it .jsonl")
    if path is None or not path.exists() or not path.stat().st_size:
        return []
    asked = read_queries(path, ImportOptions(kind="classify", modality="text", content="question", label="answer"))
    if asked.targets is None:
        raise QuickstudyError("a question has no answer", where=path, fix="Give it one, or remove its line")
    return [Entry(question, answer) for question, answer in zip(asked.contents, asked.targets, strict=True)]


def _keep(taught: "list[Entry]", path: Path) -> None:
    with draft(path) as part:
        lines = [json.dumps({"question": one.question, "answer": one.answer}, ensure_ascii=False) for one in taught]
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
