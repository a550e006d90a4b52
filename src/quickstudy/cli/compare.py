"""compare: learners × encoders, trained alike and judged on the same episodes; a table, a picture, a recommendation."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import draft, write_bytes, write_json

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from quickstudy.cli.stages import Training
    from quickstudy.comparison.grid import Cell
    from quickstudy.comparison.table import Cost
    from quickstudy.config import Settings
    from quickstudy.data.dataset import Dataset
    from quickstudy.tasks.frozen import FrozenEpisodes

CELLS = Path(".cache/compare")
LEAST_NAME = 18  # columns of a terminal; a longer name goes on in the next line

Progress = Callable[[str, int, int], None]


class SplitName(StrEnum):
    validation = "validation"
    test = "test"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(compare)


def compare(
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
    from quickstudy.cli.stages import read_datasets
    from quickstudy.comparison.grid import freeze_all, grid
    from quickstudy.config import changed, load_settings
    from quickstudy.system.progress import showing_progress

    base = load_settings()
    if out.exists() and not out.is_dir():  # told before the training, not after it
        raise QuickstudyError("is no folder", where=out, fix="Name another --out")
    if steps is not None:
        base = changed(base, "train.steps", steps, "--steps")
    cells = grid(base, learner or [], change or [])
    datasets = read_datasets()
    frozen = freeze_all(datasets.values(), base, split.value)
    runs: dict[str, list[Run]] = {}
    failures: dict[str, str] = {}
    for number, cell in enumerate(cells, 1):
        try:
            own = []
            for seed in range(base.seed, base.seed + seeds):
                title = f"{number}/{len(cells)} {cell.name}" + (f", seed {seed}" if seeds > 1 else "")
                with showing_progress() as progress:
                    own.append(_run(cell, cell.settings(base, seed), datasets, frozen, title, progress))
            runs[cell.name] = own
        except QuickstudyError as error:
            failures[cell.name] = str(error)
            print(f"quickstudy: {cell.name} is left out: {error}", file=sys.stderr)
    if not runs:
        name, why = next(iter(failures.items()))
        raise QuickstudyError(f"none of the cells has a result; {name}: {why}")
    with showing_progress() as progress, _threads(base.train.threads):
        folders = {name: own[0].folder for name, own in runs.items()}
        times = _time(folders, datasets, frozen, max(1, base.evaluate.timed_episodes), progress)
    _tell(cells, runs, times, failures, base, split.value, out)


@dataclass(frozen=True)
class Run:
    """A cell that was trained with one seed, and judged."""

    folder: Path
    answers: "pd.DataFrame"
    """one row an episode"""
    cost: "Cost"


def _run(
    cell: "Cell", settings: "Settings", datasets: "dict[str, Dataset]", frozen: "Sequence[FrozenEpisodes]",
    title: str, progress: Progress,
) -> Run:  # fmt: skip
    """Train a model and judge it; what was done before is read."""
    from quickstudy.cli.stages import prepare_training

    with _threads(settings.train.threads):
        training = prepare_training(settings, datasets, progress)
        folder = CELLS / training.key
        cost = _train(training, settings, folder, lambda done, total: progress(title, done, total))
        answers = _judge(folder, settings, datasets, frozen, f"{title}: judge", progress)
    about = {"cell": cell.name, "learner": cell.learner, "change": cell.change.text if cell.change else ""}
    return Run(folder, answers.assign(**about, seed=settings.seed), cost)


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """So many threads of torch for a while; 0 leaves them as they are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(training: "Training", settings: "Settings", folder: Path, progress: Callable[[int, int], None]) -> "Cost":
    """FOLDER/model, curve.csv and, last of all, cost.json, which says that the cell is trained."""
    import json
    import math

    from quickstudy.comparison.table import Cost
    from quickstudy.model.store import save_model
    from quickstudy.training import meta_train, write_curve

    record, checkpoint = folder / "cost.json", folder / "checkpoint.safetensors"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Cost(**json.loads(record.read_text(encoding="utf-8")))
    counted = _forget_peak()
    result = meta_train(
        training.model, training.sources["train"], training.sources["validation"], settings, checkpoint,
        lambda step, steps, text: progress(step, steps),
    )  # fmt: skip
    parameters = sum(p.numel() for p in training.model.parameters())
    cost = Cost(result.seconds, parameters, _peak_mib() if counted else math.nan)
    save_model(training.model, folder / "model", training.lineage)
    write_curve(folder / "curve.csv", result.curve)
    write_json(record, asdict(cost))
    checkpoint.unlink(missing_ok=True)
    return cost


