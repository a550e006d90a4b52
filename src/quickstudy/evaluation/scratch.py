"""The same network without meta-training: its weights drawn anew and trained on one task alone."""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from quickstudy.encoders import Encoder

SCRATCH_BATCH = 32


def train_from_scratch(
    encoder: Encoder,
    dimension: int,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    support: Tensor,
    targets: Tensor,
    query: Tensor,
    way: int,
    steps: int,
) -> tuple[Tensor, float]:
    """Train a network with a linear head on one task's support set, and answer its queries.

    Args:
        encoder: untrained; trained in place.
        dimension: D of its vectors.
        loss_of: the kind's loss of answers [B, S, N] and targets [B, S, ...].
        support, query: arrays of the frozen front, [S, ...], [Q, ...].
        targets: [S, ...] of the kind.
        steps: of Adam, on batches of at most ``SCRATCH_BATCH`` examples, with the modality's augmentation.

    Returns:
        answers [Q, N], milliseconds of training.
    """
    generator = torch.Generator().manual_seed(0)
    started = time.perf_counter()
    head = nn.Linear(dimension, way)
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=2e-3)
    encoder.train()
    for _ in range(steps):
        rows = torch.randperm(len(support), generator=generator)[:SCRATCH_BATCH]
        logits = head(encoder(encoder.augment(support[rows], generator)))
        loss = loss_of(logits[None], targets[rows][None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    elapsed = (time.perf_counter() - started) * 1000
    # Running averages over so few steps are poor: count batch statistics once more over the whole support set.
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        encoder(support)
        encoder.eval()
        return head(encoder(query)), elapsed
