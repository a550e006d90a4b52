"""What the builders share: random numbers of a unit of work, and progress."""

import hashlib
from collections.abc import Callable

import numpy as np

Progress = Callable[[int, int], None]
"""Told (done, total)."""


def silent(done: int, total: int) -> None:
    """The progress that nobody watches."""


def generator(*names: str) -> np.random.Generator:
    """Random numbers that depend on the names alone, so on no order of work and no number of cores."""
    digest = hashlib.blake2b("\x1f".join(names).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
