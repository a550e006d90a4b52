"""`quickstudy drift`: are new examples still like those that the model learned from?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy import CHAMPION
from quickstudy.cli.stages import DATA
from quickstudy.cli.tasks import JsonOption, ModalityOption, ModelOption, PatternOption
from quickstudy.errors import QuickstudyError
from quickstudy.system.atomic import write_json

if TYPE_CHECKING:
    import numpy as np

    from quickstudy.config import Settings
    from quickstudy.data.dataset import Dataset
    from quickstudy.drift.reference import Known
    from quickstudy.model.metamodel import MetaModel
    from quickstudy.stats.two_sample import Distance

PANEL = "Use the model"
DRIFT = 3
"""Exit code where new examples have drifted."""
UNUSUAL = 5


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(rich_help_panel=PANEL)(drift)


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
    modality: ModalityOption = None,
    pattern: PatternOption = None,
    group: Annotated[str | None, typer.Option(metavar="COLUMN", help="As of `quickstudy data import`.")] = None,
    domain: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The same: who spoke, drew or photographed.")
    ] = None,
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

    from quickstudy.drift.reference import read_reference
    from quickstudy.model.store import load_model, weights_digest
    from quickstudy.registry import resolve

    folder = resolve(model, root)
    known = read_reference(folder, model)
    if source is None:
        from quickstudy.cli.stages import read_datasets

        batches = [_arrived(dataset, known, everything) for dataset in read_datasets().values()]
    elif (DATA / source / "dataset.yaml").exists():
        from quickstudy.data.dataset import read_dataset

        batches = [_arrived(read_dataset(DATA / source), known, everything)]
        if not len(batches[0].rows):
            more = "" if everything else "; --all compares what was there too"
            print(f"{source}: no new examples since the model was trained{more}")
            batches = []
    else:
        batches = [_brought(Path(source), name, known, unlabelled, modality, pattern, group, domain)]
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
    verdicts = judge(load_model(folder), known, able, settings, model) if able else []
    if verdicts:
        _print(verdicts, settings)
    if json is not None:
        write_json(json, _record(verdicts, left_out, settings, model, weights_digest(folder)))
        print(f"→ {json}")
    if any(verdict.drifted for verdict in verdicts):
        raise typer.Exit(DRIFT)


@dataclass(frozen=True)
class Batch:
    """New examples, and which of them are looked at."""

    dataset: "Dataset"
    rows: "np.ndarray"
    """int [n], of the dataset"""
    like: str | None
    """the dataset of the model's that these are more of"""
    imported: bool = True
    """whether it lies in data/, where rows have numbers"""
    labelled: bool = True


@dataclass(frozen=True)
class Verdict:
    """What is known of one batch."""

    dataset: str
    new: int
    """examples that are new"""
    rows: "np.ndarray"
    """of those the ones that were compared"""
    names: list[str]
    """what each is called"""
    distances: "dict[str, Distance]"
    """by the dataset of the model's that it was compared with"""
    p: float
    """adjusted for the number of batches (Holm)"""
    drifted: bool
    words: Mapping[str, str]
    """kind of unit → a word for it"""
    unknown: tuple[str, ...]
    """kinds of unit that the model's datasets have and the new examples do not tell"""

    @property
    def nearest(self) -> str:
        """The dataset of the model's that it is least unlike."""
        return min(self.distances, key=lambda name: self.distances[name].auc)

    @property
    def auc(self) -> float:
        return self.distances[self.nearest].auc

    @property
    def far(self) -> float:
        return self.distances[self.nearest].far

    @property
    def novelty(self) -> "np.ndarray":
        """Of each example that was compared: how far it is from all that was learned; 1 is far already."""
        import numpy as np

        novelty: np.ndarray = np.min([distance.novelty for distance in self.distances.values()], axis=0)
        return novelty


def judge(
    model: "MetaModel", known: "Mapping[str, Known]", batches: Sequence[Batch], settings: "Settings",
    model_name: object = "",
) -> list[Verdict]:  # fmt: skip
    """Compare batches of new examples with what a model learned from. Reads no file but the batches' own.

    Args:
        known: what the model remembers (`reference.read_reference`).
        batches: such as can be compared (`unable`).

    Returns:
        a verdict for each batch. A batch has drifted where it is unlike each dataset that it was
        compared with: its p-value is the largest of them, adjusted by Holm for the number of batches.

    Raises:
        QuickstudyError: the model makes of an example what is no vector.
    """
    from quickstudy.stats.two_sample import holm
    from quickstudy.system.progress import showing_progress

    found = []
    with showing_progress() as progress:
        for batch in batches:
            found.append(_compare(model, known, batch, settings, len(batches), model_name, progress))
    adjusted = holm([max(distance.p for distance in distances.values()) for _, distances, _ in found])
    verdicts = []
    for batch, (rows, distances, words), p in zip(batches, found, adjusted, strict=True):
        least = min(distance.auc for distance in distances.values())
        drifted = p <= settings.drift.significance and least >= settings.drift.auc
        kinds = dict.fromkeys(kind for name in distances for kind in known[name].units)
        unknown = tuple(next(known[name].words[kind] for name in distances if kind in known[name].words)
                        for kind in kinds if kind not in words)  # fmt: skip
        verdicts.append(
            Verdict(batch.dataset.name, len(batch.rows), rows, _names(batch, rows), distances, p, drifted,
                    words, unknown)
        )  # fmt: skip
    return verdicts


