"""Worker processes: one a core, and none outlives the process that started it."""

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

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores of the machine this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers(tasks_each: int | None = None) -> ProcessPoolExecutor:
    """Return a pool of a process a core, each started afresh, or a fresh one after every ``tasks_each`` tasks."""
    return ProcessPoolExecutor(cores(), get_context("spawn"), _start_worker, max_tasks_per_child=tasks_each)


def in_order(pool: Executor, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield what ``pool.map`` would, but take no more of ``items`` than the workers need soon: they need not fit in
    memory."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > 4 * cores():
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def side_by_side(work: Callable[[Item], object], items: Sequence[Item]) -> None:
    """Call ``work`` for each item, on as many threads as torch has, each of which computes alone: where the operations
    are small, threads that share each of them wait for one another more than they gain. One item has all of them."""
    import torch

    threads = torch.get_num_threads()
    if min(threads, len(items)) < 2:
        for item in items:
            work(item)
        return

    def alone(item: Item) -> None:
        torch.set_num_threads(1)
        work(item)

    try:
        for _ in _threads(threads).map(alone, items):
            pass
    finally:
        torch.set_num_threads(threads)  # what a thread sets for itself is also for those that begin after it


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="side-by-side")  # kept: a new thread's first pass is slow


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once and without a traceback
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)  # a worker whose parent was killed would wait for work for ever

    threading.Thread(target=follow, daemon=True).start()
