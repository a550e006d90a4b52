"""What the card says of tagging, and of no other kind."""

from functools import partial

import pandas as pd

from quickstudy.kinds.tag import score
from quickstudy.kinds.tag.shown import weak
from quickstudy.kinds.tag.shown.cells import all_tags, cells
from quickstudy.kinds.tag.shown.figures import figures
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.shown import Shown, Size, linear_methods, mean_scores, not_at_their_word, novelties_of
from quickstudy.report.words import Chapter, Markdown, counts

METHODS = linear_methods("a logistic regression a tag", "a nearest centroid a tag")
"""The baselines, in the order of their columns; each tells a tag from the rest."""

STARTER = "quickstudy.starter.messages"
"""The source of messages that nobody wrote."""

GOOD_FOR = (
    "Many small problems whose examples may be about several things at once, with few labelled examples each: what a "
    "message asks for, which defects a photo shows, what is heard in a recording. Each becomes a task that the same "
    "model learns in a moment. Where a problem has thousands of labelled examples, a model of its own will be better."
)

USE = Markdown("""On the command line, with a table that has the columns text and labels, lists of tags:

```sh
quickstudy adapt SUPPORT --kind tag --task NAME   # learns the task, keeps it in a small file
quickstudy predict --task NAME QUERIES --json answers.json
quickstudy evaluate SOURCE --kind tag --shot 5    # judges it on your own data
```

In Python:

```python
from quickstudy import Quickstudy

qs = Quickstudy.load("models:/quickstudy@champion")
task = qs.adapt(
    ["Where is my parcel?", "The invoice is wrong, and it came late.", "Please send me the invoice again."],
    [["delivery"], ["billing", "delivery"], ["billing"]],
)
print(task.predict("You billed me twice for a parcel that never came."))  # a list of tags, which may be empty
```""")


def size(rows: pd.DataFrame) -> Size:
    """Return how many tags the tasks of some rows ask about."""
    tags = counts(rows["way"])
    return Size("tags", tags, f"with {tags} tags each", f"{tags} tags")


def not_for(evidence: KindEvidence) -> list[str]:
    """Return what the model is not for."""
    return [
        "telling what is about nothing that the task knows: it may be given no tag, as an example may that it does not "
        "understand",
        not_at_their_word(evidence),
        "saying where in an example something is, or writing text: it tags whole examples",
    ]


def chapters(evidence: KindEvidence) -> list[Chapter]:
    """Return whole sets, calibration and failures; the last two where the evaluation kept its answers."""
    found = cells(evidence)
    first = weak.whole_sets(evidence, found)
    return [first, weak.calibration(evidence.kind, found), weak.failures(evidence, found)] if found else [first]


def limits(evidence: KindEvidence) -> list[str]:
    """Return what the results do not say."""
    found = [
        "Where a tag begins is chosen on the task's own examples: at half of the F1 that leaving out each in turn "
        "shows to be in reach. Where that would take away all that have a tag, as often with one example a tag, each "
        "begins at a probability of a quarter.",
        "An example may be given no tag at all. Every question here has one of its task's tags at least: how often "
        "what has none is given one was not measured.",
        "A task with more tags than the tasks here is harder, one with fewer is easier.",
    ]
    made = [name for name, dataset in evidence.datasets.items() if dataset.info.source == STARTER]
    if made:
        found.append(
            f"The {made[0]} of the starter data are synthetic, written by a small grammar: people's messages are less "
            "regular, and harder."
        )
    return found


SHOWN = Shown(
    title="Tagging",
    task="a tagging task",
    score=score.NAME,
    unit="example",
    per="a tag",
    methods=METHODS,
    novelties=novelties_of("tags"),
    headline=partial(mean_scores, per="a tag"),
    size=size,
    chance=all_tags,
    guess="all tags",
    guessing="giving every question all tags",
    good_for=GOOD_FOR,
    not_for=not_for,
    chapters=chapters,
    figures=figures,
    limits=limits,
    learns="reads a task's examples and, for each tag by itself, corrects the prototypes of those that have it and of "
    "those that have it not",
    mixed="numbers of tags and of examples",
    validation="5 tags, 1 example each",
    use=USE,
)
