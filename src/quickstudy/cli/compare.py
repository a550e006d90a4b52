"""compare: learners × encoders, trained alike and judged on the same episodes; a table, a picture, a recommendation."""

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import draft, write_bytes
from quickstudy.system.printing import print

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from quickstudy.comparison.grid import Cell
    from quickstudy.config import Settings
    from quickstudy.pipeline.compare import Run
    from quickstudy.system.terminal import Console

LEAST_NAME = 18  # columns of a terminal; a longer name goes on in the next line


class SplitName(StrEnum):
    validation = "validation"
    test = "test"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(compare)


def compare(
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Of task, on whose datasets.")] = "classify",
    learner: Annotated[
        list[str] | None, typer.Option("--learner", metavar="NAME", help="Only this one; may be repeated. Else all.")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Each learner also with this parameter of params.yaml; may be repeated."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Meta-batches of each training; else train.steps.")] = None,
    split: Annotated[
        SplitName, typer.Option(help="Whose tasks decide. What was chosen on [b]test[/b] cannot be judged on it.")
    ] = SplitName.validation,
    seeds: Annotated[
        int, typer.Option(min=1, help="Trainings of each cell; from 3 on the intervals hold their luck too.")
    ] = 1,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where table, page, picture and episodes go.")] = Path(
        "build/compare"
    ),
) -> None:
    """Train every learner alike, judge all on the same frozen tasks and say which one to take.

    What is finished is kept: the same command again trains nothing, and goes on where it was stopped.

    [dim]quickstudy compare --learner adapt --learner protonet --set model.width=32 --seeds 3[/dim]
    """
    from quickstudy.comparison.grid import freeze_all, grid
    from quickstudy.config import changed, load_settings
    from quickstudy.kinds.targets import targets_of
    from quickstudy.pipeline.compare import compare_all, threads_of, time_all
    from quickstudy.pipeline.inputs import read_datasets
    from quickstudy.system.progress import showing_progress

    targets_of(kind)
    base = load_settings().of(kind)
    if out.exists() and not out.is_dir():  # told before the training, not after it
        raise QuickstudyError("is no folder", where=out, fix="Name another --out")
    if steps is not None:
        base = changed(base, "train.steps", steps, "--steps")
    cells = grid(base, learner or [], change or [])
    datasets = read_datasets(kind)
    if not datasets:
        fix = f"Import one: quickstudy data import SOURCE --kind {kind} --name NAME"
        raise QuickstudyError(f"there is no dataset of kind {kind}", where="data", fix=fix)
    frozen = freeze_all(datasets.values(), base, split.value)
    runs: dict[str, list[Run]] = {}
    failures: dict[str, str] = {}
    for number, cell in enumerate(cells, 1):
        try:
            own = []
            for seed in range(base.seed, base.seed + seeds):
                title = f"{number}/{len(cells)} {cell.name}" + (f", seed {seed}" if seeds > 1 else "")
                with showing_progress() as progress:
                    own.append(compare_all(cell, cell.settings(base, seed), datasets, frozen, title, progress))
            runs[cell.name] = own
        except QuickstudyError as error:
            failures[cell.name] = str(error)
            print(f"quickstudy: {cell.name} is left out: {error}", file=sys.stderr)
    if not runs:
        name, why = next(iter(failures.items()))
        raise QuickstudyError(f"none of the cells has a result; {name}: {why}")
    with showing_progress() as progress, threads_of(base.train.threads):
        folders = {name: own[0].folder for name, own in runs.items()}
        times = time_all(folders, datasets, frozen, max(1, base.evaluate.timed_episodes), progress)
    _tell(cells, runs, times, failures, base, kind, split.value, out)


def _tell(
    cells: "Sequence[Cell]",
    runs: "Mapping[str, Sequence[Run]]",
    times: "pd.DataFrame",
    failures: Mapping[str, str],
    base: "Settings",
    kind: str,
    split: str,
    out: Path,
) -> None:
    """Write table.csv, compare.md, compare.png and episodes.parquet; print the table and what it says."""
    import pandas as pd
    from rich.text import Text

    from quickstudy.comparison.page import PICTURE, capital, markdown, sentence
    from quickstudy.comparison.picture import png
    from quickstudy.comparison.table import recommend, tabulate
    from quickstudy.kinds.scores import SCORES
    from quickstudy.system.terminal import Console

    episodes = pd.concat([run.answers for own in runs.values() for run in own], ignore_index=True)
    episodes = episodes.merge(times.assign(seed=base.seed), how="left", on=["cell", "seed", "suite", "shot", "episode"])
    front = ["cell", "learner", "change", "seed"]
    episodes = episodes[[*front, *(name for name in episodes.columns if name not in front)]]
    table = tabulate(cells, episodes, {name: [run.cost for run in own] for name, own in runs.items()}, failures)
    found = recommend(table)
    score = SCORES[kind].NAME
    said = sentence(table, found, cells, base, kind)
    with draft(out / "episodes.parquet") as part:
        episodes.to_parquet(part, index=False, compression="zstd")
    with draft(out / "table.csv") as part:
        table.to_csv(part, index=False, float_format="%.6g")
    write_bytes(out / PICTURE, png(table, found, score, f"meta-{split}"))
    with draft(out / "compare.md") as part:
        part.write_text(markdown(table, episodes, said, score, split, base.train.steps), encoding="utf-8")

    console = Console()
    console.print(_shown(table, found.chosen, f"{capital(score)} on meta-{split} tasks in % ± 95% interval", console))
    for name, why in failures.items():
        console.print(Text(f"{name} failed: {why}"), soft_wrap=True)
    console.print(Text(said), soft_wrap=True)
    print(f"→ {out / 'compare.md'}, {PICTURE}, table.csv, episodes.parquet")


def _shown(table: "pd.DataFrame", chosen: str, title: str, console: "Console") -> "Table":
    """The table for people. On a terminal the last columns are left out where there is no room: table.csv has them."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    from quickstudy.comparison.page import headings, texts

    heads = headings(table)
    ran = table[table["failure"] == ""]
    lines = [texts(row) for _, row in ran.iterrows()]
    widths = [max(map(cell_len, column)) + 1 for column in zip(heads, *lines, strict=True)]
    if not console.is_terminal:
        console.width = sum(widths)
    name = heads.index("cell")
    least = [min(width, LEAST_NAME) if place == name else width for place, width in enumerate(widths)]
    count = max(3, sum(sum(least[: place + 1]) <= console.width for place in range(len(least))))
    shown = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for place, heading in enumerate(heads[:count]):
        if place == name:
            shown.add_column(heading, overflow="fold")
        else:
            shown.add_column(heading, justify="right", min_width=widths[place] - 1)
    for cell, line in zip(ran["cell"], lines, strict=True):
        shown.add_row(*(Text(text) for text in line[:count]), style="bold green" if cell == chosen else "")
    return shown
