"""What the builders share: random numbers of a unit of work, worker processes, progress."""

import hashlib
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

import numpy as np

Progress = Callable[[int, int], None]
"""Told (done, total)."""


def silent(done: int, total: int) -> None:
    """The progress that nobody watches."""


def generator(*names: str) -> np.random.Generator:
    """Random numbers that depend on the names alone, so on no order of work and no number of cores."""
    digest = hashlib.blake2b("\x1f".join(names).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def workers(tasks_each: int | None = None) -> ProcessPoolExecutor:
    """A process a core, each started afresh, or a fresh one after every ``tasks_each`` tasks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ProcessPoolExecutor(cores, get_context("spawn"), _start_worker, max_tasks_per_child=tasks_each)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends a worker at once and without a traceback
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        wait([parent.sentinel])
        os._exit(1)  # a worker whose parent was killed would wait for work for ever

    threading.Thread(target=follow, daemon=True).start()
