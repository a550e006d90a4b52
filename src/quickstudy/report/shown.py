"""What the card asks of a kind of task: the sentences, tables and figures that are of that kind alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from quickstudy.report.evidence import KindEvidence, Method
from quickstudy.report.words import Chapter, Markdown


class Size(NamedTuple):
    """How large tasks are, as a kind measures it."""

    what: str
    """head of a column: "classes" """
    number: str
    """"5", or "2 to 10" of different ones"""
    told: str
    """behind "tasks": "with 5 classes each" """
    short: str
    """in the title of a figure: "5-way" """


@dataclass(frozen=True)
class Shown:
    """A kind, as the card shows it. Where ``rows`` are given they are of the evaluation's table, the model's own; a
    plain string may hold anything, and is escaped."""

    title: str
    """of its part of the card, where there are several"""
    task: str
    """what the model learns: "a classification task" """
    score: str
    """the name of its score"""
    unit: str
    """what examples are counted in where there is little room: "shot" """
    per: str
    """what examples are counted by, behind their number: "a class", or nothing"""
    methods: Mapping[str, Method]
    """the baselines, in the order of their columns"""
    novelties: Mapping[str, tuple[str, str]]
    """by what is new to the model: the heading of such suites, and what it means; in their order"""

    headline: Callable[[KindEvidence], Sequence[tuple[str, str]]]
    """what the card begins with: numbers, each after what it is"""
    size: Callable[[pd.DataFrame], Size]
    """rows of one suite or of several → how large their tasks are"""
    chance: Callable[[KindEvidence, pd.Series], float | None]
    """a row → the score of who knows nothing of the task; None where there is none"""
    guess: str
    """that score in a figure: "chance" """
    guessing: str
    """what such a one does: "guessing" """

    good_for: str
    not_for: Callable[[KindEvidence], Sequence[str]]
    chapters: Callable[[KindEvidence], Sequence[Chapter]]
    """what follows the results; a figure of ``figures`` is linked to by `quickstudy.report.words.figure`"""
    figures: Callable[[KindEvidence, bool], Mapping[str, Figure]]
    """evidence, whether for a narrow screen → figures by name"""
    limits: Callable[[KindEvidence], Sequence[str]]
    """what the results do not say"""

    learns: str
    """what the learner does: "reads …" """
    mixed: str
    """what the tasks of a meta-batch differ in"""
    validation: str
    """the tasks that drew the curves of meta-validation"""
    use: Markdown
    """how it is used, on the command line and in Python"""
