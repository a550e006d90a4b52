"""One writer of data/ at a time, and what the users of a machine take turns at."""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from quickstudy.system.private import shared_lock_file

SHARED = Path("/tmp")
"""Where locks lie that the users of a machine share; their own temporary folders may differ."""

POLL_SECONDS = 1.0
"""Between two looks at a lock that somebody may hold for hours."""


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold what is written under the data root for oneself; the next writer waits. The lock goes with the process."""
    path = root.parent / ".cache/data.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


@contextlib.contextmanager
def in_turn(name: str, busy: Callable[[str], None], patience: float) -> Iterator[None]:
    """Take turns with the other users of this machine at what ``name`` stands for. They are trusted to wait, and with
    nothing else: one who does not let go, or puts something else in the lock's place, is not waited for.

    Args:
        name: of the lock's file.
        busy: told in a sentence why this one waits, or goes on without its turn.
        patience: seconds to wait at most.
    """
    with shared_lock_file(SHARED / name) as handle:
        if handle is None:
            busy(f"{SHARED / name} is no file that can be locked; this run does not wait for those of other users")
        elif not _taken(handle):
            busy("another run on this machine is at work; this one waits for it")
            until = time.monotonic() + patience
            while not _taken(handle):
                if time.monotonic() > until:
                    busy(f"another run has held {SHARED / name} for longer than any may take; this one goes on")
                    break
                time.sleep(min(POLL_SECONDS, patience))
        yield


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
