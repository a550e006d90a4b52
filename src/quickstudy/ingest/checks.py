"""What is wrong with data: findings that stop the pipeline (fatal) and findings that it records (warnings)."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np

from quickstudy.config import Episodes, Settings
from quickstudy.data.dataset import Dataset, DatasetInfo, Split
from quickstudy.data.fingerprints import RADIUS, Fingerprints, fingerprints, near_pairs
from quickstudy.kinds.findings import LOOK, Finding, Seen, joined, many
from quickstudy.kinds.kind import Targets
from quickstudy.kinds.names import alike
from quickstudy.kinds.targets import targets_of

SplitOf = Callable[[DatasetInfo, str], Split]
Progress = Callable[[str, int, int], None]

LEAKED = 0.001
"""Share of the meta-test examples of a dataset that were also in meta-training from which on it is fatal. Sentences of
daily life coincide (SNIPS and our own phrasebook: 1 of 14,484); one in a thousand moves an accuracy by 0.1 points at
most, well inside its interval over 600 episodes."""


_FEW = "So few change no result; nothing needs to be done"


@dataclass(frozen=True)
class _Printed(Seen):
    """A dataset with what its examples are compared by."""

    prints: Fingerprints


def check_datasets(
    datasets: Sequence[Dataset],
    settings: Settings,
    split_of: SplitOf | None = None,
    *,
    cache: Path | None = None,
    progress: Progress = lambda name, done, total: None,
    only: str | None = None,
    prints: Mapping[str, Fingerprints] | None = None,
) -> list[Finding]:
    """Look for all that is wrong with datasets, alone and together.

    Args:
        datasets: that are to be used together; without their examples they are enough where these are remembered.
        settings: shots, query and way asked for.
        split_of: the side of the meta-split that a group is on. None leaves out what depends on it.
        cache: a folder for what was learned of pictures and recordings; the second check of a dataset is quick.
        progress: told (dataset, done, total).
        only: report only what concerns this dataset.
        prints: fingerprints that are known, by the name of the dataset.

    Returns:
        Findings, fatal ones first, else in the order of the datasets.
    """
    findings: list[Finding] = []
    seen: list[_Printed] = []
    sort_of = {dataset.name: (dataset.info.kind, dataset.modality) for dataset in datasets}
    for dataset in datasets:
        name = dataset.name
        if only is not None and sort_of[name] != sort_of[only]:
            continue  # it can share nothing with that one, or no part of the model learns from both
        if len(dataset) == 0:
            fix = f"Remove it: `quickstudy data remove {name}`"
            findings.append(Finding("fatal", name, "classes", "holds no examples", fix, 0))
            continue
        known = (prints or {}).get(name) or fingerprints(dataset, cache, partial(progress, name))
        targets = targets_of(dataset.info.kind, name)
        one = _Printed(dataset, targets.codes(dataset), _sides(dataset, split_of), known)
        seen.append(one)
        if only in (None, name):
            findings += [*_unreadable(one), *targets.sizes(one, _episodes(dataset, settings)), *_alone(one, targets)]
    for one, other in combinations(seen, 2):
        names = (one.dataset.name, other.dataset.name)
        if sort_of[names[0]] == sort_of[names[1]] and only in (None, *names):
            findings += _shared(one, other)
    return sorted(findings, key=lambda finding: finding.severity != "fatal")


def _episodes(dataset: Dataset, settings: Settings) -> Episodes:
    """The episodes that are asked for of a dataset's kind, which a project need not list."""
    kind = dataset.info.kind
    return (settings.of(kind) if kind in settings.kinds else settings).episodes


def _sides(dataset: Dataset, split_of: SplitOf | None) -> np.ndarray | None:
    if split_of is None:
        return None
    groups, group = dataset.codes("group")
    # Objects: a row points to one of three words, and holds none itself.
    return np.array([split_of(dataset.info, name) for name in groups], dtype=object)[group]


def _unreadable(one: _Printed) -> list[Finding]:
    bad = one.prints.bad
    if not bad:
        return []
    row, why = bad[0]
    what = f"{many(len(bad), 'unreadable example')}, the first is {one.show(row)}: {why}"
    return [Finding("fatal", one.dataset.name, "unreadable", what, "Import it again with --skip-bad", len(bad))]


