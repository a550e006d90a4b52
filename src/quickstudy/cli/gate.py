"""gate: champion and challenger answer today's episodes, and the gate says its word. Moves nothing."""

from typing import Annotated, Any

import typer

from quickstudy.errors import GATE_CODES, QuickstudyError
from quickstudy.system.printing import print


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(gate)


def gate(
    version: Annotated[
        str, typer.Argument(metavar="[VERSION]", help="The challenger: a number or an alias.")
    ] = "challenger",
    against: Annotated[str, typer.Option(help="The champion: a number or an alias, or none.")] = "champion",
    as_json: Annotated[bool, typer.Option("--json", help="The verdict with every rule's figures, as JSON.")] = False,
) -> None:
    """Is it better, or lucky? Both models answer today's meta-test episodes; the gate says PROMOTE, HOLD or REJECT.

    Each kind of task has rules of its own, and one verdict stands over them: no kind may lose, and one has to gain.
    What that is stands in params.yaml under gate. Nothing is moved: `quickstudy promote` asks the same and then moves.
    Exit code 0 is PROMOTE, 3 HOLD, 4 REJECT.
    """
    import json
    import os

    from quickstudy import registry
    from quickstudy.cli.pipeline import project
    from quickstudy.config import load_settings
    from quickstudy.pipeline.gate import judge_versions
    from quickstudy.system.progress import showing_progress
    from quickstudy.system.terminal import Console

    root = project()
    os.chdir(root)
    challenger = registry.version(root, version).number
    champion = registry.version(root, against).number if against != "none" else None
    if champion == challenger:
        raise QuickstudyError(
            "is the champion: it would be compared with itself" if against == "champion" else "compared with itself",
            where=f"models:/{registry.NAME}/{challenger}",
            fix="Name another: quickstudy gate VERSION --against OTHER",
        )
    with showing_progress() as progress:
        verdict = judge_versions(root, load_settings(), challenger, champion, progress)
    if as_json:
        print(json.dumps(verdict.record(), indent=1, ensure_ascii=False))
    else:
        show_verdict(Console(), verdict.record())
    raise typer.Exit(GATE_CODES[verdict.answer])


def show_verdict(console: Any, verdict: dict[str, Any]) -> None:
    """The answer, the sentence and a row for each rule."""
    from rich.table import Table
    from rich.text import Text

    from quickstudy.evaluation.rules import Rule

    tones = {"passed": "green", "open": "yellow", "failed": "red", "PROMOTE": "green", "HOLD": "yellow"}
    console.print(Text(verdict["answer"], style=f"bold {tones.get(verdict['answer'], 'red')}"))
    console.print(verdict["sentence"], highlight=False, soft_wrap=True)
    if len(kinds := verdict.get("kinds", {})) > 1:  # verdicts of before there were kinds do not name any
        answers = [Text(f"{kind}: {answer}", style=tones.get(answer, "red")) for kind, answer in kinds.items()]
        console.print(Text(", ").join(answers))
    table = Table(box=None, padding=(0, 1))
    for heading in ("rule", "gain", f"{100 * verdict['confidence']:.0f}% interval", "asked", ""):
        table.add_column(heading, justify="right" if heading == "gain" else "left")
    for record in verdict["rules"]:
        rule = Rule.of(record)
        table.add_row(*map(Text, rule.cells()), Text(rule.state, style=tones[rule.state]))
    console.print(table)
    if verdict["episodes"]:
        console.print(
            f"{verdict['episodes']:,} episodes for each of {', '.join(verdict['datasets'])} and number of shots, "
            "the same for both",
            highlight=False,
            soft_wrap=True,
        )
    else:
        console.print("Nobody answered: no part of the model changed.", highlight=False)
