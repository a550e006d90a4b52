"""Long work that lets others have their turn, wherever in the call stack it is.

What takes long calls `give_way` between two parts of it. Elsewhere that does nothing; where work runs as a `Turns` it
stops there once it has had its time, and goes on when it is asked to. Each runs on a stack of its own (greenlet), all
of them on one thread, so that no part of the work has to know of it.
"""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from greenlet import GreenletExit, getcurrent, greenlet

_Result = TypeVar("_Result")
_thread = threading.local()


def give_way() -> None:
    """Stop here until asked to go on, where the caller has had its time; else do nothing."""
    until = getattr(_thread, "until", None)
    if until is not None and time.perf_counter() >= until:
        current = getcurrent()
        if current.parent is not None:
            current.parent.switch()


class Turns(Generic[_Result]):
    """Work in pieces; all calls must come from one thread.

    Args:
        work: calls `give_way` now and then.
    """

    def __init__(self, work: Callable[[], _Result]):
        self._own: greenlet | None = None  # it belongs to the thread that makes it
        self._work = work
        self._results: list[_Result] = []

    def go_on(self, seconds: float) -> bool:
        """Work until this much time is over and the next `give_way`; return whether it is done.

        Raises:
            Exception: whatever the work raises.
        """
        if self._own is None:
            self._own = greenlet(self._run)
        _thread.until = time.perf_counter() + seconds
        try:
            self._own.switch()
        finally:
            _thread.until = None
        return bool(self._own.dead)

    def give_up(self) -> None:
        """End it where it stands; what it has open is closed as by an exception."""
        if self._own is not None and not self._own.dead:
            self._own.throw(GreenletExit)

    @property
    def result(self) -> _Result:
        """What the work came to, once it is done."""
        return self._results[0]

    def _run(self) -> None:
        self._results.append(self._work())
