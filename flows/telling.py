"""How a run tells what it does: its steps to whoever started the process, and to the run's summary."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prefect import get_run_logger

from quickstudy.runs.durations import record_duration
from quickstudy.versions import command

DONE: list[dict[str, Any]] = []
"""What the steps of this process have told when they ended; the run's summary (flows/notice.py) is made of it."""


def tell(**event: Any) -> None:
    """Report to whoever started this process, in one line of JSON on stdout: `quickstudy run` draws from it."""
    if os.environ.get("QUICKSTUDY_EVENTS"):
        print(json.dumps(event), flush=True)


@contextlib.contextmanager
def step(root: Path | None, name: str) -> Iterator[dict[str, Any]]:
    """Tell that a step starts and, with what the body puts into the yielded dict, that it is done.

    Args:
        root: the project, which remembers how long the step took, for `quickstudy plan`; None where it shall not.
    """
    tell(step=name, state="start")
    start = time.monotonic()
    done: dict[str, Any] = {"outcome": "ran"}
    try:
        yield done
    except BaseException as failure:
        if isinstance(failure, command.StageFailed):
            tell(step=name, line=str(failure))
        note = str(failure) or type(failure).__name__
        DONE.append({"step": name, "outcome": "failed", "seconds": time.monotonic() - start, "note": note})
        raise
    seconds = time.monotonic() - start
    if root is not None and done["outcome"] == "ran":
        record_duration(root, name, seconds)
    DONE.append({"step": name, "seconds": seconds, **done})
    tell(step=name, state="done", seconds=seconds, **done)


def listener(name: str) -> Callable[[str], None]:
    """A callback that hands on each line which a step prints: to Prefect's log and to who started this process."""
    log = get_run_logger()

    def listen(line: str) -> None:
        log.info("%s", line)
        tell(step=name, line=line)

    return listen
