"""Threads for what takes long without computing, a pool for each, so that none of them waits for another.

Looking up keys and revisions has asyncio's own threads to itself. Python runs on one thread at a time: those that read
files and bodies must not hold the others up, so they change over more often than is usual.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from quickstudy.serving.engine.line import Line
from quickstudy.system.workers import cores

SWITCH = 0.0005
"""Seconds after which a thread that runs Python lets another one; usual are 0.005."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class _Job:
    work: Callable[[], Any]
    done: "asyncio.Future[Any]"


class Pool:
    """Threads that tenants share: they take turns, and none has all of the threads.

    Args:
        name: of its threads. threads: how many; two at least. share: see `Line`.
        spent: told whose work has taken how many seconds.
    """

    def __init__(
        self, name: str, threads: int, share: int, spent: Callable[[str, float], None] = lambda who, seconds: None
    ):
        self.threads = max(2, threads)
        self.line: Line[_Job] = Line(share)
        self._spent = spent
        self._executor = ThreadPoolExecutor(self.threads, thread_name_prefix=name)
        self._running: Counter[str] = Counter()

    async def run(self, who: str, work: Callable[..., _Result], *arguments: Any) -> _Result:
        """Call something on a thread when its tenant has its turn.

        Raises:
            Busy: too much waits already.
        """
        done: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self.line.put(who, _Job(lambda: work(*arguments), done))
        self._start()
        return await done

    def stop(self) -> None:
        """End the threads when they are done; what waits is not begun."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _start(self) -> None:
        while self._running.total() < self.threads:
            taken = self.line.take(lambda who, _: self._running[who] < self.threads - 1)
            if taken is None:
                return
            who, job = taken
            self._running[who] += 1
            asyncio.get_running_loop().create_task(self._run(who, job))

    async def _run(self, who: str, job: _Job) -> None:
        started = time.perf_counter()
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._executor, job.work)
        except Exception as error:
            if not job.done.done():
                job.done.set_exception(error)
        else:
            if not job.done.done():
                job.done.set_result(result)
        finally:
            self._running[who] -= 1
            if not self._running[who]:
                del self._running[who]
            self._spent(who, time.perf_counter() - started)
            self._start()


class Pools:
    """All pools of a service.

    Args:
        share: see `Line`. spent: told whose files have taken how many seconds.
    """

    def __init__(self, share: int, spent: Callable[[str, float], None]):
        sys.setswitchinterval(SWITCH)
        self.parsing = Pool("parsing", 2, share)
        self.decoding = Pool("decoding", cores(), share, spent)
        self.database = Pool("database", 4, share)
        self.health = Pool("health", 2, share)

    @property
    def all(self) -> tuple[Pool, ...]:
        """Return each of them."""
        return self.parsing, self.decoding, self.database, self.health

    def stop(self) -> None:
        """End all."""
        for pool in self.all:
            pool.stop()
