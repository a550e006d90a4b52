"""Tasks of vectors, as a learner reads them."""

import torch
from torch import Tensor
from torch.nn import functional as F

D = 12
TAU = 7.0

TASKS = [([1, 1], 3), ([2, 2, 2], 5), ([1, 3, 2, 4, 1], 2), ([5] * 4, 8)]
"""Examples of each class, and queries."""


def task(counts: list[int], queries: int, seed: int = 0, tau: float = TAU) -> tuple[Tensor, Tensor, Tensor]:
    """Support [S, D], targets [S] and queries [Q, D]; so many examples of each class, all of length √τ."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor([n for n, count in enumerate(counts) for _ in range(count)])

    def vectors(n: int) -> Tensor:
        return F.normalize(torch.randn(n, D, generator=generator, dtype=torch.float64), dim=1) * tau**0.5

    return vectors(len(targets)), targets, vectors(queries)


def padded(tasks: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    s, q = max(len(t[0]) for t in tasks), max(len(t[2]) for t in tasks)
    support = torch.stack([F.pad(t[0], (0, 0, 0, s - len(t[0]))) for t in tasks])
    targets = torch.stack([F.pad(t[1], (0, s - len(t[1])), value=-1) for t in tasks])
    return support, targets, torch.stack([F.pad(t[2], (0, 0, 0, q - len(t[2]))) for t in tasks])