# Duplicates in one dataset

_GRAVE = ("train", "test")
_OPPOSITE = (_GRAVE, ("train", "validation"), ("validation", "test"))


def _alone(one: _Printed, targets: Targets) -> list[Finding]:
    same, near = _groups_of_equal(one.prints.digests), _nearly_equal(one)
    return [
        *targets.repeated(one, same),
        *_across(one, same, exact=True),
        *targets.nearly_repeated(one, near),
        *_spellings(one, targets),
        *_across(one, near, exact=False),
    ]


def _spellings(one: _Printed, targets: Targets) -> list[Finding]:
    """Names that are one in several spellings: as two classes, they are hard to tell apart, and may be on two sides."""
    of_key: dict[str, list[str]] = defaultdict(list)
    for name in targets.names(one.dataset):
        of_key[alike(name, ignore_case=True)].append(name)
    several = [names for names in of_key.values() if len(names) > 1]
    if not several:
        return []
    groups, group = one.dataset.codes("group")
    sides = {} if one.sides is None else dict(zip(np.array(groups, dtype=object)[group], one.sides, strict=True))
    apart = [names for names in several if len({sides[name] for name in names if name in sides}) > 1]
    first, other = (apart or several)[0][:2]
    word = targets.ONE if len(several) == 1 else targets.WORD
    what = f"{len(several)} {word} in several spellings, as {first!r} and {other!r}"
    if apart:
        what += f", {len(apart)} of them on two sides of the meta-split"
    fix = "Import it again, with --ignore-case where they are one"
    return [Finding("warning", one.dataset.name, "leak" if apart else "labels", what, fix, len(several))]


def _nearly_equal(one: _Printed) -> list[np.ndarray]:
    """Rows of examples that are nearly the same, the first of each group of equal ones standing for all."""
    firsts = np.sort(np.unique(one.prints.digests, return_index=True)[1])
    firsts = np.setdiff1d(firsts, np.array([row for row, _ in one.prints.bad], dtype=np.int64))
    if one.dataset.modality == "text":
        return [firsts[rows] for rows in _groups_of_equal(one.prints.plain[firsts])]
    return list(near_pairs(one.prints.vectors, firsts, RADIUS[one.dataset.modality]))


def _across(one: _Printed, same: list[np.ndarray], exact: bool) -> list[Finding]:
    """Examples of one dataset that stand on both sides of the meta-split."""
    if one.sides is None:
        return []
    for pair in _OPPOSITE:
        if crossing := [rows for rows in same if set(pair) <= set(one.sides[rows])]:
            rows = crossing[0]
            names = sorted(set(one.dataset.column("group", rows)))
            count = len(crossing)
            like = "the same" if exact else "nearly the same"
            what = (
                f"{many(count, 'example')} {like} in meta-{pair[0]} and meta-{pair[1]}, "
                f"for example {one.show(rows[0])} in the groups {joined([repr(g) for g in names[:3]])}"
            )
            tested = sum(int((one.sides[rows] == "test").sum()) for rows in crossing)
            fatal = exact and pair == _GRAVE and tested > LEAKED * (one.sides == "test").sum()
            fix = "Use groups that keep them together, or leave them out by --drop-duplicates" if exact else LOOK
            fix = _FEW if exact and pair == _GRAVE and not fatal else fix
            return [Finding("fatal" if fatal else "warning", one.dataset.name, "leak", what, fix, count)]
    return []


# Two datasets


