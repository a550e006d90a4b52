"""How each kind is judged. A kind's module is its row here; adding a kind adds one."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from quickstudy.kinds.classify import score as classify
from quickstudy.kinds.tag import score as tag


class Scoring(Protocol):
    """What ``kinds/KIND/score.py`` offers."""

    NAME: str
    """What the score of an episode (0 … 1, higher is better) is called."""
    BASELINES: tuple[str, ...]
    """What people would use instead, by name."""

    def judge(self, logits: Tensor, targets: Tensor) -> dict[str, list[Any]]:
        """Return by name what an evaluation keeps of each episode: ``score`` and further metrics.

        Args:
            logits: answers [B, Q, N] of `quickstudy.kinds.heads`.
            targets: [B, Q, ...] of the kind.
        """

    def agreement(self, answers: Sequence[Any], targets: Sequence[Any]) -> tuple[float, float]:
        """Return the score of answers (targets, as JSON has them) to examples [n] whose targets are known, and half of
        its 95% interval."""

    def baselines(
        self, features: Any, episodes: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]
    ) -> dict[str, list[tuple[float, float]]]:
        """Return score and milliseconds of fitting of each baseline on each episode: rows of support and query, and
        the targets of both."""


SCORES: dict[str, Scoring] = {"classify": classify, "tag": tag}
