"""What a run ends with: the scores beside the best baseline, the versions, the times and what to type next."""

import csv
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from rich.text import Text

OURS = "quickstudy"


def score_tables(folder: Path) -> list[Table]:
    """Return a table for each kind of task that was judged: of build/evaluate/KIND/table.csv."""
    found = []
    for path in sorted(folder.glob("*/table.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if rows:
            found.append(_table(rows))
    return found


def _table(rows: list[dict[str, str]]) -> Table:
    """A row a suite, a column a number of shots, each cell "ours±ci (best baseline)".

    Suites stand under what is new in them: classes, a domain or a whole dataset. Green where our interval lies above
    the best baseline, red where it lies below.
    """
    shots = sorted({int(row["shot"]) for row in rows})
    kind, metric = rows[0]["kind"], rows[0]["metric"]
    title = f"{kind}: {metric} in % ± 95% interval (best baseline)"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("on tasks with new")
    table.add_column("way", justify="right")
    for shot in shots:
        table.add_column(f"{shot} shot{'s' if shot > 1 else ''}", justify="right", no_wrap=True)
    for novelty in dict.fromkeys(row["novelty"] for row in rows):
        table.add_row(Text(novelty, style="bold"))
        for suite in dict.fromkeys(row["suite"] for row in rows if row["novelty"] == novelty):
            mine = [row for row in rows if (row["suite"], row["novelty"]) == (suite, novelty)]
            ways = sorted({int(row["way"]) for row in mine})
            cells = [_cell([row for row in mine if int(row["shot"]) == shot]) for shot in shots]
            table.add_row(f"  {suite}", ",".join(map(str, ways)), *cells)
    return table


def _cell(rows: list[dict[str, str]]) -> Text:
    ours = next((row for row in rows if row["method"] == OURS), None)
    if ours is None:
        return Text("–")
    score, ci = 100 * float(ours["score"]), 100 * float(ours["ci95"] or 0)
    # Training from scratch is so slow that it answers few of the episodes: its mean is another one's.
    alike = [row for row in rows if row["episodes"] == ours["episodes"]]
    others = [100 * float(row["score"]) for row in alike if row["method"] != OURS]
    text = f"{score:.1f}±{ci:.1f}"
    if not others:
        return Text(text)
    best = max(others)
    style = "green" if score - ci > best else "red" if score + ci < best else ""
    return Text(f"{text} ({best:.1f})", style=style)


def duration(seconds: float) -> str:
    """Return seconds in words: 12.3 → "12 s", 754 → "12 min 34 s", 11100 → "3 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 10 or whole == 0 else f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def next_steps(uncommitted: bool) -> Table:
    """Return what to type next."""
    table = Table.grid(padding=(0, 2))
    for command, what in (
        ("quickstudy ui", "see runs, figures and model card"),
        ("quickstudy adapt SUPPORT --task NAME", "teach it a task from a few examples"),
        ("quickstudy predict --task NAME QUERY", "let it answer"),
        ("quickstudy data import --help", "bring your own data, then run again"),
        *((("git add data.dvc dvc.lock", "and commit: keep these versions"),) if uncommitted else ()),
    ):
        table.add_row(Text(f"  {command}", style="bold", no_wrap=True), what)
    return table


def step_times(seconds: Mapping[str, float], wall: float) -> str:
    """Return the steps in words: {"tasks": 3, "meta_train": 60}, 80 → "tasks 3.0 s · meta_train 1 min 00 s · all in all
    1 min 20 s"."""
    parts = [f"{step} {duration(value)}" for step, value in seconds.items()]
    return " · ".join([*parts, f"all in all {duration(wall)}"])