def _shared(one: _Printed, other: _Printed) -> list[Finding]:
    """Examples that two datasets share."""
    equal, a, b = np.intersect1d(one.prints.digests, other.prints.digests, return_indices=True)
    findings = _leak(one, other, equal, one.prints.digests, other.prints.digests, exact=True)
    if one.dataset.modality == "text":
        key_a, key_b = one.prints.plain, other.prints.plain
        # What is equal as it stands has been told.
        near = np.setdiff1d(np.intersect1d(key_a, key_b), key_a[a])
        findings += _leak(one, other, near, key_a, key_b, exact=False)
    else:
        # One search among both; a pair counts where it joins the two.
        rows_a = np.setdiff1d(np.arange(len(one.dataset)), a)
        rows_b = np.setdiff1d(np.arange(len(other.dataset)), b)
        both = np.concatenate([one.prints.vectors[rows_a], other.prints.vectors[rows_b]])
        seen = np.flatnonzero(np.linalg.norm(both, axis=1) > 0.5)  # blank ones say nothing
        pairs = near_pairs(both, seen, RADIUS[one.dataset.modality])
        pairs = pairs[(pairs[:, 0] < len(rows_a)) & (pairs[:, 1] >= len(rows_a))]
        if len(pairs):
            key_a = np.zeros(len(one.dataset), dtype=np.uint64)
            key_b = np.zeros(len(other.dataset), dtype=np.uint64)
            for number, (left, right) in enumerate(pairs, 1):
                key_a[rows_a[left]] = key_b[rows_b[right - len(rows_a)]] = number
            near = np.setdiff1d(np.intersect1d(key_a, key_b), [0])
            findings += _leak(one, other, near, key_a, key_b, exact=False)
    return findings


def _leak(
    one: _Printed, other: _Printed, keys: np.ndarray, key_a: np.ndarray, key_b: np.ndarray, exact: bool
) -> list[Finding]:
    """Report the worst that shared examples do.

    Args:
        one: a dataset.
        other: another.
        keys: what they share.
        key_a: uint64 [n], of every row of the one.
        key_b: uint64 [n], of every row of the other.
        exact: whether equal keys mean equal examples, or nearly equal ones.
    """
    if not len(keys):
        return []
    a, b = np.isin(key_a, keys), np.isin(key_b, keys)
    name, name_b = one.dataset.name, other.dataset.name
    like = "share" if exact else "nearly share"
    if one.sides is None or other.sides is None:
        row = int(np.flatnonzero(a)[0])
        what = f"{name} and {name_b} {like} {many(len(keys), 'example')}, for example {one.show(row)}"
        return [
            Finding("warning", name_b, "leak", what, "Keep both on one side of the meta-split by --split", len(keys))
        ]
    for pair in _OPPOSITE:
        crossing = np.zeros(0, dtype=key_a.dtype)
        leaked = 0.0  # the larger share of what either dataset tests
        for left, right in (pair, pair[::-1]):
            both = np.intersect1d(key_a[a & (one.sides == left)], key_b[b & (other.sides == right)])
            crossing = np.union1d(crossing, both)
            for sides, side, keys_of in ((one.sides, left, key_a), (other.sides, right, key_b)):
                if side == "test" and len(both):
                    leaked = max(leaked, float(np.isin(keys_of[sides == "test"], both).mean()))
        if len(crossing):
            row = int(np.flatnonzero(np.isin(key_a, crossing))[0])
            what = (
                f"{name} and {name_b} {like} {many(len(crossing), 'example')} on opposite sides of the meta-split "
                f"({pair[0]} and {pair[1]}), for example {one.show(row)}"
            )
            fatal = exact and pair == _GRAVE and leaked > LEAKED
            fix = _mend(one, other) if exact else LOOK
            fix = _FEW if exact and pair == _GRAVE and not fatal else fix
            return [Finding("fatal" if fatal else "warning", name_b, "leak", what, fix, len(crossing))]
    return []


def _mend(one: _Printed, other: _Printed) -> str:
    """How to bring two datasets to the same side, with the least change."""
    a, b = one.dataset.info, other.dataset.info
    remove = f"or remove one: `quickstudy data remove {b.name}`"
    for pinned, free in ((a, b), (b, a)):
        if isinstance(pinned.meta_split, str) and free.meta_split is None:
            return f"Say `meta_split: {pinned.meta_split}` in data/{free.name}/dataset.yaml, {remove}"
    return f"Say the same `meta_split: train` in data/{a.name}/dataset.yaml and data/{b.name}/dataset.yaml, {remove}"


# Equal ones


def _groups_of_equal(keys: np.ndarray) -> list[np.ndarray]:
    """The rows that have a key in common, for every key that several have; rows ascend."""
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] + 1, append=keys[order[-1:]] + 1) != 0)
    several = np.flatnonzero(np.diff(bounds) > 1)
    return sorted((order[bounds[i] : bounds[i + 1]] for i in several), key=lambda rows: rows[0])
