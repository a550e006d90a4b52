"""The targets of each kind. A kind's module is its row here; adding a kind adds one."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.kinds.classify import targets as classify
from quickstudy.kinds.kind import Targets
from quickstudy.kinds.tag import targets as tag

TARGETS: dict[str, Targets] = {"classify": classify, "tag": tag}


PLAIN = "classify"
"""What targets are of that say nothing else."""


def targets_of(kind: str, where: object = None) -> Targets:
    """Return how a kind's targets are read and written.

    Args:
        kind: a kind's name.
        where: what names it, for the error: a dataset's folder, an option.

    Raises:
        QuickstudyError: this version does not know the kind.
    """
    if kind not in TARGETS:
        near = get_close_matches(kind, TARGETS, 1)
        fix = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(TARGETS)}"
        raise QuickstudyError(f"this version knows no kind of task {kind!r}", where=where, fix=fix)
    return TARGETS[kind]


def kind_of(values: Sequence[Any]) -> str:
    """Return the kind whose targets values are: lists are tags, all else names classes."""
    return next((kind for kind, part in TARGETS.items() if values and all(map(part.fits, values))), PLAIN)
