"""More examples for a dataset that is there: read as it was read, compared with it, checked, written in one step.

The rows that are there stay where they are, and the new ones follow in the importer's order (by class, then by path or
row). So the result depends on the old dataset and the source alone, row numbers stay true, and what was learned of old
rows for the checks holds: only new examples are decoded.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from quickstudy.config import Settings
from quickstudy.data.contents import MEMORY, stored_at
from quickstudy.data.dataset import (
    PLACES,
    Dataset,
    DatasetInfo,
    Reading,
    dataset_names,
    read_dataset,
    write_dataset,
    write_examples,
)
from quickstudy.data.fingerprints import Fingerprints, fingerprints, joined, keep
from quickstudy.errors import QuickstudyError
from quickstudy.ingest.checks import Progress, SplitOf, check_datasets
from quickstudy.ingest.importers.source import AS_BEFORE, read_more
from quickstudy.kinds.findings import Finding
from quickstudy.kinds.targets import targets_of


class RefusedError(QuickstudyError):
    """The source can be read, and its examples would spoil the dataset or others."""


@dataclass(frozen=True)
class Addition:
    """What a source adds to a dataset; nothing of it is written yet."""

    new: Dataset
    """The examples that are not there yet."""
    prints: Fingerprints
    """of them"""
    before: Fingerprints
    """of the dataset as it is"""
    stamp: tuple[int, ...]
    """of the dataset as it is"""
    repetitions: int
    """Examples of the source that are there under the same target, or came before in the source; left out. Of a
    dataset that was imported without duplicates also those that are there under another one."""


def prepare(
    root: Path,
    name: str,
    source: Path,
    differs: Reading = AS_BEFORE,
    *,
    cache: Path,
    only: Collection[str] | None = None,
    progress: Progress = lambda name, done, total: None,
    note: Callable[[str], None] = lambda line: None,
) -> Addition:
    """Read a source as more examples of ``root/name``. Writes nothing.

    Args:
        root: of the data.
        name: of a dataset that is there.
        source: a folder, a .zip or a table.
        differs: what is to be read otherwise than the dataset was.
        cache: a folder for what was learned of examples, as of `check_datasets`.
        only: of a folder, the folders directly in it that count.
        progress: told (what, done, total).
        note: told, in a line each, what was decided.

    Raises:
        QuickstudyError: as `read_more`.
    """
    old = read_dataset(root / name, PLACES, root.parent / MEMORY)
    targets_of(old.info.kind, root / name)
    assert old.stored is not None
    told = partial(progress, "reading")
    source_rows = Dataset(old.info, read_more(source, old, differs, only=only, progress=told, note=note))
    before = fingerprints(old, cache, partial(progress, name))
    keys, known_keys = _keys(source_rows), _keys(old)
    if old.info.reading is not None and old.info.reading.drop_duplicates:  # then no example stands under two targets
        keys, known_keys = [""] * len(keys), [""] * len(known_keys)
    is_new = _new(source_rows.digests, keys, before.digests, known_keys)
    new = Dataset(old.info, source_rows.table.filter(pa.array(is_new)))
    prints = fingerprints(new, None, partial(progress, "checking"))
    return Addition(new, prints, before, old.stored.stamp, int((~is_new).sum()))


def _keys(dataset: Dataset) -> list[Any]:
    """Of each row what tells its target from others."""
    targets = targets_of(dataset.info.kind)
    return [targets.key(target) for target in targets.of(dataset, np.arange(len(dataset)))]


def _new(digests: np.ndarray, keys: list[Any], known: np.ndarray, known_keys: list[Any]) -> np.ndarray:
    """bool [n]: the rows that are neither known under the same target nor repeat a row before."""
    seen = {(known[row], known_keys[row]) for row in np.flatnonzero(np.isin(known, digests))}
    is_new = np.zeros(len(digests), dtype=bool)
    for row, example in enumerate(zip(digests, keys, strict=True)):
        is_new[row] = example not in seen
        seen.add(example)
    return is_new


def commit(
    root: Path,
    addition: Addition,
    settings: Settings,
    split_of: SplitOf,
    *,
    cache: Path,
    progress: Progress = lambda name, done, total: None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Finding]:
    """Check a dataset with what it is to have besides, and write it. Without new examples nothing is touched.

    Returns:
        what the checks say of the dataset as it is now; fatal only what was fatal before.

    Raises:
        RefusedError: something would be fatal that was not; nothing was written.
    """
    name = addition.new.name
    if not len(addition.new):
        return []
    old = read_dataset(root / name)
    assert old.stored is not None
    if old.stored.stamp != addition.stamp:
        raise QuickstudyError("changed while it was added to", where=root / name, fix="Run the same again")
    table = pa.concat_tables([old.table, addition.new.table], promote_options="default")
    both = Dataset(old.info, table)
    prints = joined(addition.before, addition.prints)
    others = neighbours(root, both.info, cache, progress, note)

    def found(dataset: Dataset, of: Fingerprints) -> list[Finding]:
        known = {one.name: of_one for one, of_one in others} | {name: of}
        datasets = [*(one for one, _ in others), dataset]
        return check_datasets(datasets, settings, split_of, only=name, prints=known)

    findings = found(both, prints)
    if any(finding.severity == "fatal" for finding in findings):
        _refuse_worse(findings, found(old, addition.before))
    write_examples(root, name, table)
    keep(prints, Dataset(both.info, table, stored_at(root / name, root.parent / MEMORY)), addition.before, cache)
    return findings


def create(
    root: Path,
    info: DatasetInfo,
    table: pa.Table,
    settings: Settings,
    split_of: SplitOf,
    *,
    cache: Path,
    refuse: bool,
    progress: Progress = lambda name, done, total: None,
    note: Callable[[str], None] = lambda line: None,
) -> list[Finding]:
    """Check a dataset that is new, and write it.

    Args:
        refuse: whether what is fatal keeps it from being written.

    Raises:
        RefusedError: something is fatal; nothing was written.
    """
    others = neighbours(root, info, cache, progress, note)
    # Checked before it is written, so that Ctrl-C leaves all as it was until the last moment.
    findings = check_datasets(
        [*(one for one, _ in others), Dataset(info, table)],
        settings,
        split_of,
        cache=cache,
        only=info.name,
        prints={one.name: prints for one, prints in others},
        progress=lambda of, done, total: progress(f"checking {of}", done, total),
    )
    if refuse:
        _refuse_worse(findings, [])
    write_dataset(root, info, table)
    return findings


def neighbours(
    root: Path,
    info: DatasetInfo,
    cache: Path,
    progress: Progress = lambda name, done, total: None,
    note: Callable[[str], None] = lambda line: None,
) -> list[tuple[Dataset, Fingerprints]]:
    """Return the other datasets of the kind and modality of one, their examples unread, with fingerprints.

    Of damaged ones, and of such as this version knows no kind of, there is a note.
    """
    found = []
    for name in dataset_names(root):
        if name == info.name:
            continue
        try:
            dataset = read_dataset(root / name, PLACES, root.parent / MEMORY)
            targets_of(dataset.info.kind, root / name)
            if (dataset.info.kind, dataset.modality) == (info.kind, info.modality) and len(dataset):
                found.append((dataset, fingerprints(dataset, cache, partial(progress, f"checking {name}"))))
        except QuickstudyError as error:
            note(f"not compared with a damaged dataset ({error})")
    return found


def _refuse_worse(findings: list[Finding], before: list[Finding]) -> None:
    """Refuse what is fatal and was not, or not so often. Too few examples are mended by more of them."""
    fatal = {(finding.kind, finding.dataset): finding.count for finding in before if finding.severity == "fatal"}
    for finding in findings:
        was = fatal.get((finding.kind, finding.dataset))
        if finding.severity == "fatal" and (was is None or (finding.kind != "classes" and finding.count > was)):
            raise RefusedError(finding.what, where=finding.dataset, fix=finding.fix)
