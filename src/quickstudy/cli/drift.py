"""`quickstudy drift`: are new examples still like those that the model learned from?"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.sources import NOTHING, How, reads_source
from quickstudy.cli.tasks import JsonOption, ModelOption, tell
from quickstudy.errors import DRIFT, QuickstudyError
from quickstudy.pipeline.paths import DATA
from quickstudy.system.atomic import write_json
from quickstudy.system.environment import CHAMPION
from quickstudy.system.printing import print

if TYPE_CHECKING:
    from quickstudy.config import Settings
    from quickstudy.drift.judge import Batch, Verdict
    from quickstudy.drift.reference import Known

PANEL = "Use the model"
UNUSUAL = 5


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=PANEL)(drift)


@reads_source()
def drift(
    source: Annotated[
        str | None,
        typer.Argument(
            help="A dataset's name, or a folder, .zip or table. Left out: of every dataset in data/ the examples that "
            "came after the training."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="The dataset of the model's that SOURCE has more examples of.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Of a dataset in data/, all that the model did not learn from, also old ones.")
    ] = False,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="SOURCE names no classes: a folder of files, or a .txt of lines.")
    ] = False,
    how: How = NOTHING,
    model: ModelOption = CHAMPION,
    json: JsonOption = None,
) -> None:
    """Are new examples still like those that the model learned from?

    Exit code 0: no drift. 3: drift, by chance improbable (drift.significance) and large (drift.auc). 2: a mistake.

    Each dataset is compared with a sample of training examples that the model keeps: the dataset's own, or else each
    dataset of its modality, and then it has drifted where it is unlike all of them. Whole speakers, scripts and classes
    are compared, so that new classes are no drift by themselves. AUC says how well new examples are told from known
    ones (0.5: not at all), "far" how many of them lie beyond 95% of what was learned (5% by chance). Labels cannot
    drift: each task brings its own.

    [dim]quickstudy drift today.zip --name tickets --json drift.json[/dim]
    """
    from quickstudy.config import load_settings
    from quickstudy.system.environment import find_project

    root = find_project()  # a mistake is told before torch and MLflow are loaded
    settings = load_settings(root / "params.yaml")

    from quickstudy.drift.judge import arrived, judge, unable
    from quickstudy.drift.reference import read_reference
    from quickstudy.model.store import load_model, parts_of, weights_digest
    from quickstudy.registry import resolve

    folder = resolve(model, root)
    parts = parts_of(folder)
    known = {name: one for part in parts.values() for name, one in read_reference(part, model).items()}
    if source is None:
        from quickstudy.pipeline.inputs import read_datasets

        batches = [arrived(dataset, known, everything) for kind in parts for dataset in read_datasets(kind).values()]
    elif (DATA / source / "dataset.yaml").exists():
        from quickstudy.data.dataset import read_dataset

        batches = [arrived(read_dataset(DATA / source), known, everything)]
        if not len(batches[0].rows):
            more = "" if everything else "; --all compares what was there too"
            print(f"{source}: no new examples since the model was trained{more}")
            batches = []
    else:
        batches = [_brought(Path(source), name, known, unlabelled, how)]
    able, left_out = [], {}
    for batch in batches:
        why = unable(batch, known, settings.drift.fewest)
        if why is None:
            able.append(batch)
        elif source is not None:
            raise QuickstudyError(why, where=source)
        else:
            left_out[batch.dataset.name] = why
            print(f"{batch.dataset.name}: {why}")
    verdicts = []
    for kind in dict.fromkeys(batch.dataset.info.kind for batch in able):
        own = [batch for batch in able if batch.dataset.info.kind == kind]
        verdicts += judge(load_model(folder, kind), known, own, settings, model)
    if json is not None:  # before anything is shown, as a reader may have gone
        write_json(json, _record(verdicts, left_out, settings, model, weights_digest(folder, next(iter(parts)))))
    if verdicts:
        _print(verdicts, settings)
    if json is not None:
        print(f"→ {json}")
    if any(verdict.drifted for verdict in verdicts):
        raise typer.Exit(DRIFT)


def _brought(
    source: Path,
    name: str | None,
    known: "Mapping[str, Known]",
    unlabelled: bool,
    how: How,
) -> "Batch":
    """Files of the user's, which need not be imported."""
    import numpy as np

    from quickstudy.data.dataset import Dataset, DatasetInfo, make_table
    from quickstudy.drift.judge import Batch
    from quickstudy.ingest.importers.source import import_source, read_queries
    from quickstudy.system.progress import showing_progress

    learned = sorted(one.name for one in known.values() if len(one.vectors))
    if name is not None and name not in learned:
        raise QuickstudyError(
            f"the model learned from no dataset {name!r}", fix=f"It learned from {', '.join(learned)}"
        )
    if not source.exists():
        raise QuickstudyError("no such dataset in data/ and no such file", where=source)
    called = source.stem.lower() or "source"
    options = how.options()
    with showing_progress() as progress:
        told = partial(progress, "read")
        if unlabelled:
            asked = read_queries(source, options, told, note=tell)
            info = DatasetInfo(name=called, modality=asked.modality)
            nothing = [""] * len(asked.contents)
            table = make_table(info.modality, asked.contents, nothing, nothing, paths=asked.paths)
        else:
            try:
                info, table = import_source(source, "source", options, progress=told, note=tell)
            except QuickstudyError as error:
                if source.suffix.lower() != ".txt":
                    raise
                fix = f"{error.fix or 'Check it'}; or add --unlabelled, where it names no classes"
                raise QuickstudyError(error.what, where=error.where, fix=fix) from None
    dataset = Dataset(info.model_copy(update={"name": called}), table)
    if name is not None and known[name].modality != dataset.modality:
        raise QuickstudyError(f"holds {dataset.modality}, and {name} is {known[name].modality}", where=source)
    return Batch(dataset, np.arange(len(dataset)), name, imported=False, labelled=not unlabelled)


