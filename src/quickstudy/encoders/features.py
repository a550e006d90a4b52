"""What the frozen front of an encoder makes of a dataset: computed once, cached, memory-mapped."""

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np

from quickstudy.data.dataset import Dataset
from quickstudy.encoders import Encoder
from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import draft, set_aside
from quickstudy.system.workers import in_order

VERSION = 3  # raise when a frozen front changes what it computes
CHUNK = 512
DIGEST, BLOCK = 32, 2**20
TEXTS = 2**16  # at once: some encoders batch them by length, and what shares a batch is rounded alike


def features(
    dataset: Dataset, encoder: Encoder, cache: Path | None, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, str]:
    """The frozen front's array of every example, row by row as in the dataset, and the digest of what it was made of.

    The cache is keyed by the dataset's content and the front with its settings; a file appears whole or not at all,
    and one whose bytes have changed since is set aside and computed anew. Neither the examples nor the array of a large
    dataset are ever all in memory, where there is a cache.
    """
    made_of = f"{VERSION}/{encoder.front}/".encode() + dataset.digests.tobytes()
    digest = blake2b(made_of, digest_size=16).hexdigest()
    if cache is None:
        return np.concatenate(list(_prepared(dataset, encoder, progress))), digest
    path = cache / f"{dataset.name}-{digest}.npy"
    if path.exists():
        if _is_whole(path):
            return np.load(path, mmap_mode="r"), digest
        set_aside(path, "its digest is another")
    with draft(path) as part, part.open("w+b") as file:
        for number, array in enumerate(_prepared(dataset, encoder, progress)):
            if number == 0:
                header = np.lib.format.header_data_from_array_1_0(array) | {"shape": (len(dataset), *array.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(array).data)
        file.seek(0)
        own = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, os.SEEK_END)
        file.write(own)  # behind the array, where no reader of .npy looks: the two are there together or not at all
    return np.load(path, mmap_mode="r"), digest


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the digest of what is before it."""
    digest, left = hashlib.sha256(), path.stat().st_size - DIGEST
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(BLOCK, left))):
            digest.update(block)
            left -= len(block)
        return left == 0 and file.read() == digest.digest()


def _prepared(dataset: Dataset, encoder: Encoder, progress: Callable[[int, int], None] | None) -> Iterator[np.ndarray]:
    """The array part by part.

    Raises:
        QuickstudyError: a number is none: one such example would spoil every task that it is in.
    """
    done, bad, first = 0, 0, 0
    for part in _parts(dataset, encoder):
        wrong = ~np.isfinite(part).reshape(len(part), -1).all(1)
        if wrong.any():
            first = first if bad else done + int(wrong.argmax())
            bad += int(wrong.sum())
        done += len(part)
        if progress is not None:
            progress(done, len(dataset))
        yield part
    if bad:
        raise QuickstudyError(
            f"{bad} examples hold values that are no finite numbers",
            where=f"{dataset.name}, row {first}",
            fix="Remove them from the source and import it again",
        )


def _parts(dataset: Dataset, encoder: Encoder) -> Iterator[np.ndarray]:
    if dataset.modality == "text":
        yield from map(encoder.prepare, dataset.batches(TEXTS))
        return
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # decoders let go of the interpreter's lock
        yield from in_order(threads, encoder.prepare, dataset.batches(CHUNK))
