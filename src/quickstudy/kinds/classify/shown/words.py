"""What the card says of classification, and of no other kind."""

from functools import partial

import pandas as pd

from quickstudy.kinds.classify import score
from quickstudy.kinds.classify.shown import weak
from quickstudy.kinds.classify.shown.calibration import calibrations
from quickstudy.kinds.classify.shown.figures import figures
from quickstudy.report.evidence import KindEvidence
from quickstudy.report.shown import Shown, Size, linear_methods, mean_scores, not_at_their_word, novelties_of
from quickstudy.report.words import Chapter, Markdown, counts

METHODS = linear_methods("logistic regression", "nearest centroid")
"""The baselines, in the order of their columns."""

GOOD_FOR = (
    "Many small classification problems with few labelled examples each: which team a ticket belongs to, which defect "
    "a photo shows, which word was said. Each becomes a task that the same model learns in a moment. Where a problem "
    "has thousands of labelled examples, a model of its own will be better."
)

LIMITS = (
    "A task with more classes than the tasks here is harder, one with fewer is easier.",
    "Every question here belongs to one of its task's classes, and the likeliest class counts: how well it tells what "
    "belongs to none was not measured here.",
)

USE = Markdown("""On the command line, with `CLASS/file` folders, a .zip, or a table with the columns text and label:

```sh
quickstudy adapt SUPPORT --task NAME --shots 5   # learns the task, keeps it in a small file
quickstudy predict --task NAME QUERIES --json answers.json
quickstudy evaluate SOURCE --way 5 --shot 5      # judges it on your own data
```

In Python, support set and queries in one call (images and recordings as base64 of their files):

```python
import mlflow, pandas as pd

mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
model = mlflow.pyfunc.load_model("models:/quickstudy@champion")
task = {
    "modality": "text",
    "support": [
        {"input": "The council approved the new budget on Tuesday.", "label": "news"},
        {"input": "I finally tried that sourdough recipe, what a mess.", "label": "blog"},
    ],
    "queries": ["The minister will resign at the end of the month."],
}
print(model.predict(pd.DataFrame([task]))["labels"][0])
```""")


def size(rows: pd.DataFrame) -> Size:
    """Return how many classes the tasks of some rows have."""
    way = counts(rows["way"])
    return Size("classes", way, f"with {way} classes each", f"{way}-way")


def chance(evidence: KindEvidence, row: pd.Series) -> float:
    """Return the accuracy of guessing, in tasks of a row of the evaluation's table."""
    return 1 / row["way"]


def not_for(evidence: KindEvidence) -> list[str]:
    """Return what the model is not for."""
    return [
        Markdown(
            "noticing without fail that an example belongs to no class: by the examples that a task keeps, the service "
            "and `quickstudy predict` call *unknown* what looks like none of its classes, at the price of about "
            "`serve.false_alarm` (params.yaml) of what does belong to one; the fewer the examples, the less is called "
            "so, and with one example a class nothing is"
        ),
        not_at_their_word(evidence),
        "finding, counting or outlining things, or writing text: it classifies whole examples",
    ]


def chapters(evidence: KindEvidence) -> list[Chapter]:
    """Return calibration and failures; none where the evaluation did not keep its answers."""
    if evidence.answered.empty:
        return []
    return [weak.calibration(evidence.kind, calibrations(evidence)), weak.failures(evidence)]


SHOWN = Shown(
    title="Classification",
    task="a classification task",
    score=score.NAME,
    unit="shot",
    per="a class",
    methods=METHODS,
    novelties=novelties_of("classes"),
    headline=partial(mean_scores, per="a class"),
    size=size,
    chance=chance,
    guess="chance",
    guessing="guessing",
    good_for=GOOD_FOR,
    not_for=not_for,
    chapters=chapters,
    figures=figures,
    limits=lambda evidence: LIMITS,
    learns="reads a task's examples and corrects the classes' prototypes",
    mixed="modalities, ways and shots",
    validation="5-way 1-shot",
    use=USE,
)
