"""How much of the machine a piece of work may take, where what it reads comes from others."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from quickstudy.errors import QuickstudyError

GB = 1 << 30


@contextlib.contextmanager
def memory_limit(most: float) -> Iterator[None]:
    """Let the body take no more memory beside what this process has; what would take more is a MemoryError.

    Counted is what is written to (RLIMIT_DATA), not files that are mapped. Where the system has no such limit, nothing
    is limited.

    Args:
        most: in bytes; where the machine has less to give, that.
    """
    taken = _kilobytes("/proc/self/status", "VmData")
    if sys.platform != "linux" or taken is None:
        yield
        return
    import resource

    free = _kilobytes("/proc/meminfo", "MemAvailable")
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(taken + (most if free is None else min(most, 0.9 * free)))
    known = [limit for limit in (wanted, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextlib.contextmanager
def bounded(gigabytes: float, source: object) -> Iterator[None]:
    """Do so, and say what took too much.

    Args:
        gigabytes: as watch.memory has it.
        source: that is read in the body.

    Raises:
        QuickstudyError: it took more.
    """
    try:
        with memory_limit(gigabytes * GB):
            yield
    except MemoryError:
        raise QuickstudyError(
            f"takes more than {gigabytes:g} GB of memory",
            where=source,
            fix="Import a part of it, or raise watch.memory",
        ) from None


def _kilobytes(path: str, name: str) -> int | None:
    """A line of /proc, in bytes; None where there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None
