"""What the frozen front of an encoder makes of a dataset: computed once, cached, memory-mapped."""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np

from quickstudy.atomic import draft
from quickstudy.data.dataset import Dataset
from quickstudy.errors import QuickstudyError
from quickstudy.model.encoders import Encoder

VERSION = 1  # raise when a frozen front changes what it computes
CHUNK = 512


def features(
    dataset: Dataset, encoder: Encoder, cache: Path | None, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, str]:
    """The frozen front's array of every example, row by row as in the dataset, and the digest of what it was made of.

    The cache is keyed by the dataset's content and the front with its settings; a file appears whole or not at all.
    """
    digest = blake2b(f"{VERSION}/{encoder.front}/".encode(), digest_size=16)
    for start in range(0, len(dataset), CHUNK):
        for cell in dataset.raw(slice(start, min(start + CHUNK, len(dataset)))):
            data = cell.encode() if isinstance(cell, str) else cell
            digest.update(len(data).to_bytes(8, "big"))
            digest.update(data)
    path = None if cache is None else cache / f"{dataset.name}-{digest.hexdigest()}.npy"
    if path is not None and path.exists():
        with contextlib.suppress(ValueError, EOFError):  # a damaged file is computed anew
            return np.load(path, mmap_mode="r"), digest.hexdigest()
    array = _compute(dataset, encoder, progress)
    if path is None:
        return array, digest.hexdigest()
    with draft(path) as part, part.open("wb") as file:
        np.save(file, array)
    return np.load(path, mmap_mode="r"), digest.hexdigest()


def _compute(dataset: Dataset, encoder: Encoder, progress: Callable[[int, int], None] | None) -> np.ndarray:
    n = len(dataset)
    if dataset.modality == "text":  # texts are batched by length over the whole dataset
        array = encoder.prepare(dataset.raw())
        if progress is not None:
            progress(n, n)
        return _checked(array, dataset)

    def prepare(start: int) -> np.ndarray:
        return encoder.prepare(dataset.raw(slice(start, min(start + CHUNK, n))))

    parts = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # decoders let go of the interpreter's lock
        for part in threads.map(prepare, range(0, n, CHUNK)):
            parts.append(part)
            if progress is not None:
                progress(sum(map(len, parts)), n)
    return _checked(np.concatenate(parts), dataset)


def _checked(array: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Raises QuickstudyError where a number is none: one such example would spoil every task that it is in."""
    bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
    if bad.any():
        raise QuickstudyError(
            f"{bad.sum()} examples hold values that are no finite numbers", where=f"{dataset.name}, row {bad.argmax()}",
            fix="Remove them from the source and import it again",
        )  # fmt: skip
    return array
