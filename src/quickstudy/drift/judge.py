"""Whether new examples of a dataset are still like those that a model learned from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quickstudy.config import Settings
from quickstudy.data.dataset import Dataset
from quickstudy.drift.reference import Known, content_digests, embed, units_of
from quickstudy.encoders.features import features
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.stats.two_sample import Distance, Sample, holm, measure
from quickstudy.system.progress import showing_progress


@dataclass(frozen=True)
class Batch:
    """New examples, and which of them are looked at."""

    dataset: Dataset
    rows: np.ndarray
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
    rows: np.ndarray
    """of those the ones that were compared"""
    names: list[str]
    """what each is called"""
    distances: dict[str, Distance]
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
    def novelty(self) -> np.ndarray:
        """Of each example that was compared: how far it is from all that was learned; 1 is far already."""

        novelty: np.ndarray = np.min([distance.novelty for distance in self.distances.values()], axis=0)
        return novelty


def judge(
    model: MetaModel,
    known: Mapping[str, Known],
    batches: Sequence[Batch],
    settings: Settings,
    model_name: object = "",
) -> list[Verdict]:
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
        unknown = tuple(
            next(known[name].words[kind] for name in distances if kind in known[name].words)
            for kind in kinds
            if kind not in words
        )
        verdicts.append(
            Verdict(
                batch.dataset.name, len(batch.rows), rows, _names(batch, rows), distances, p, drifted, words, unknown
            )
        )
    return verdicts


def _compare(
    model: MetaModel,
    known: Mapping[str, Known],
    batch: Batch,
    settings: Settings,
    batches: int,
    model_name: object,
    progress: Callable[[str, int, int], None],
) -> tuple[np.ndarray, dict[str, Distance], dict[str, str]]:
    """The rows that were compared, the distances by dataset of the model's, and words for the kinds of unit."""

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


def _references(batch: Batch, known: Mapping[str, Known]) -> list[Known]:
    if batch.like is not None:
        return [known[batch.like]]
    return [one for one in known.values() if one.modality == batch.dataset.modality and len(one.vectors)]


def unable(batch: Batch, known: Mapping[str, Known], fewest: int) -> str | None:
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


def arrived(dataset: Dataset, known: Mapping[str, Known], everything: bool) -> Batch:
    """Of a dataset in data/ what was not there when the model was trained."""

    one = known.get(dataset.name)
    if one is None:
        return Batch(dataset, np.arange(len(dataset)), None)
    digests = content_digests(dataset)
    old = one.is_learned(digests) if everything else one.is_there(digests)
    like = dataset.name if len(one.vectors) and one.modality == dataset.modality else None
    return Batch(dataset, np.flatnonzero(~old), like)


def _names(batch: Batch, rows: np.ndarray) -> list[str]:
    """What to call examples: the number of the row in data/, the name of a file, the beginning of a text."""
    dataset = batch.dataset
    if dataset.modality == "text":
        called = [text[:60] for text in dataset.raw(rows)]
    else:
        called = dataset.table.column(dataset.modality).combine_chunks().field("path").take(rows).to_pylist()
    if not batch.imported:
        return [name or f"example {row + 1}" for row, name in zip(rows.tolist(), called, strict=True)]
    return [f"row {row}" + (f": {name}" if name else "") for row, name in zip(rows.tolist(), called, strict=True)]
