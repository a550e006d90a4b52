"""The progress of a run on the terminal, drawn from the events that the flow's process prints."""

import json
import re
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from quickstudy.cli.summary import duration

COUNT = re.compile(r": ([\d,]+) of ([\d,]+)$")
"""How a progress line of a stage ends: ": 120 of 600"."""


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
            TextColumn("[bold]{task.description}"),
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

    def take(self, text: str) -> bool:
        """Draw one line of the flow's output. Returns whether it was an event."""
        try:
            event = json.loads(text)
        except ValueError:
            return False
        if not isinstance(event, dict):
            return False
        self.error = event.get("error", self.error)
        self.crash = event.get("crash", self.crash)
        step = str(event.get("step"))
        if event.get("state") == "start":
            self._work_on(step)
        elif event.get("state") == "done":
            self._done(step, event)
        elif "line" in event:
            self._line(event["line"])
        return True

    def _work_on(self, what: str) -> None:
        if self._task is not None:
            self._live.remove_task(self._task)
        self._task = self._live.add_task(what, total=None, line="")

    def _line(self, line: str) -> None:
        if line.startswith("quickstudy: "):  # a mistake of the user's, which ends the run and is told then
            return
        count = COUNT.search(line)
        if count is None:
            self._console.print(Text(f"    {line}", style="dim"), highlight=False)
        elif self._console.is_terminal:
            assert self._task is not None
            done, total = (int(number.replace(",", "")) for number in count.groups())
            self._live.update(self._task, completed=done, total=total, line=line)
        else:
            self._console.print(Text(f"    {line}"), highlight=False, soft_wrap=True)

    def _done(self, step: str, event: dict[str, Any]) -> None:
        self.last[step] = event
        if event["outcome"] == "ran":
            self.seconds[step] = event["seconds"]
        mark = Text("✓ ", style="green") + Text(f"{step:<12}")
        mark += Text(f"{duration(event['seconds']):>12}" if event["outcome"] == "ran" else f"{event['outcome']:>12}")
        if event.get("note"):
            mark += Text(f"  {event['note']}", style="dim")
        self._console.print(mark, highlight=False, soft_wrap=not self._console.is_terminal)
        if self._task is not None:
            self._live.remove_task(self._task)
            self._task = None
