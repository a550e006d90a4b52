"""Worker processes, one a core, of which none outlives the process that started it; and threads for what lets go of
the interpreter's lock."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import cache
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import TypeVar

WORTH_THREADS = 8  # items

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """of the machine that this process may use"""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(tasks_each: int | None = None) -> ProcessPoolExecutor:
    """A process a core, each started afresh, or a fresh one after every ``tasks_each`` tasks."""
    return ProcessPoolExecutor(cores(), get_context("spawn"), _start_worker, max_tasks_per_child=tasks_each)


def in_order(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """As ``pool.map``, but it takes no more of ``items`` than the workers need soon: they need not fit in memory."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > 4 * cores():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """As ``map``, a part of ``items`` on each core. Of several errors that of the first item is raised."""
    if len(items) < WORTH_THREADS:
        return [function(item) for item in items]
    size = -(-len(items) // cores())
    parts = _threads().map(
        lambda part: [function(item) for item in part],
        [items[start : start + size] for start in range(0, len(items), size)],
    )
    return [result for part in parts for result in part]


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), "decode")


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once and without a traceback
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)  # a worker whose parent was killed would wait for work for ever

    threading.Thread(target=follow, daemon=True).start()
