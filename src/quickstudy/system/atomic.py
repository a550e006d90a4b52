"""Files that appear whole or not at all, whatever ends the process or the machine."""

import contextlib
import errno
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def draft(path: Path) -> Iterator[Path]:
    """Give an empty file beside ``path`` to write to. It takes the place of ``path`` when the body ends, or goes with
    it when the body fails. The folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())  # as any other file; mkstemp makes it readable by its owner alone
    try:
        yield Path(name)
        settle(Path(name))
        os.replace(name, path)
        settle(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def settle(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. A name that is there before its file's bytes would,
    after a loss of power, stand for an empty or torn file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # a file system that cannot say so
            raise
    finally:
        os.close(handle)


def set_aside(path: Path, why: str) -> None:
    """Take a file out of the way whose bytes are not those that were written, keep it for whoever wants to see why, and
    tell so in a line."""
    aside = path.with_name(f"{path.name}.damaged")
    os.replace(path, aside)
    print(f"{path.name} is damaged ({why}); it is kept as {aside.name} and made anew", file=sys.stderr, flush=True)


def _umask() -> int:
    mask = os.umask(0o077)  # it can only be read by setting it
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON; numbers of numpy become plain ones."""
    with draft(path) as part:
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file with this content."""
    with draft(path) as part:
        part.write_bytes(content)
