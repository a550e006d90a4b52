"""The progress of a run on the terminal, drawn from the events that the flow's process prints."""

from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from quickstudy.cli.summary import duration
from quickstudy.system.progress import Event, in_words, read_event
from quickstudy.system.terminal import Console


class Display:
    """One line for each step that is done and, on a terminal, a live one for the step at work.

    Attributes:
        seconds: how long each step took that was not skipped.
        last: the last "done" event of each step.
        error: the flow's message where it failed by a mistake of the user's.
        crash: the message where it failed otherwise.
    """

    def __init__(self, console: Console):
        self.seconds: dict[str, float] = {}
        self.last: dict[str, dict[str, Any]] = {}
        self.error: str | None = None
        self.crash: str | None = None
        self._console = console
        self._live = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[line]}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "Display":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def wait_for(self, what: str) -> None:
        """Say what happens before the first step."""
        self._work_on(what)
        if not self._console.is_terminal:
            self._console.print(Text(what))

    def take(self, line: str) -> bool:
        """Draw one line of the flow's output. Return whether it was an event."""
        event = read_event(line)
        if event is None:
            return False
        kind = event["event"]
        if kind == "start":
            self._work_on(event["step"])
        elif kind == "done":
            self._done(event["step"], event)
        elif kind == "progress":
            self._progress(event)
        elif kind == "crash":
            self.crash = event["text"]
        elif kind == "error":
            if "step" not in event:  # a stage's own is told again by the flow, which it ends
                self.error = event["text"]
        elif kind != "stopped":
            self._console.print(Text(f"    {event['text']}", style="dim"), highlight=False)
        return True

    def _work_on(self, what: str) -> None:
        if self._task is not None:
            self._live.remove_task(self._task)
        self._task = self._live.add_task(what, total=None, line="")

    def _progress(self, event: Event) -> None:
        if not self._console.is_terminal:
            self._console.print(Text(f"    {in_words(event)}"), highlight=False, soft_wrap=True)
        elif self._task is not None:
            done, total = event["done"], event["total"] or None
            self._live.update(self._task, completed=done, total=total, line=in_words(event))

    def _done(self, step: str, event: Event) -> None:
        self.last[step] = event
        if event["outcome"] == "ran":
            self.seconds[step] = event["seconds"]
        mark = Text("✓ ", style="green") + Text(f"{step:<20}")
        mark += Text(f"{duration(event['seconds']):>12}" if event["outcome"] == "ran" else f"{event['outcome']:>12}")
        if event.get("note"):
            mark += Text(f"  {event['note']}", style="dim")
        self._console.print(mark, highlight=False, soft_wrap=not self._console.is_terminal)
        if self._task is not None:
            self._live.remove_task(self._task)
            self._task = None
