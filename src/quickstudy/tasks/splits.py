"""Meta-splits: a pure function of (dataset, group), so that new data moves no old group across the line."""

from hashlib import blake2b

import numpy as np

from quickstudy.config import Splits
from quickstudy.data.dataset import Dataset, DatasetInfo, Split


def meta_split(info: DatasetInfo, group: str, splits: Splits) -> Split:
    """The side of the meta-split that a group is on: pinned by its dataset, or where its keyed hash falls."""
    if isinstance(info.meta_split, str):
        return info.meta_split
    if info.meta_split is not None and group in info.meta_split:
        return info.meta_split[group]
    return _draw(f"{splits.key}/{info.name}/group/{group}", splits)


def domain_is_held_out(info: DatasetInfo, domain: str, splits: Splits) -> bool:
    """Whether a domain (a voice, a speaker, a camera) is kept for meta-test."""
    return _draw(f"{splits.key}/{info.name}/domain/{domain}", splits) == "test"


def row_splits(dataset: Dataset, splits: Splits) -> tuple[np.ndarray, np.ndarray]:
    """Where each example stands.

    Returns:
        split: [n] of "train", "validation", "test", by the example's group.
        held_out: bool [n], whether its domain is kept for meta-test. Meta-train and meta-validation use only
            examples that are not; in a dataset that is wholly meta-test no domain was ever heard, so none is marked.
    """
    groups, group = dataset.codes("group")
    # Objects: a row points to one of three words, and holds none itself.
    split = np.array([meta_split(dataset.info, name, splits) for name in groups], dtype=object)[group]
    held_out = np.zeros(len(dataset), dtype=bool)
    if dataset.info.domain is not None and dataset.info.meta_split != "test":
        domains, domain = dataset.codes("domain")
        held_out = np.array([domain_is_held_out(dataset.info, name, splits) for name in domains], dtype=bool)[domain]
    return split, held_out


def _draw(name: str, splits: Splits) -> Split:
    # A keyed hash read as a number in [0, 1): no shuffle, no order, no count of groups enters.
    u = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64
    if u < splits.test:
        return "test"
    return "validation" if u < splits.test + splits.validation else "train"