def _compare(
    model: "MetaModel", known: "Mapping[str, Known]", batch: Batch, settings: "Settings", batches: int,
    model_name: object, progress: Callable[[str, int, int], None],
) -> "tuple[np.ndarray, dict[str, Distance], dict[str, str]]":  # fmt: skip
    """The rows that were compared, the distances by dataset of the model's, and words for the kinds of unit."""
    import numpy as np

    from quickstudy.data.dataset import Dataset
    from quickstudy.drift.reference import embed, units_of
    from quickstudy.encoders.features import features
    from quickstudy.stats.two_sample import Sample, measure

    policy, dataset = settings.drift, batch.dataset
    rows = batch.rows
    if len(rows) > policy.examples:
        rows = np.sort(np.random.default_rng(settings.seed).permutation(rows)[: policy.examples])
    some = Dataset(dataset.info, dataset.table.take(rows))
    told = f"prepare {dataset.name}"
    arrays, _ = features(some, model.encoder(dataset.modality), None, lambda done, total: progress(told, done, total))
    vectors = embed(model, dataset.modality, arrays)
    bad = ~np.isfinite(vectors).all(1)
    if bad.any():
        where = f"{dataset.name}, {_names(batch, rows)[bad.argmax()]}"
        raise QuickstudyError(f"the model {model_name} makes no finite vector of it", where=where)
    units, words = units_of(some, np.arange(len(some))) if batch.labelled else ({}, {})
    distances = {}
    references = _references(batch, known)
    for done, one in enumerate(references):
        progress(f"compare {dataset.name}", done, len(references))
        # A class of the same name in another dataset is another class.
        mark = "" if one.name == batch.like else "new "
        new = Sample(vectors, {kind: [mark + unit for unit in names] for kind, names in units.items()})
        least = policy.significance / batches
        distances[one.name] = measure(Sample(one.vectors, one.units), new, policy, settings.seed, least)
    return rows, distances, words


def _references(batch: Batch, known: "Mapping[str, Known]") -> "list[Known]":
    if batch.like is not None:
        return [known[batch.like]]
    return [one for one in known.values() if one.modality == batch.dataset.modality and len(one.vectors)]


def unable(batch: Batch, known: "Mapping[str, Known]", fewest: int) -> str | None:
    """Why a batch cannot be compared; None where it can."""
    references = _references(batch, known)
    if not references:
        modalities = ", ".join(sorted({one.modality for one in known.values() if len(one.vectors)}))
        return f"the model has learned {modalities}, not {batch.dataset.modality}"
    if len(batch.rows) < fewest:
        noun = "example" if len(batch.rows) == 1 else "examples"
        if not len(batch.rows):
            return "no new examples since the model was trained"
        return f"{len(batch.rows)} new {noun}, at least {fewest} are needed (drift.fewest)"
    short = next((one for one in references if len(one.vectors) < fewest), None)
    if short is not None:
        return f"the model keeps {len(short.vectors)} examples of {short.name}, at least {fewest} are needed"
    return None


def _arrived(dataset: "Dataset", known: "Mapping[str, Known]", everything: bool) -> Batch:
    """Of a dataset in data/ what was not there when the model was trained."""
    import numpy as np

    from quickstudy.drift.reference import content_digests

    one = known.get(dataset.name)
    if one is None:
        return Batch(dataset, np.arange(len(dataset)), None)
    digests = content_digests(dataset)
    old = one.is_learned(digests) if everything else one.is_there(digests)
    like = dataset.name if len(one.vectors) and one.modality == dataset.modality else None
    return Batch(dataset, np.flatnonzero(~old), like)


def _brought(
    source: Path, name: str | None, known: "Mapping[str, Known]", unlabelled: bool, modality: Any, pattern: str | None,
    group: str | None, domain: str | None,
) -> Batch:  # fmt: skip
    """Files of the user's, which need not be imported."""
    import numpy as np

    from quickstudy.data.dataset import MODALITIES, Dataset, DatasetInfo, make_table
    from quickstudy.ingest.importers import import_source, read_queries
    from quickstudy.system.progress import showing_progress

    if modality is not None and modality not in MODALITIES:
        raise QuickstudyError(f"{modality!r} is no modality", where="--modality", fix=f"Known: {', '.join(MODALITIES)}")
    learned = sorted(one.name for one in known.values() if len(one.vectors))
    if name is not None and name not in learned:
        raise QuickstudyError(
            f"the model learned from no dataset {name!r}", fix=f"It learned from {', '.join(learned)}"
        )
    if not source.exists():
        raise QuickstudyError("no such dataset in data/ and no such file", where=source)
    if not unlabelled and source.suffix.lower() == ".txt":
        raise QuickstudyError("a .txt names no classes", where=source, fix="Add --unlabelled (and --modality text)")
    called = source.stem.lower() or "source"
    with showing_progress() as progress:
        if unlabelled:
            asked = read_queries(
                source, modality, pattern=pattern, progress=lambda done, total: progress("read", done, total)
            )
            info = DatasetInfo.model_validate({"name": called, "modality": asked.modality})
            nothing = [""] * len(asked.contents)
            table = make_table(info.modality, asked.contents, nothing, nothing, paths=asked.paths)
        else:
            info, table = import_source(
                source, "source", modality, pattern=pattern, group=group, domain=domain,
                progress=lambda done, total: progress("read", done, total),
            )  # fmt: skip
    dataset = Dataset(info.model_copy(update={"name": called}), table)
    if name is not None and known[name].modality != dataset.modality:
        raise QuickstudyError(f"holds {dataset.modality}, and {name} is {known[name].modality}", where=source)
    return Batch(dataset, np.arange(len(dataset)), name, imported=False, labelled=not unlabelled)


