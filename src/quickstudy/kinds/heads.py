"""How each kind puts its tasks to a learner, and reads what it says. Learners know no kind: they choose between N
classes. A kind's module is its row here; adding a kind adds one."""

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from quickstudy.kinds.classify import head as classify
from quickstudy.kinds.tag import head as tag
from quickstudy.kinds.task import Decided
from quickstudy.learners import VectorLearner


class Head(Protocol):
    """What ``kinds/KIND/head.py`` offers. S examples, Q queries, N classes or tags, B tasks."""

    def arrange(self, targets: Sequence[Any]) -> tuple[tuple[str, ...], Tensor]:
        """Return the names of what targets [S] tell apart and the targets as numbers, [S, ...].

        Raise QuickstudyError where they make no task.
        """

    def plain(self, numbers: Tensor) -> list[Any]:
        """Return numbers [S, ...] as targets, where they have no names."""

    def shots(self, numbers: Tensor, way: int) -> tuple[int, ...]:
        """Return how many examples each of the N names has."""

    def pose(self, support: Tensor, targets: Tensor, way: int) -> tuple[Tensor, Tensor, int]:
        """Return support sets as the learner takes them.

        Args:
            support: [B, S, ...], vectors or arrays.
            targets: [B, S, ...] numbers.
            way: N

        Returns:
            support [B·F, S, ...], classes int64 [B·F, S] and how many classes: a task may become F choices.
        """

    def read(self, logits: Tensor, tasks: int) -> Tensor:
        """Return answers [B, Q, N] of B tasks from the learner's logits [B·F, Q, classes]."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return what meta-training lowers, from answers [B, Q, N] and targets [B, Q, ...]."""

    def can_be_left_out(self, numbers: Tensor, way: int) -> Tensor:
        """Return bool [S]: which examples may be left out of a task without making it another."""

    def posed(self, way: int) -> tuple[int, int]:
        """Return how many choices a task of N names becomes, and of how many classes each is."""

    def effort(self, learner: VectorLearner, examples: int, way: int, dimension: int) -> float:
        """Return about how many products are added up to learn and settle a task of S examples, N names and D."""

    def offsets(self, learner: VectorLearner, vectors: Tensor, numbers: Tensor, way: int) -> Tensor | float:
        """Return what is taken from the answers of B tasks, [B, N] or 0, by their support sets [B, S, D]."""

    def settle(self, learner: VectorLearner, vectors: Tensor, numbers: Tensor, way: int, false_alarm: float) -> Any:
        """Return what is fixed for a task by its support set [S, D], beside what the learner learns."""

    def decide(self, names: Sequence[str], logits: Tensor, settled: Any, query: Tensor | None) -> Decided:
        """Return what queries are, from answers [Q, N], what is settled (or None) and vectors [Q, D]."""


HEADS: dict[str, Head] = {"classify": classify, "tag": tag}
