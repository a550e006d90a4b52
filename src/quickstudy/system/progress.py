"""How work tells what it does: bars on a terminal, lines elsewhere, events for whoever started this process.

An event is one line of JSON, on stdout or stderr. A program asks for events by a variable in the environment of what
it starts (`asking`), and takes every line that is none for text (`read_event`). What a stage tells:

    {"event": "progress", "what": "meta-train", "done": 51, "total": 500}      total 0: nobody knows it
    {"event": "summary", "text": "500 steps in 61 s, weights sha256 d311ff26dfcc…"}
    {"event": "error", "text": "data/words: one class only"}                   a mistake of the user's, which ends it
    {"event": "stopped", "text": "stopped; the next run goes on from …"}       by Ctrl-C

A flow passes these on with the name of its step, beside what it tells itself:

    {"event": "start", "step": "tasks"}
    {"event": "text", "step": "tasks", "text": "5 datasets, 3 findings recorded"}     a line that was no event
    {"event": "done", "step": "tasks", "outcome": "ran", "seconds": 12.3}             perhaps with a note, and more
    {"event": "crash", "text": "stage tasks failed: AssertionError"}                  what ended it, if no mistake did
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from quickstudy.secrets import redacted_values
from quickstudy.system.printing import printable

EVENTS = "QUICKSTUDY_EVENTS"
"""The variable that asks for events. Its value: seconds between two that tell the progress of the same thing."""

SECONDS = 10.0
"""Between two lines of the progress of the same thing."""

FIELDS = {
    "progress": {"what", "done", "total"},
    "summary": {"text"},
    "error": {"text"},
    "stopped": {"text"},
    "start": {"step"},
    "text": {"step", "text"},
    "done": {"step", "outcome", "seconds"},
    "crash": {"text"},
}
"""The events that there are, and what each must hold; JSON that others print is text."""

Event = dict[str, Any]
Tell = Callable[[str, int, int], None]


def asked() -> bool:
    """Return whether who started this process reads events."""
    return bool(os.environ.get(EVENTS))


def asking(seconds: float | None = None) -> dict[str, str]:
    """Return the variable that asks a process for events.

    Args:
        seconds: between two of the same progress; by default as often as this process was asked, else every `SECONDS`.
    """
    return {EVENTS: f"{seconds:g}" if seconds else os.environ.get(EVENTS) or f"{SECONDS:g}"}


def say(event: Event, to: TextIO) -> None:
    """Write an event: as JSON where this process was asked for events, else as a line for people."""
    # In one piece: several processes may write into the same pipe.
    told = redacted_values(event)
    to.write((json.dumps(told) if asked() else printable(in_words(told))) + "\n")
    to.flush()


def read_event(line: str) -> Event | None:
    """Return the event that a line holds; None where it is text."""
    if not line.startswith("{"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    kind = event.get("event")
    return event if isinstance(kind, str) and kind in FIELDS and event.keys() >= FIELDS[kind] else None


def in_words(event: Event) -> str:
    """Return the line in which a person reads an event."""
    if event["event"] == "progress":
        done, total = event["done"], event["total"]
        return f"{event['what']}: {done:,} of {total:,}" if total else f"{event['what']}: {done:,}"
    return f"quickstudy: {event['text']}" if event["event"] in ("error", "stopped") else str(event["text"])


@contextmanager
def showing_progress() -> Iterator[Tell]:
    """Give a function to be told (what, done, total) as often as one likes; total 0 means that it is not known."""
    if asked():
        yield _now_and_then(float(os.environ[EVENTS]))
    elif sys.stderr.isatty():
        with _bars() as tell:
            yield tell
    else:
        yield _now_and_then(SECONDS)


@contextmanager
def _bars() -> Iterator[Tell]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    from quickstudy.system.terminal import Console

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield tell


def _now_and_then(seconds: float) -> Tell:
    told = {"": time.monotonic()}

    def tell(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - told.get(what, told[""]) >= seconds:
            told[what] = now
            say({"event": "progress", "what": what, "done": done, "total": total}, sys.stderr)

    return tell
