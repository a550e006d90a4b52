"""How a run tells what it does: its steps to whoever started the process, and to the run's summary."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prefect import get_run_logger

from quickstudy.runs.durations import record_duration
from quickstudy.secrets import redacted, redacted_values
from quickstudy.system.progress import Event, asked, in_words, read_event, say
from quickstudy.versions import command

DONE: list[dict[str, Any]] = []
"""What the steps of this process have told when they ended; the run's summary (flows/notice.py) is made of it."""


def tell(event: str, **what: Any) -> None:
    """Report an event to whoever started this process, where that asked for events: `quickstudy run` draws from it."""
    if asked():
        say({"event": event, **what}, sys.stdout)


@contextlib.contextmanager
def step(root: Path | None, name: str) -> Iterator[dict[str, Any]]:
    """Tell that a step starts and, with what the body puts into the yielded dict, that it is done.

    Args:
        root: the project, which remembers how long the step took, for `quickstudy plan`; None where it shall not.
    """
    tell("start", step=name)
    start = time.monotonic()
    done: dict[str, Any] = {"outcome": "ran"}
    try:
        yield done
    except BaseException as failure:
        if isinstance(failure, command.StageFailed):
            tell("text", step=name, text=str(failure))
        note = redacted(str(failure)) or type(failure).__name__
        DONE.append({"step": name, "outcome": "failed", "seconds": time.monotonic() - start, "note": note})
        raise
    done = redacted_values(done)
    seconds = time.monotonic() - start
    if root is not None and done["outcome"] == "ran":
        record_duration(root, name, seconds)
    DONE.append({"step": name, "seconds": seconds, **done})
    tell("done", step=name, seconds=seconds, **done)


def reporter(name: str) -> Callable[[Event], None]:
    """Return a callback that hands on each event of a step: to Prefect's log and to who started this process."""
    log = get_run_logger()

    def report(event: Event) -> None:
        log.info("%s", redacted(in_words(event)))
        tell(**{**event, "step": name})

    return report


def listener(name: str) -> Callable[[str], None]:
    """Return a callback that hands on each line which the process of a step prints, an event or text."""
    report = reporter(name)
    return lambda line: report(read_event(line) or {"event": "text", "text": line})
