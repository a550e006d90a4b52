"""run, plan and ui: the verbs that drive the whole pipeline."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from quickstudy.environment import apply_environment, find_project
from quickstudy.errors import QuickstudyError

if TYPE_CHECKING:
    from quickstudy.cli.display import Display


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(run)
    app.command()(plan)
    app.command()(ui)


def run() -> None:
    """Bring everything up to date: data, tasks, training, evaluation, card, registration, the gate's word on a new
    model. What is done is skipped."""
    from rich.console import Console

    from quickstudy import registry, versions
    from quickstudy.cli.summary import accuracy_table, next_steps, step_times
    from quickstudy.config import load_settings

    root = project()
    console = Console()
    start = time.monotonic()
    stale, registration = versions.stale(root), registry.registered(root)
    automatic = load_settings(root / "params.yaml").gate.promotion == "automatic"
    if not stale and registration is not None and registry.unjudged(root, automatic) is None:
        _print_versions(console, root, registration.version, registration.aliases)
        if table := accuracy_table(root / "build/evaluate/table.csv"):
            console.print(table)
        console.print("Everything is up to date; nothing was trained or registered.", style="bold green")
        return

    display = drive(root, ["-m", "flows.retrain"], "run.log")
    done = display.last.get("register", {})
    console.print()
    if table := accuracy_table(root / "build/evaluate/table.csv"):
        console.print(table)
    if done.get("version") is not None:
        names = tuple(alias for alias, at in registry.aliases(root).items() if at == done["version"])
        _print_versions(console, root, done["version"], names)
    if verdict := display.last.get("gate", {}).get("verdict"):
        moved = ": it is the champion now" if "move" in display.last else ""
        console.print(f"Gate   {verdict['answer']}{moved}. {verdict['sentence']}", highlight=False, soft_wrap=True)
    console.print(f"Times  {step_times(display.seconds, time.monotonic() - start)}", highlight=False)
    console.print("\nNext:", style="bold")
    console.print(next_steps(uncommitted=versions.committed_data_hash(root) != versions.data_hash(root)))


def drive(root: Path, command: list[str], log_name: str) -> "Display":
    """Run a flow in a process of its own, draw its progress and return what it told.

    Raises:
        QuickstudyError: a user's mistake ended it.
        typer.Exit: something else did; the end of its log is on stderr.
    """
    from rich.console import Console

    from quickstudy import processes
    from quickstudy.cli.display import Display

    log_path = root / ".cache" / log_name
    log_path.parent.mkdir(exist_ok=True)
    with log_path.open("w", encoding="utf-8") as log, Display(Console(stderr=True)) as display:
        display.wait_for("Prefect starts (half a minute the first time)")
        flow = processes.start(
            [sys.executable, *command],
            root,
            {"QUICKSTUDY_EVENTS": "1", **({"QUICKSTUDY_PROGRESS_SECONDS": "1"} if sys.stderr.isatty() else {})},
            interrupt="command",
            stdout=subprocess.PIPE,
            stderr=log,
        )
        try:
            assert flow.stdout is not None
            for line in flow.stdout:
                if not display.take(line):
                    log.write(line)
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
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from quickstudy import registry, versions
    from quickstudy.cli.summary import duration
    from quickstudy.durations import read_durations

    root = project()
    stale, took = versions.stale(root), read_durations(root)
    if not stale and registry.registered(root) is None:
        stale["register"] = ("this model and its evaluation are not registered yet",)
    elif stale:
        stale["register"] = ("after the stages, if their results differ",)
    table = Table(box=None, padding=(0, 1))
    for heading in ("step", "", "why", "last took"):
        table.add_column(heading, justify="right" if heading == "last took" else "left")
    for step in ("data", *(stage.name for stage in versions.stages(root)), "register"):
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


def ui() -> None:
    """Open MLflow's and Prefect's pages on this machine; Ctrl-C closes them."""
    from rich.console import Console

    from quickstudy import processes, registry

    root = project()
    console = Console()
    registry.prepare(root)
    commands: dict[str, list[str]] = {}
    addresses: dict[str, str] = {}
    uri = registry.tracking_uri(root)
    if uri.startswith("http"):
        addresses["MLflow"] = uri
    else:
        port = _free_port(5000)
        addresses["MLflow"] = f"http://127.0.0.1:{port}"
        commands["MLflow"] = [
            "mlflow",
            "server",
            "--backend-store-uri",
            uri,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ]
        commands["MLflow"] += ["--workers", "1"]
    if server := os.environ.get("PREFECT_API_URL"):
        addresses["Prefect"] = server.removesuffix("/").removesuffix("/api")
    else:
        port = _free_port(4200)
        addresses["Prefect"] = f"http://127.0.0.1:{port}"
        commands["Prefect"] = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    log_path = root / ".cache" / "ui.log"
    log_path.parent.mkdir(exist_ok=True)
    running: dict[str, subprocess.Popen[str]] = {}
    with log_path.open("w", encoding="utf-8") as log:
        try:
            for name, command in commands.items():
                running[name] = processes.start(
                    [sys.executable, "-m", *command], root, interrupt="command", stdout=log, stderr=subprocess.STDOUT
                )
            for name, process in running.items():
                with console.status(f"{name} starts"):
                    _wait_until_it_answers(name, addresses[name], process, log_path)
            for name, address in addresses.items():
                console.print(f"{name:<8} {address}", highlight=False)
            console.print("Ctrl-C closes them." if running else "Both run elsewhere.")
            while running:
                for name, process in running.items():
                    if process.poll() is not None:
                        raise QuickstudyError(f"{name}'s page has ended", where=log_path, fix="See there why")
                time.sleep(0.5)
        except KeyboardInterrupt:
            console.print("closed")
        finally:
            for process in running.values():  # both at once, then wait
                assert process.stdin is not None
                process.stdin.close()
            for process in running.values():
                processes.stop(process)


def project() -> Path:
    """The project's root, its settings checked before anything is started."""
    from quickstudy.config import load_settings

    root = find_project()
    apply_environment(root)
    load_settings(root / "params.yaml")
    return root


def _print_versions(console: object, root: Path, version: int | None, aliases: tuple[str, ...]) -> None:
    from rich.console import Console

    from quickstudy import registry, versions

    assert isinstance(console, Console)
    data = versions.data_hash(root)
    names = "".join(f" @{alias}" for alias in aliases)
    console.print(f"Data   version {data or 'none'}", highlight=False, soft_wrap=True)
    console.print(f"Model  models:/{registry.NAME}/{version}{names}", highlight=False, soft_wrap=True)


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise QuickstudyError("no free port on this machine")


def _wait_until_it_answers(name: str, address: str, process: "subprocess.Popen[str]", log: Path) -> None:
    while process.poll() is None:
        try:
            urllib.request.urlopen(
                f"{address}/health" if name == "MLflow" else f"{address}/api/health", timeout=2
            ).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise QuickstudyError(f"{name}'s page did not start", where=log, fix="See there why")