def _names(batch: Batch, rows: "np.ndarray") -> list[str]:
    """What to call examples: the number of the row in data/, the name of a file, the beginning of a text."""
    dataset = batch.dataset
    if dataset.modality == "text":
        called = [text[:60] for text in dataset.raw(rows)]
    else:
        called = dataset.table.column(dataset.modality).combine_chunks().field("path").take(rows).to_pylist()
    if not batch.imported:
        return [name or f"example {row + 1}" for row, name in zip(rows.tolist(), called, strict=True)]
    return [f"row {row}" + (f": {name}" if name else "") for row, name in zip(rows.tolist(), called, strict=True)]


def _print(verdicts: Sequence[Verdict], settings: "Settings") -> None:
    import sys

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("new examples", "compared with", "AUC", "far", "p", "over", box=None, pad_edge=False)
    for verdict in verdicts:
        for place, (name, distance) in enumerate(verdict.distances.items()):
            test = distance.deciding
            over = _counted(test.units, verdict.words.get(test.kind, test.kind))
            over += f" against {test.reference_units}" + (f", {test.shared} in both" if test.shared else "")
            table.add_row(
                f"{escape(verdict.dataset)} ({len(verdict.rows):,})" if place == 0 else "", escape(name),
                f"{distance.auc:.2f}", f"{distance.far:.0%}", f"{distance.p:.3f}", escape(over),
            )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for verdict in verdicts:
        colour = "red" if verdict.drifted else "green"
        console.print(f"[{colour}]{escape(_sentence(verdict, settings))}[/{colour}]", highlight=False, soft_wrap=True)
        for caution in _cautions(verdict):
            console.print(f"  Note: {caution}", markup=False, highlight=False, soft_wrap=True)
        console.print("  Farthest from what was learned:", highlight=False)
        for place in _unusual(verdict):
            line = f"    {verdict.novelty[place]:.2f}  {verdict.names[place]}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _sentence(verdict: Verdict, settings: "Settings") -> str:
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


def _cautions(verdict: Verdict) -> list[str]:
    """What the verdict takes for granted."""
    found = [
        f"nothing is known of {word}; where the new examples are of one or a few, those few may look like drift"
        for word in verdict.unknown
    ]
    for kind, why in verdict.distances[verdict.nearest].skipped.items():
        word = verdict.words.get(kind, kind)
        found.append(f"by {word} drift cannot be told from chance: {why}. One {word} may look like drift")
    return found


def _unusual(verdict: Verdict) -> list[int]:
    return [int(place) for place in (-verdict.novelty).argsort(kind="stable")[:UNUSUAL]]


def _counted(count: int, word: str) -> str:
    plural = word if count == 1 else f"{word}es" if word.endswith("s") else f"{word}s"
    return f"{count} {plural}"


def _record(
    verdicts: Sequence[Verdict], left_out: Mapping[str, str], settings: "Settings", model: str, digest: str
) -> dict[str, Any]:
    """The verdicts as JSON."""
    from dataclasses import asdict

    datasets = []
    for verdict in verdicts:
        compared = [
            {"dataset": name, "p": one.p, "auc": one.auc, "far": one.far, "decided_by": one.deciding.kind,
             "tests": [asdict(test) for test in one.tests], "skipped": dict(one.skipped)}
            for name, one in verdict.distances.items()
        ]  # fmt: skip
        unusual = [
            {"row": int(verdict.rows[place]), "example": verdict.names[place], "novelty": float(verdict.novelty[place])}
            for place in _unusual(verdict)
        ]
        datasets.append(
            {"dataset": verdict.dataset, "drift": verdict.drifted, "p": verdict.p, "auc": verdict.auc,
             "far": verdict.far, "nearest": verdict.nearest, "new": verdict.new, "compared": len(verdict.rows),
             "against": compared, "unusual": unusual, "notes": _cautions(verdict)}
        )  # fmt: skip
    return {
        "drift": any(verdict.drifted for verdict in verdicts), "model": model, "model_sha256": digest,
        "seed": settings.seed, "policy": settings.drift.model_dump(mode="json"), "datasets": datasets,
        "left_out": dict(left_out),
    }  # fmt: skip
