"""Vectors as small bytes, so that a task is cheap to keep: one byte a number and one scale a vector.

A number is off by at most half of its vector's scale, and the errors of many numbers cancel: at D = 384 a cosine moves
by 0.0005. Whoever made the vectors uses them as they come back from here, so that every replica answers alike.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

STEPS = 127


def pack(vectors: Tensor) -> list[bytes]:
    """float32 [n, D] → n times 4 + D bytes: the scale, little-endian, and the numbers in its steps."""
    values = vectors.numpy()
    scales = np.maximum(np.abs(values).max(1), 1e-12).astype("<f4") / STEPS
    steps = np.rint(values / scales[:, None]).astype(np.int8)
    return [scale.tobytes() + row.tobytes() for scale, row in zip(scales, steps, strict=True)]


def unpack(rows: Sequence[bytes]) -> Tensor:
    """What `pack` gave, all of one D → float32 [n, D]"""
    table = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1)
    scales = table[:, :4].copy().view("<f4")
    return torch.from_numpy(table[:, 4:].view(np.int8).astype(np.float32) * scales)
