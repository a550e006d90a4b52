"""Meta-training: `loop.py` is the whole of it; beside it what a step draws, where it runs, and checkpoints."""

from quickstudy.training.batches import Source, draw_tasks, gather
from quickstudy.training.checkpoint import Look
from quickstudy.training.engine import Engine
from quickstudy.training.loop import (
    Result,
    learning_rate,
    meta_loss,
    meta_train,
    optimiser,
    validate,
    write_curve,
)

__all__ = [
    "Engine",
    "Look",
    "Result",
    "Source",
    "draw_tasks",
    "gather",
    "learning_rate",
    "meta_loss",
    "meta_train",
    "optimiser",
    "validate",
    "write_curve",
]