def _print(verdicts: "Sequence[Verdict]", settings: "Settings") -> None:
    import sys

    from rich.table import Table
    from rich.text import Text

    from quickstudy.system.terminal import Console

    table = Table("new examples", "compared with", "AUC", "far", "p", "over", box=None, pad_edge=False)
    for verdict in verdicts:
        for place, (name, distance) in enumerate(verdict.distances.items()):
            test = distance.deciding
            over = _counted(test.units, verdict.words.get(test.kind, test.kind))
            over += f" against {test.reference_units}" + (f", {test.shared} in both" if test.shared else "")
            table.add_row(
                f"{verdict.dataset} ({len(verdict.rows):,})" if place == 0 else "",
                name,
                f"{distance.auc:.2f}",
                f"{distance.far:.0%}",
                f"{distance.p:.3f}",
                over,
            )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for verdict in verdicts:
        colour = "red" if verdict.drifted else "green"
        console.print(Text(_sentence(verdict, settings), style=colour), soft_wrap=True)
        for caution in _cautions(verdict):
            console.print(f"  Note: {caution}", markup=False, highlight=False, soft_wrap=True)
        console.print("  Farthest from what was learned:", highlight=False)
        for place in _unusual(verdict):
            line = f"    {verdict.novelty[place]:.2f}  {verdict.names[place]}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _sentence(verdict: "Verdict", settings: "Settings") -> str:
    policy = settings.drift
    where = verdict.nearest if len(verdict.distances) == 1 else f"{verdict.nearest}, which is nearest"
    found = f"told from {where} with AUC {verdict.auc:.2f}, p {verdict.p:.3f}"
    if verdict.drifted:
        place = f"{verdict.far:.0%} lie beyond 95% of what was learned"
        if verdict.far < 2 * 0.05:
            place = "they lie within what was learned, and crowd in a part of it"
        return f"{verdict.dataset}: drift. {found[0].upper()}{found[1:]}; {place}"
    if verdict.p <= policy.significance:
        return f"{verdict.dataset}: no drift. A difference beyond chance, but a small one: {found}"
    if verdict.auc >= policy.auc:
        test = max((distance.deciding for distance in verdict.distances.values()), key=lambda test: test.p)
        few = _counted(test.units, verdict.words.get(test.kind, test.kind))
        return f"{verdict.dataset}: not decided. {found[0].upper()}{found[1:]}: over {few} that may be chance yet"
    return f"{verdict.dataset}: no drift beyond chance. {found[0].upper()}{found[1:]}"


def _cautions(verdict: "Verdict") -> list[str]:
    """What the verdict takes for granted."""
    found = [
        f"nothing is known of {word}; where the new examples are of one or a few, those few may look like drift"
        for word in verdict.unknown
    ]
    for kind, why in verdict.distances[verdict.nearest].skipped.items():
        word = verdict.words.get(kind, kind)
        found.append(f"by {word} drift cannot be told from chance: {why}. One {word} may look like drift")
    return found


def _unusual(verdict: "Verdict") -> list[int]:
    return [int(place) for place in (-verdict.novelty).argsort(kind="stable")[:UNUSUAL]]


def _counted(count: int, word: str) -> str:
    plural = word if count == 1 else f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count} {plural}"


def _record(
    verdicts: "Sequence[Verdict]", left_out: Mapping[str, str], settings: "Settings", model: str, digest: str
) -> dict[str, Any]:
    """The verdicts as JSON."""
    from dataclasses import asdict

    datasets = []
    for verdict in verdicts:
        compared = [
            {
                "dataset": name,
                "p": one.p,
                "auc": one.auc,
                "far": one.far,
                "decided_by": one.deciding.kind,
                "tests": [asdict(test) for test in one.tests],
                "skipped": dict(one.skipped),
            }
            for name, one in verdict.distances.items()
        ]
        unusual = [
            {"row": int(verdict.rows[place]), "example": verdict.names[place], "novelty": float(verdict.novelty[place])}
            for place in _unusual(verdict)
        ]
        datasets.append(
            {
                "dataset": verdict.dataset,
                "drift": verdict.drifted,
                "p": verdict.p,
                "auc": verdict.auc,
                "far": verdict.far,
                "nearest": verdict.nearest,
                "new": verdict.new,
                "compared": len(verdict.rows),
                "against": compared,
                "unusual": unusual,
                "notes": _cautions(verdict),
            }
        )
    return {
        "drift": any(verdict.drifted for verdict in verdicts),
        "model": model,
        "model_sha256": digest,
        "seed": settings.seed,
        "policy": settings.drift.model_dump(mode="json"),
        "datasets": datasets,
        "left_out": dict(left_out),
    }
