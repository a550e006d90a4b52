"""One writer of data/ at a time."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock


@contextlib.contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold what is written under the data root for oneself; the next writer waits. The lock goes with the process."""
    path = root.parent / ".cache/data.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield
