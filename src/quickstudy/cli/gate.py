"""gate: champion and challenger answer today's episodes, and the gate says its word. Moves nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.errors import QuickstudyError

if TYPE_CHECKING:
    import pandas as pd

    from quickstudy.config import Settings
    from quickstudy.evaluation.gate import Verdict

GATE = Path(".cache") / "gate"
CODES = {"PROMOTE": 0, "HOLD": 3, "REJECT": 4}
"""Exit codes; 2 is a mistake."""


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(gate)


def folder_of(challenger: int, champion: int | None) -> Path:
    """Where the gate leaves verdict.json, the answers of both (challenger.parquet, champion.parquet) and, of the model
    in build/, a card with both."""
    return GATE / f"{challenger}-against-{champion or 'none'}"


def gate(
    version: Annotated[str, typer.Argument(metavar="[VERSION]", help="The challenger: a number or an alias.")]
    = "challenger",
    against: Annotated[str, typer.Option(help="The champion: a number or an alias, or none.")] = "champion",
    as_json: Annotated[bool, typer.Option("--json", help="The verdict with every rule's figures, as JSON.")] = False,
) -> None:  # fmt: skip
    """Is it better, or lucky? Both models answer today's meta-test episodes; the gate says PROMOTE, HOLD or REJECT.

    What it asks stands in params.yaml under gate. Nothing is moved: `quickstudy promote` asks the same and then moves.
    Exit code 0 is PROMOTE, 3 HOLD, 4 REJECT.
    """
    import json
    import os

    from rich.console import Console

    from quickstudy import registry
    from quickstudy.cli.pipeline import project
    from quickstudy.config import load_settings
    from quickstudy.system.progress import showing_progress

    root = project()
    os.chdir(root)
    challenger = registry.version(root, version).number
    champion = registry.version(root, against).number if against != "none" else None
    if champion == challenger:
        raise QuickstudyError(
            "is the champion: it would be compared with itself" if against == "champion" else "compared with itself",
            where=f"models:/{registry.NAME}/{challenger}", fix="Name another: quickstudy gate VERSION --against OTHER",
        )  # fmt: skip
    with showing_progress() as progress:
        verdict = judge_versions(root, load_settings(), challenger, champion, progress)
    if as_json:
        print(json.dumps(verdict.record(), indent=1, ensure_ascii=False))
    else:
        show_verdict(Console(), verdict.record())
    raise typer.Exit(CODES[verdict.answer])


def show_verdict(console: Any, verdict: dict[str, Any]) -> None:
    """The answer, the sentence and a row for each rule."""
    from rich.table import Table
    from rich.text import Text

    from quickstudy.evaluation.gate import Rule

    tones = {"passed": "green", "open": "yellow", "failed": "red", "PROMOTE": "green", "HOLD": "yellow"}
    console.print(Text(verdict["answer"], style=f"bold {tones.get(verdict['answer'], 'red')}"))
    console.print(verdict["sentence"], highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 1))
    for heading in ("rule", "gain", f"{100 * verdict['confidence']:.0f}% interval", "asked", ""):
        table.add_column(heading, justify="right" if heading == "gain" else "left")
    for record in verdict["rules"]:
        rule = Rule.of(record)
        table.add_row(*map(Text, rule.cells()), Text(rule.state, style=tones[rule.state]))
    console.print(table)
    console.print(
        f"{verdict['episodes']:,} episodes for each of {', '.join(verdict['datasets'])} and number of shots, "
        "the same for both",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def judge_versions(
    root: Path, settings: "Settings", challenger: int, champion: int | None, progress: Callable[[str, int, int], None]
) -> "Verdict":
    """Let two versions answer the frozen episodes of ``build/tasks`` and ask the gate; what was answered is kept.

    Raises:
        QuickstudyError: the episodes are not today's, a model cannot be had, or the two cannot be compared.
    """
    import shutil
    from dataclasses import replace

    import pandas as pd
    import torch

    from quickstudy import registry
    from quickstudy.card import write_card
    from quickstudy.cli.stages import CARD, EVALUATE, MODEL, TASKS, read_arrays, read_datasets
    from quickstudy.evaluation import contenders
    from quickstudy.evaluation.answers import Subject
    from quickstudy.evaluation.gate import Evidence, check_kind, judge_until_settled
    from quickstudy.model.store import load_model, weights_digest
    from quickstudy.system.atomic import draft, write_json
    from quickstudy.tasks.frozen import read_episodes
    from quickstudy.versions import dvc
    from quickstudy.versions.lineage import file_hash

    if settings.train.threads:
        torch.set_num_threads(settings.train.threads)
    _are_todays(root)
    splits, episodes = _splits(TASKS / "splits.yaml"), file_hash(TASKS / "episodes.parquet")
    data = dvc.data_hash(root)
    assert episodes is not None and data is not None
    numbers = (challenger,) if champion is None else (challenger, champion)
    folders = [registry.resolve(f"models:/{registry.NAME}/{number}", root) for number in numbers]
    both = [
        contenders.contender(f"version {number}", folder, data, episodes)
        for number, folder in zip(numbers, folders, strict=True)
    ]
    if champion is not None:
        check_kind(both[1], both[0])
    models = [load_model(folder) for folder in folders]
    digests = [weights_digest(folder) for folder in folders]
    frozen = [block for block in read_episodes(TASKS / "episodes.parquet") if block.modality in models[0].encoders]
    names = list(dict.fromkeys(block.dataset for block in frozen))
    datasets = {name: dataset for name, dataset in read_datasets().items() if name in names}
    subjects = []
    for model in models:  # their encoders may read an example differently
        arrays = read_arrays(datasets, model, progress)
        subjects.append({name: Subject(datasets[name], array) for name, (array, _) in arrays.items()})

    def answered(place: int, count: int) -> "pd.DataFrame":
        """The first episodes of each cell; those that were answered before are not answered again."""
        path = GATE / f"answers-{digests[place][:16]}-{episodes[:16]}.parquet"
        found = pd.read_parquet(path) if path.exists() else contenders.NOT_ANSWERED
        have = int(found["episode"].max()) + 1 if len(found) else 0
        if have < count:
            more = contenders.answers(
                models[place], subjects[place], frozen, have, count,
                lambda done, total: progress(f"version {numbers[place]} answers", done, total),
            )  # fmt: skip
            found = pd.concat([found, more], ignore_index=True) if len(found) else more
            with draft(path) as part:
                found.to_parquet(part, index=False, compression="zstd")
        return found[found["episode"] < count]

    folder = folder_of(challenger, champion)
    path = GATE / f"times-{'-'.join(digest[:16] for digest in digests)}-{episodes[:16]}.parquet"
    if path.exists():
        times = pd.read_parquet(path).rename(columns={str(place): place for place in range(len(models))})
    else:
        timed = settings.evaluate.timed_episodes
        times = contenders.time_together(
            models, subjects[0], frozen, timed, lambda done, total: progress("time both", done, total)
        )
        with draft(path) as part:
            times.rename(columns=str).to_parquet(part, index=False)

    baselines = _baselines(EVALUATE / "episodes.parquet")

    def evidence(count: int) -> Evidence:
        these = [
            contenders.with_times(replace(one, episodes=answered(place, count)), times, place)
            for place, one in enumerate(both)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        for name, one in zip(("challenger", "champion"), these, strict=False):
            with draft(folder / f"{name}.parquet") as part:
                one.episodes.to_parquet(part, index=False, compression="zstd")
        return Evidence(
            challenger=these[0], champion=these[1] if len(these) > 1 else None,
            baselines=baselines[baselines["episode"] < count], meta_test=splits, data_digest=data,
            episodes_digest=episodes,
        )  # fmt: skip

    verdict = judge_until_settled(evidence, settings.gate, max(block.count for block in frozen))
    write_json(folder / "verdict.json", verdict.record())
    if (MODEL / "model.safetensors").exists() and weights_digest(MODEL) == digests[0] and CARD.exists():
        # The card of the stage knows no champion; this one does. What the card shows of the version is in build/.
        shutil.copy(folders[0] / "lineage.json", folder)
        write_card(Path("build"), folder / "card", gate=folder)
    return verdict


def _are_todays(root: Path) -> None:
    """Check that the episodes and the baselines' answers are of today's data and settings."""
    from quickstudy.versions import dvc

    stale = dvc.stale(root)
    for step in ("data", "tasks", "evaluate"):
        if step in stale:
            raise QuickstudyError(
                f"its evidence would be older than what is here now ({step}: {stale[step][0]})",
                where="build/evaluate", fix="Bring it up to date: quickstudy run",
            )  # fmt: skip


def _splits(path: Path) -> dict[str, list[str]]:
    """Meta-test groups by dataset."""
    import yaml

    splits = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {
        name: [group for group, side in entry["groups"].items() if side == "test"] for name, entry in splits.items()
    }


def _baselines(path: Path) -> "pd.DataFrame":
    import pandas as pd

    columns = ["dataset", "suite", "shot", "episode", "method", "accuracy"]
    return pd.read_parquet(path, columns=columns)