def _judge(
    folder: Path, settings: "Settings", datasets: "Mapping[str, Dataset]", frozen: "Sequence[FrozenEpisodes]",
    title: str, progress: Progress,
) -> "pd.DataFrame":  # fmt: skip
    """One row an episode of what the model has learned; kept in FOLDER, a file a dataset."""
    import pandas as pd

    from quickstudy.cli.stages import read_arrays
    from quickstudy.config import Evaluate
    from quickstudy.evaluation.answers import Subject, evaluate
    from quickstudy.model.store import load_model

    try:
        model = load_model(folder / "model")
    except QuickstudyError as error:
        raise QuickstudyError(error.what, where=folder, fix="Delete the folder: it is then trained anew") from None
    blocks = [block for block in frozen if block.modality in model.encoders]
    if not blocks:
        raise QuickstudyError(f"there are no episodes of what it has learned ({', '.join(model.modalities)})")
    names = dict.fromkeys(block.dataset for block in blocks)
    arrays = read_arrays({name: datasets[name] for name in names}, model, progress)
    ours = Evaluate(baselines=False, scratch_episodes=0, scratch_steps=1, timed_episodes=1)  # `_time` has the word
    total, before = sum(block.count for block in blocks), 0
    parts = []
    for name in names:
        own = [block for block in blocks if block.dataset == name]
        path = folder / f"judged-{name}-{_judgement_key(own, arrays[name][1])}.parquet"
        frame = None
        with contextlib.suppress(OSError, ValueError):  # missing, or damaged: judged anew
            frame = pd.read_parquet(path)
        if frame is None:
            subject = {name: Subject(datasets[name], arrays[name][0])}
            frame = evaluate(
                model, subject, own, ours, settings.seed,
                lambda done, _, before=before: progress(title, before + done, total),  # type: ignore[misc]
            )  # fmt: skip
            with draft(path) as part:
                frame.to_parquet(part, index=False, compression="zstd")
        parts.append(frame.drop(columns=["method", "adapt_ms"]))
        before += sum(block.count for block in own)
    return pd.concat(parts, ignore_index=True)


def _judgement_key(blocks: "Sequence[FrozenEpisodes]", data: str) -> str:
    """Names a judgement by what it depends on besides the model: episodes, data and code."""
    from hashlib import blake2b

    digest = blake2b(data.encode(), digest_size=12)
    digest.update(_judging_code())
    for block in blocks:
        episodes = block.episodes
        digest.update(repr((block.suite, episodes.support.shape, episodes.query.shape)).encode())
        digest.update(episodes.support.numpy().tobytes() + episodes.query.numpy().tobytes())
    return digest.hexdigest()


@cache
def _judging_code() -> bytes:
    """Read once: what is edited later does not run in this process."""
    from quickstudy.evaluation import answers as evaluation

    return Path(evaluation.__file__).read_bytes()


def _time(
    folders: Mapping[str, Path], datasets: "Mapping[str, Dataset]", frozen: "Sequence[FrozenEpisodes]", count: int,
    progress: Progress,
) -> "pd.DataFrame":  # fmt: skip
    """What adapting takes by cell, suite, shot and episode. Another cell beside them, and all are timed anew: only
    times that were taken together can be compared."""
    from hashlib import blake2b

    import pandas as pd

    from quickstudy.comparison.timing import time_adaptation
    from quickstudy.model.store import load_model

    digest = blake2b(repr((count, sorted((n, f.name) for n, f in folders.items()))).encode(), digest_size=12)
    digest.update(_judgement_key(frozen, "").encode())
    path = CELLS / f"times-{digest.hexdigest()}.parquet"
    with contextlib.suppress(OSError, ValueError):
        return pd.read_parquet(path)
    models = {name: load_model(folder / "model") for name, folder in folders.items()}
    blocks = [block for block in frozen if all(block.modality in model.encoders for model in models.values())]
    times = time_adaptation(models, datasets, blocks, count, lambda done, total: progress("time", done, total))
    with draft(path) as part:
        times.to_parquet(part, index=False, compression="zstd")
    return times


def _forget_peak() -> bool:
    """Let the system count the most memory that the process holds from here on. False where it cannot (not Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _peak_mib() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _tell(
    cells: "Sequence[Cell]", runs: Mapping[str, Sequence[Run]], times: "pd.DataFrame", failures: Mapping[str, str],
    base: "Settings", split: str, out: Path,
) -> None:  # fmt: skip
    """Write table.csv, compare.md, compare.png and episodes.parquet; print the table and what it says."""
    import pandas as pd
    from rich.console import Console
    from rich.text import Text

    from quickstudy.comparison.page import PICTURE, markdown, sentence
    from quickstudy.comparison.picture import png
    from quickstudy.comparison.table import recommend, tabulate

    episodes = pd.concat([run.answers for own in runs.values() for run in own], ignore_index=True)
    episodes = episodes.merge(times.assign(seed=base.seed), how="left", on=["cell", "seed", "suite", "shot", "episode"])
    front = ["cell", "learner", "change", "seed"]
    episodes = episodes[[*front, *(name for name in episodes.columns if name not in front)]]
    table = tabulate(cells, episodes, {name: [run.cost for run in own] for name, own in runs.items()}, failures)
    found = recommend(table)
    said = sentence(table, found, cells, base)
    with draft(out / "episodes.parquet") as part:
        episodes.to_parquet(part, index=False, compression="zstd")
    with draft(out / "table.csv") as part:
        table.to_csv(part, index=False, float_format="%.6g")
    write_bytes(out / PICTURE, png(table, found, f"meta-{split}"))
    with draft(out / "compare.md") as part:
        part.write_text(markdown(table, episodes, said, split, base.train.steps), encoding="utf-8")

    console = Console()
    console.print(_shown(table, found.chosen, f"Accuracy on meta-{split} tasks in % ± 95% interval", console))
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
