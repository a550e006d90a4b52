"""The file that a dataset's examples lie in, and what is remembered of it: a hash of each example.

Every stage asks what the examples are, of every dataset. A Parquet file is read for it where the file system says that
it is another one than the last time, which is how git and DVC tell; so what has not changed is not read again, however
large it is.
"""

import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from quickstudy.system.atomic import draft

FILE = "examples.parquet"
MEMORY = Path(".cache") / "contents"
"""Where a project remembers it; of each workspace its own, as it holds for the files of that alone."""
FORMAT = 1  # of what is remembered


@dataclass(frozen=True)
class Stored:
    """The Parquet file of a dataset, as it was at one moment."""

    path: Path
    stamp: tuple[int, ...]
    """device, inode, size in bytes, times of the last change and of the last change of its inode in nanoseconds:
    nobody can write the file and leave all of these as they were"""
    memory: Path | None = None
    """A file that remembers the hashes of its examples."""


def stored_at(folder: Path, memory: Path | None = None) -> Stored:
    """The Parquet file in a dataset's folder, as it is now.

    Args:
        folder: data/NAME.
        memory: a folder for what is remembered.
    """
    path = folder / FILE
    now = path.stat()
    stamp = (now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns)
    return Stored(path, stamp, None if memory is None else memory / f"{folder.name}.npz")


def digests_of(batches: Iterable[list[Any]], stored: Stored | None = None) -> np.ndarray:
    """uint64 [n]: a hash of each example as it is stored, its labels left out.

    Args:
        batches: the examples; untouched where their hashes are remembered.
        stored: where they lie.
    """
    if stored is not None and (known := _recall(stored)) is not None:
        return known
    parts = [np.array([digest(cell) for cell in cells], dtype=np.uint64) for cells in batches]
    digests = np.concatenate([np.empty(0, np.uint64), *parts])
    if stored is not None:
        remember(digests, stored)
    return digests


def digest(content: str | bytes | None) -> int:
    """64 bits of a hash: among a million examples, two different ones agree once in forty million times."""
    data = content.encode() if isinstance(content, str) else content or b""
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


def remember(digests: np.ndarray, stored: Stored) -> None:
    """Keep the hashes of the examples in a file, where there is a place for it."""
    if stored.memory is not None:
        with draft(stored.memory) as part, part.open("wb") as file:
            np.savez(file, digests=digests, stamp=_stamp(stored))


def _recall(stored: Stored) -> np.ndarray | None:
    if stored.memory is None:
        return None
    try:
        with np.load(stored.memory, allow_pickle=False) as file:
            return file["digests"] if np.array_equal(file["stamp"], _stamp(stored)) else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # not there, or damaged: read anew


def _stamp(stored: Stored) -> np.ndarray:
    return np.array([str(number) for number in (FORMAT, *stored.stamp)])  # an inode may need all of 64 bits
