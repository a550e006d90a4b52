"""What the card asks of a kind of task: the sentences, tables and figures that are of that kind alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from quickstudy.report.evidence import KindEvidence, Method
from quickstudy.report.words import Chapter, Markdown, counted, percent


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


def mean_scores(evidence: KindEvidence, per: str) -> list[tuple[str, str]]:
    """Return what a card can begin with: a number of examples, and the mean score with so many, in percent."""
    means = evidence.own.groupby("shot")["score"].mean()
    return [(f"{counted(int(shot), 'example')} {per}", f"{percent(mean)} %") for shot, mean in means.items()]


def not_at_their_word(evidence: KindEvidence) -> str:
    """Return that probabilities are not to be taken at their word, and where the card says how far."""
    seen = "their calibration was not measured"
    if not evidence.answered.empty:
        seen = "see how far from it they are under Calibration"
    return f"probabilities taken at their word: {seen}"


def linear_methods(logreg: str, centroid: str) -> dict[str, Method]:
    """Return the baselines of a kind whose `quickstudy.kinds.linear.CLASSIFIERS` are called so."""
    encoder = "on the encoder before meta-training"
    return {
        "logreg_encoder": Method("LogReg, encoder", f"{logreg} {encoder}", family="encoder"),
        "centroid_encoder": Method("centroid, encoder", f"{centroid} {encoder}", family="encoder"),
        "logreg_raw": Method("LogReg, raw", f"{logreg} on raw features", family="raw"),
        "centroid_raw": Method("centroid, raw", f"{centroid} on raw features", family="raw"),
        "scratch": Method("from scratch", "the same network trained from scratch", family="scratch"),
    }


def novelties_of(several: str) -> dict[str, tuple[str, str]]:
    """Return, by what is new to the model, heading and meaning; ``several`` is what tasks ask about: classes, tags."""
    return {
        "classes": (f"New {several}", f"The kind of data is known from meta-training; these {several} are not."),
        "dataset": ("New dataset", "Nothing of the dataset was in meta-training."),
        "domain": (
            "New domain",
            f"The {several} are new, and so is where the examples come from: a voice, say, never heard.",
        ),
    }
