"""What an answer points to: a task's labelled examples. The client of a service elsewhere needs no torch for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A labelled example of a task."""

    id: str
    """by which it can be removed"""
    label: str
    name: str
    """the text, the path, or what it is"""


@dataclass(frozen=True)
class Neighbour:
    """An example that a query lies near."""

    example: Example
    likeness: float
    """cosine: 1 for the same"""
