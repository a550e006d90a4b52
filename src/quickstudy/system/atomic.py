"""Files that appear whole or not at all, whatever ends the process."""

import contextlib
import json
import os
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
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


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
