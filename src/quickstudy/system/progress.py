"""Progress of long work, on stderr: bars on a terminal, a line now and then elsewhere."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Between two lines where there is no terminal; `quickstudy run` asks for more of them, to draw its own bar.
SECONDS = float(os.environ.get("QUICKSTUDY_PROGRESS_SECONDS", "10"))


@contextmanager
def showing_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function to be told (what, done, total) as often as one likes; total 0 means that it is not known."""
    if sys.stderr.isatty():
        with _bars() as tell:
            yield tell
    else:
        yield _lines()


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield tell


def _lines() -> Callable[[str, int, int], None]:
    told = {"": time.monotonic()}

    def tell(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - told.get(what, told[""]) >= SECONDS:
            told[what] = now
            print(f"{what}: {done:,} of {total:,}" if total else f"{what}: {done:,}", file=sys.stderr, flush=True)

    return tell
