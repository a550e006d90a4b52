"""A comparison in words: the sentence that recommends a cell, and the page in Markdown."""

import math
from collections.abc import Sequence

import pandas as pd

from quickstudy.comparison.grid import LEARNER, Cell
from quickstudy.comparison.table import Recommendation
from quickstudy.config import Settings
from quickstudy.report.words import duration, interval, plain

PICTURE = "compare.png"


def sentence(table: pd.DataFrame, found: Recommendation, cells: Sequence[Cell], base: Settings, kind: str) -> str:
    """Say which cell is best, which are not significantly worse, the fastest of these, and how to set that in
    params.yaml, for this kind of task alone where there are others."""
    rows = table.set_index("cell")
    best = rows.loc[found.best]
    if (table["failure"] == "").sum() == 1:
        return f"{found.best} reaches {interval(best['score'], best['ci95'])}%; there is nothing to compare it with."
    said = f"{found.best} is best ({interval(best['score'], best['ci95'])}%)"
    if found.equals:
        *most, last = found.equals
        others = f"{', '.join(most)} and {last} are" if most else f"{last} is"
        ms = rows.loc[found.chosen, "adapt_ms"]
        said += f", {others} not significantly worse, and the fastest of these is {found.chosen}"
        said += "" if math.isnan(ms) else f" ({duration(ms)} a task)"
    else:
        said += " and all the others are significantly worse"
    chosen = next(cell for cell in cells if cell.name == found.chosen)
    lines = [f"{LEARNER}: {chosen.learner}"] if chosen.learner != base.model.learner else []
    if chosen.change is not None:
        lines.append(": ".join(chosen.change.text.split("=", 1)))
    where = f"under kinds.{kind} in params.yaml" if len(base.kinds) > 1 else "in params.yaml"
    return f"{said}: " + (f"set {' and '.join(lines)} {where}." if lines else "params.yaml has it so already.")


def capital(score: str) -> str:
    """Return a score's name as a heading begins with it."""
    return score[:1].upper() + score[1:]


def headings(table: pd.DataFrame) -> list[str]:
    """Return the heads of the table for people, what matters most first."""
    modalities = [name.removeprefix("score_") for name in table.columns if name.startswith("score_")]
    return ["", "cell", "all", "to the best", "adapts in", *modalities, "trained in", "parameters", "memory"]


def texts(row: pd.Series) -> list[str]:
    """Return what stands under the `headings` for a cell that did not fail; its number is what the picture says
    in a crowd."""
    names = [str(name) for name in row.index if str(name).startswith("score")]
    overall, *each = [interval(row[name], row[name.replace("score", "ci95")]) for name in names]
    difference, half = row["difference"], row["difference_ci95"]
    return [
        str(int(row.name) + 1),
        row["cell"],
        overall,
        "best" if difference == half == 0 else _signed(difference, half),
        "–" if math.isnan(row["adapt_ms"]) else duration(row["adapt_ms"]),
        *each,
        duration(1000 * row["train_seconds"]),
        f"{row['parameters']:,.0f}",
        "–" if math.isnan(row["peak_mib"]) else f"{row['peak_mib']:,.0f} MiB",
    ]


def _signed(difference: float, half: float) -> str:
    """ "−1.3 ± 0.4", in percentage points."""
    return f"{'+' if difference > 0 else '−'}{interval(abs(difference), half)}"


def markdown(table: pd.DataFrame, episodes: pd.DataFrame, said: str, score: str, split: str, steps: int) -> str:
    """Return the page.

    Args:
        episodes: columns suite and shot: what there is.
        said: the recommending `sentence`.
        score: what the kind of task calls it.
        steps: of each training, if no change says otherwise.
    """
    ran = table[table["failure"] == ""]
    heads = headings(table)
    lines = [f"| {' | '.join(heads)} |", f"|--:|---|{'--:|' * (len(heads) - 2)}"]
    lines += [f"| {' | '.join(plain(text) for text in texts(row))} |" for _, row in ran.iterrows()]
    trainings = int(ran["trainings"].iloc[0])
    chance = "over episodes; the luck of a training is not in it (`--seeds 3` adds it)"
    if trainings > 1:
        chance = f"over episodes and over {trainings} trainings of each cell"
    shots = ", ".join(str(shot) for shot in sorted(episodes["shot"].unique()))
    suites = ", ".join(plain(suite) for suite in episodes["suite"].unique())
    parts = [
        "# Comparison of learners and encoders",
        plain(said),
        f"![{capital(score)} against the time to adapt]({PICTURE})",
        "\n".join(lines),
        f"{capital(score)} in percent ± half of its 95% interval, {chance}. To the best: the mean difference on "
        "the same episodes. Each modality counts alike, and within it each suite and number of shots. The time to "
        "adapt goes from the files of a support set to what was learned from it, all cells in turn on the same tasks: "
        "the median of each modality, and their mean. The time of training depends on what else the machine did.",
        f"Each cell was trained for {steps} steps and answered the same {int(ran['episodes'].iloc[0]):,} frozen "
        f"episodes of meta-{split} with {shots} shots: {suites}.",
    ]
    if split == "test":
        parts.append("What is chosen by meta-test can no longer be judged on it.")
    parts += [f"{plain(row.cell)} failed: {plain(row.failure)}" for row in table[table["failure"] != ""].itertuples()]
    return "\n\n".join(parts) + "\n"
