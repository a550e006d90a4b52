"""runs: what ran, by itself or by somebody's word, how it ended, and what comes next."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.errors import QuickstudyError
from quickstudy.system.printing import print

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from quickstudy.runs import FlowRun, WorkPool
    from quickstudy.system.terminal import Console

LAST = 20
"""How many runs are shown."""

WIDE = 140
"""Columns of a terminal from which on each run has one line; on a narrower one what belongs together is stacked."""

STYLES = {
    "completed": "green",
    "failed": "red",
    "crashed": "red",
    "cancelled": "dim",
    "running": "cyan",
    "waiting": "yellow",
    "suspended": "bold yellow",
}


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(runs)


def runs(
    name: Annotated[str, typer.Argument(help="One run, in full: its name or identifier.", show_default=False)] = "",
    last: Annotated[int, typer.Option("--last", min=1, help="How many.")] = LAST,
    flow: Annotated[str, typer.Option("--flow", help="Only these: retrain, promote, rollback, reproduce, watch.")] = "",
    state: Annotated[str, typer.Option("--state", help=f"Only these: {', '.join(STYLES)}.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also looks for new data that found none.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """What ran and how it ended, what runs and waits now, and when the schedules start the next.

    Reads Prefect's server where PREFECT_API_URL is set, else what this project's runs without one left.
    """
    from quickstudy.runs import details, open_records, overview
    from quickstudy.system.terminal import Console

    if state and state not in STYLES:
        raise QuickstudyError(f"{state!r} is no state", where="--state", fix=f"Choose of {', '.join(STYLES)}")
    records, console = open_records(), Console()
    if name:
        run, *namesakes = details(records, name)
        if as_json:
            print(_json(asdict(run)))
        else:
            _show_run(console, run)
            if namesakes:
                others = ", ".join(f"{_when(other.when)} {other.id}" for other in namesakes)
                console.print(f"Called so too: {others}", highlight=False, soft_wrap=True)
        return
    found = overview(records, last, flow or None, state or None, everything)
    if as_json:
        print(_json(asdict(found)))
        return
    if found.runs:
        console.print(_table(found.runs, console.width))
    else:
        console.print("No run is so." if flow or state else "Nothing has run yet: quickstudy run")
    _show_next(console, found.pools, found.planned)


def _table(shown: "tuple[FlowRun, ...]", width: int) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 1))
    wide = width >= WIDE
    headings = ("when (UTC)", "run", *(("flow", "started by", "state", "took") if wide else ()), "what happened")
    for heading in headings:
        fixed = heading in ("when (UTC)", "flow", "state", "took")  # what a person wrote may be long
        table.add_column(heading, overflow="fold", no_wrap=fixed, justify="right" if heading == "took" else "left")
    for run in shown:
        when, took, state = _when(run.when), _took(run.seconds), _state(run)
        if wide:
            row = [Text(when), Text(run.name), Text(run.flow), Text(run.started_by), state, Text(took)]
        else:
            stacked = Text(f"{when}\n") + state + Text(f" {took}" if run.seconds is not None else "")
            row = [stacked, Text(f"{run.name}\n") + Text(f"{run.flow}, {run.started_by}", style="dim")]
        table.add_row(*row, Text(run.what))
    return table


def _show_next(console: "Console", pools: "tuple[WorkPool, ...]", planned: Mapping[str, datetime | None]) -> None:
    from rich.text import Text

    if pools:
        console.print()
    for pool in pools:
        workers = f"{pool.online or 'no'} worker{'s' if pool.online > 1 else ''} online"
        line = Text(f"{pool.name}: {pool.running} running, {pool.waiting} waiting, {workers}")
        if pool.waiting and not pool.online:
            line = Text(f"{line}. Start one: quickstudy worker {pool.name}", style="yellow")
        console.print(line, soft_wrap=True)
    for name, when in planned.items():
        then = f"{_when(when)} UTC, {_from_now(when)}" if when else "not planned yet"
        console.print(f"next {name}: {then}", highlight=False, markup=False, soft_wrap=True)


def _show_run(console: "Console", run: "FlowRun") -> None:
    from rich.table import Table
    from rich.text import Text

    facts: dict[str, Any] = {
        "state": _state(run),
        "what happened": run.what if run.what != " ".join(run.error.split()) else "",
        "error": run.error,
        "flow": run.flow + (f", deployment {run.deployment}" if run.deployment else ""),
        "started by": run.started_by,
        "part of": run.parent,
        "pool": run.pool,
        "started": run.when and f"{run.when:%Y-%m-%d %H:%M:%S} UTC",
        "ended": run.ended and f"{run.ended:%Y-%m-%d %H:%M:%S} UTC",
        "took": run.seconds is not None and _took(run.seconds),
        "parameters": "\n".join(
            f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in run.parameters.items()
        ),
        "tags": ", ".join(run.tags),
        "page": run.page,
        "identifier": run.id,
    }
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for fact, value in facts.items():
        if value:
            table.add_row(fact, value if isinstance(value, Text) else Text(value))
    console.print(Text(f" {run.name}", style="bold"))
    console.print(table)
    if run.steps:
        steps = Table(box=None, padding=(0, 1))
        for heading in ("step", "outcome", "took", "note"):
            steps.add_column(heading, overflow="fold", justify="right" if heading == "took" else "left")
        for step in run.steps:
            style = STYLES.get(step.outcome, "")
            steps.add_row(Text(step.step), Text(step.outcome, style=style), Text(_took(step.seconds)), Text(step.note))
        console.print()
        console.print(steps)
    if run.children:
        console.print("\n It handed over:")
        console.print(_table(run.children, console.width))


def _state(run: "FlowRun") -> "Text":
    from rich.text import Text

    return Text(run.state, style=STYLES[run.state])


def _when(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else "–"


def _from_now(moment: datetime) -> str:
    from quickstudy.cli.summary import duration

    return f"in {duration(max(0.0, (moment - datetime.now(UTC)).total_seconds()))}"


def _took(seconds: float | None) -> str:
    from quickstudy.cli.summary import duration

    return "–" if seconds is None else duration(seconds)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, default=datetime.isoformat)
