"""run and plan: the verbs that drive the whole pipeline."""

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.errors import QuickstudyError
from quickstudy.secrets import redacted
from quickstudy.system.environment import apply_environment, find_project
from quickstudy.system.printing import print

if TYPE_CHECKING:
    from quickstudy.cli.display import Display


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(run)
    app.command()(plan)


def run(
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Of task, whose stages alone are brought up to date.")
    ] = None,
) -> None:
    """Bring everything up to date: data, tasks, training, evaluation, card, registration, the gate's word on a new
    model. What is done is skipped.

    With --kind only the stages of that kind; card and registration follow where the other kinds are up to date too.
    """
    from quickstudy import registry
    from quickstudy.cli.summary import next_steps, score_tables, step_times
    from quickstudy.config import load_settings
    from quickstudy.system.terminal import Console
    from quickstudy.versions import dvc, git
    from quickstudy.versions import stale as stale_

    root = project()
    console = Console()
    start = time.monotonic()
    if kind is not None:
        load_settings(root / "params.yaml").of(kind)  # a name that there is not is told before Prefect starts
    stale, registration = stale_.stale(root), registry.registered(root)
    automatic = load_settings(root / "params.yaml").gate.promotion == "automatic"
    if not stale and registration is not None and registry.unjudged(root, automatic) is None:
        _print_versions(console, root, registration.version, registration.aliases)
        for table in score_tables(root / "build/evaluate"):
            console.print(table)
        console.print("Everything is up to date; nothing was trained or registered.", style="bold green")
        return

    # What would end it after the work is told before.
    registry.check_ledger(root)
    for name, why in git.check_recordable(root).left_out.items():
        print(f"Note: {name} is not recorded with the run: {why}", file=sys.stderr)
    display = drive(root, ["-m", "flows.retrain", *(("--kind", kind) if kind else ())], "run.log")
    done = display.last.get("register", {})
    console.print()
    for table in score_tables(root / "build/evaluate"):
        console.print(table)
    if done.get("version") is not None:
        names = tuple(alias for alias, at in registry.aliases(root).items() if at == done["version"])
        _print_versions(console, root, done["version"], names)
    elif kind is not None:
        others = [name for name in stale_.stale(root) if not name.endswith(f"@{kind}")]
        console.print(
            f"Model  not registered, as other kinds are not up to date ({', '.join(others[:3])}): quickstudy run"
        )
    if verdict := display.last.get("gate", {}).get("verdict"):
        moved = ": it is the champion now" if "move" in display.last else ""
        console.print(f"Gate   {verdict['answer']}{moved}. {verdict['sentence']}", highlight=False, soft_wrap=True)
    console.print(f"Times  {step_times(display.seconds, time.monotonic() - start)}", highlight=False)
    console.print("\nNext:", style="bold")
    console.print(next_steps(uncommitted=dvc.committed_data_hash(root) != dvc.data_hash(root)))


def drive(root: Path, command: list[str], log_name: str) -> "Display":
    """Run a flow in a process of its own, draw its progress and return what it told.

    Raises:
        QuickstudyError: a user's mistake ended it.
        typer.Exit: something else did; the end of its log is on stderr.
    """
    from quickstudy.cli.display import Display
    from quickstudy.system import processes
    from quickstudy.system.progress import asking
    from quickstudy.system.terminal import Console

    log_path = root / ".cache" / log_name
    log_path.parent.mkdir(exist_ok=True)
    with log_path.open("w", encoding="utf-8") as log, Display(Console(stderr=True)) as display:
        display.wait_for("Prefect starts (half a minute the first time)")
        flow = processes.start(
            [sys.executable, *command],
            root,
            asking(1 if sys.stderr.isatty() else None),  # of a bar that moves, more often than of lines
            interrupt="command",
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            assert flow.stdout is not None
            for line in flow.stdout:
                if not display.take(line):
                    log.write(redacted(line))
            code = flow.wait()
        finally:
            processes.stop(flow)
    if display.error is not None:
        raise QuickstudyError(display.error)
    if code != 0:
        tail = "" if display.crash else "".join(log_path.read_text(errors="replace").splitlines(keepends=True)[-15:])
        shown = log_path.relative_to(root)
        print(f"{tail}quickstudy: {display.crash or 'the flow ended early'} (all of it: {shown})", file=sys.stderr)
        raise typer.Exit(1)
    return display


def plan() -> None:
    """Say what is stale and why, and what it took the last time. Changes nothing."""
    from rich.table import Table
    from rich.text import Text

    from quickstudy import registry
    from quickstudy.cli.summary import duration
    from quickstudy.runs.durations import read_durations
    from quickstudy.system.terminal import Console
    from quickstudy.versions import stale as stale_

    root = project()
    stale, took = stale_.stale(root), read_durations(root)
    if not stale and registry.registered(root) is None:
        stale["register"] = ("this model and its evaluation are not registered yet",)
    elif stale:
        stale["register"] = ("after the stages, if their results differ",)
    table = Table(box=None, padding=(0, 1))
    for heading in ("step", "", "why", "last took"):
        table.add_column(heading, justify="right" if heading == "last took" else "left")
    for step in ("data", *(stage.name for stage in stale_.stages(root)), "register"):
        time_text = duration(took[step]) if step in took else "–"
        if step in stale:
            table.add_row(step, Text("stale", style="yellow"), Text("; ".join(stale[step])), time_text)
        else:
            table.add_row(step, Text("up to date", style="green"), "", time_text)
    console = Console()
    console.print(table)
    if not stale:
        console.print("Everything is up to date.", style="bold green")
    elif all(step in took for step in stale):
        console.print(
            f"quickstudy run would take about {duration(sum(took[step] for step in stale))}.", highlight=False
        )


def project() -> Path:
    """Return the project's root, its settings checked before anything is started."""
    from quickstudy.config import load_settings

    root = find_project()
    apply_environment(root)
    load_settings(root / "params.yaml")
    return root


def _print_versions(console: object, root: Path, version: int | None, aliases: tuple[str, ...]) -> None:
    from quickstudy import registry
    from quickstudy.system.terminal import Console
    from quickstudy.versions import dvc

    assert isinstance(console, Console)
    data = dvc.data_hash(root)
    names = "".join(f" @{alias}" for alias in aliases)
    console.print(f"Data   version {data or 'none'}", highlight=False, soft_wrap=True)
    console.print(f"Model  models:/{registry.NAME}/{version}{names}", highlight=False, soft_wrap=True)
