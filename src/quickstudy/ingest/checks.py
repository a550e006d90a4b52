"""What is wrong with data: findings that stop the pipeline (fatal) and findings that it records (warnings)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from quickstudy.config import Settings
from quickstudy.data.dataset import Dataset, DatasetInfo, Split, by_code
from quickstudy.data.fingerprints import RADIUS, Fingerprints, fingerprints, near_pairs

SplitOf = Callable[[DatasetInfo, str], Split]
Progress = Callable[[str, int, int], None]

CONTESTED = 0.01
"""Share of a dataset's examples under two labels from which on it is fatal. Real data has a few (CLINC150: 4 of 23,700
utterances), which cost nothing that can be measured; a percent is a mistake in the labels, a column mixed up, say, and
bounds every accuracy from above."""

LEAKED = 0.001
"""Share of the meta-test examples of a dataset that were also in meta-training from which on it is fatal. Sentences of
daily life coincide (SNIPS and our own phrasebook: 1 of 14,484); one in a thousand moves an accuracy by 0.1 points at
most, well inside its interval over 600 episodes."""


_LOOK = "Look at some; where classes look alike, nothing needs to be done"
_FEW = "So few change no result; nothing needs to be done"


@dataclass(frozen=True)
class Finding:
    """One thing found. `dataclasses.asdict` makes JSON of it."""

    severity: Literal["fatal", "warning"]
    dataset: str
    kind: str
    """unreadable | classes | duplicates | near | labels | leak"""
    what: str
    fix: str
    count: int


@dataclass(frozen=True)
class _Seen:
    """A dataset with all that the checks look at."""

    dataset: Dataset
    prints: Fingerprints
    labels: np.ndarray
    """int64 [n]"""
    sides: np.ndarray | None
    """[n] of "train", "validation", "test"; None where nobody said how groups are split."""

    def show(self, row: int) -> str:
        """An example, in a few words."""
        if self.dataset.modality != "text":
            return self.dataset.path(row) or f"row {row + 1}"
        text = self.dataset.raw([row])[0]
        return f"row {row + 1}" if text is None else repr(text if len(text) <= 60 else text[:57] + "…")


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
    seen: list[_Seen] = []
    modality_of = {dataset.name: dataset.modality for dataset in datasets}
    for dataset in datasets:
        name = dataset.name
        if only is not None and dataset.modality != modality_of[only]:
            continue  # it can share nothing with that one
        if len(dataset) == 0:
            fix = f"Remove it: `quickstudy data remove {name}`"
            findings.append(Finding("fatal", name, "classes", "holds no examples", fix, 0))
            continue
        known = (prints or {}).get(name) or fingerprints(dataset, cache, partial(progress, name))
        one = _Seen(dataset, known, dataset.class_index, _sides(dataset, split_of))
        seen.append(one)
        if only in (None, name):
            findings += [*_unreadable(one), *_classes(one, settings), *_alone(one)]
    for one, other in combinations(seen, 2):
        if one.dataset.modality == other.dataset.modality and only in (None, one.dataset.name, other.dataset.name):
            findings += _shared(one, other)
    return sorted(findings, key=lambda finding: finding.severity != "fatal")


def _sides(dataset: Dataset, split_of: SplitOf | None) -> np.ndarray | None:
    if split_of is None:
        return None
    groups, group = dataset.codes("group")
    # Objects: a row points to one of three words, and holds none itself.
    return np.array([split_of(dataset.info, name) for name in groups], dtype=object)[group]


def _unreadable(one: _Seen) -> list[Finding]:
    bad = one.prints.bad
    if not bad:
        return []
    row, why = bad[0]
    what = f"{_many(len(bad), 'unreadable example')}, the first is {one.show(row)}: {why}"
    return [Finding("fatal", one.dataset.name, "unreadable", what, "Import it again with --skip-bad", len(bad))]


# Class sizes


def _classes(one: _Seen, settings: Settings) -> list[Finding]:
    name, episodes = one.dataset.name, settings.episodes
    fewest, most = min(episodes.shots) + episodes.query, max(episodes.shots) + episodes.query
    counts = np.bincount(one.labels)
    small, middling = counts < fewest, (counts >= fewest) & (counts < most)
    lower = "Add examples, or lower episodes.shots or episodes.query in params.yaml"
    findings = []

    def add(severity: Literal["fatal", "warning"], what: str, fix: str, count: int) -> None:
        findings.append(Finding(severity, name, "classes", what, fix, count))

    need = f"the {fewest} examples ({min(episodes.shots)}-shot with {episodes.query} queries) that an episode needs"
    pools = _pools(one)
    able = max(int((np.bincount(one.labels[rows], minlength=len(counts)) >= fewest).sum()) for _, rows in pools)
    if able < 2:
        if able == 0:
            what = f"no class has {need}"
        elif one.dataset.info.episode_scope == "group":
            what = f"no group has two classes with {need}"
        elif one.sides is not None:
            what = f"no side of the meta-split has two classes with {need}"
        else:
            what = f"only one class has {need}"
        add("fatal", what, lower, able)
        return findings
    if small.any():
        worst = one.dataset.classes[int(counts.argmin())]
        what = (
            f"{small.sum()} of {len(counts)} classes have fewer than {need} ({worst!r} {counts.min()}) and are left out"
        )
        add("warning", what, lower, int(small.sum()))
    if middling.any():
        left_out = [s for s in episodes.shots if (counts[middling] < s + episodes.query).any()]
        what = (
            f"{middling.sum()} of {len(counts)} classes have fewer than {most} examples and are left out of "
            f"{_and([f'{s}-shot' for s in left_out])} episodes"
        )
        add("warning", what, lower, int(middling.sum()))
    if one.sides is None:
        return findings
    tested = [rows for side, rows in pools if side == "test"]
    best = max((int((np.bincount(one.labels[rows]) >= fewest).sum()) for rows in tested), default=0)
    # Whole to one side, by its pin or for want of a second group: then that none of it is tested is no surprise.
    whole = isinstance(one.dataset.info.meta_split, str) or len(one.dataset.codes("group")[0]) == 1
    if best < 2 and not whole:
        able_ones = "no class" if best == 0 else "only one class"
        what = f"{able_ones} on the meta-test side has examples enough for an episode; nothing of it is tested"
        add("warning", what, "Add groups, or pin some by meta_split in its dataset.yaml", best)
    elif 2 <= best < (way := episodes.way_of(name)):
        what = f"{best} classes on the meta-test side have examples enough; its episodes are {best}-way, not {way}-way"
        add("warning", what, f"Say so by `ways: {{{name}: {best}}}` in params.yaml, or add groups", best)
    return findings


def _pools(one: _Seen) -> list[tuple[str, np.ndarray]]:
    """The rows that the classes of one episode may come from, with the side they are on."""
    groups, group = one.dataset.codes("group")
    if one.dataset.info.episode_scope == "dataset":
        groups, group = ["all"], np.zeros(len(one.dataset), dtype=np.int64)
    pools = []
    for side in ("any",) if one.sides is None else get_args(Split):
        rows = np.arange(len(one.dataset)) if one.sides is None else np.flatnonzero(one.sides == side)
        pools += [(side, of_group) for of_group in by_code(group, rows, len(groups)) if len(of_group)]
    return pools


# Duplicates in one dataset

_GRAVE = ("train", "test")
_OPPOSITE = (_GRAVE, ("train", "validation"), ("validation", "test"))


def _alone(one: _Seen) -> list[Finding]:
    name, n = one.dataset.name, len(one.dataset)
    drop = "Import it again with --drop-duplicates"
    findings = []
    same = _groups_of_equal(one.prints.digests)
    contested = [rows for rows in same if len(set(one.labels[rows])) > 1]
    repeated = sum(len(rows) - len(set(one.labels[rows])) for rows in same)
    if repeated:
        first = next(rows for rows in same if len(rows) > len(set(one.labels[rows])))
        what = f"{_many(repeated, 'exact repetition')} within a class, for example of {one.show(first[0])}"
        findings.append(Finding("warning", name, "duplicates", what, drop, repeated))
    if contested:
        count = sum(map(len, contested))
        labels = _and([repr(one.dataset.classes[i]) for i in sorted(set(one.labels[contested[0]]))[:3]])
        what = (
            f"{_many(count, 'example')} stand under two labels, for example {one.show(contested[0][0])} under {labels}"
        )
        severity: Literal["fatal", "warning"] = "fatal" if count > CONTESTED * n else "warning"
        findings.append(Finding(severity, name, "labels", what, f"Correct the labels, or: {drop.lower()}", count))
    findings += _across(one, same, exact=True)

    # Near ones, among the first of each group of equal ones.
    firsts = np.sort(np.unique(one.prints.digests, return_index=True)[1])
    firsts = np.setdiff1d(firsts, np.array([row for row, _ in one.prints.bad], dtype=np.int64))
    near: list[np.ndarray] = []
    if one.dataset.modality == "text":
        near = [firsts[rows] for rows in _groups_of_equal(one.prints.plain[firsts])]
    else:
        near = list(near_pairs(one.prints.vectors, firsts, RADIUS[one.dataset.modality]))
    if near:
        within: set[int] = set()
        between: set[int] = set()
        for rows in near:
            (within if len(set(one.labels[rows])) == 1 else between).update(rows.tolist())
        across = [rows for rows in near if len(set(one.labels[rows])) > 1]
        first, second = (across or near)[0][:2]
        count = len(within | between)
        what = (
            f"{_many(count, 'example')} nearly repeat another, {len(within)} of them one of their own class and "
            f"{len(between)} one of another, for example {one.show(first)} and {one.show(second)}"
        )
        findings.append(Finding("warning", name, "near", what, _LOOK, count))
        findings += _across(one, near, exact=False)
    return findings


def _across(one: _Seen, same: list[np.ndarray], exact: bool) -> list[Finding]:
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
                f"{_many(count, 'example')} {like} in meta-{pair[0]} and meta-{pair[1]}, "
                f"for example {one.show(rows[0])} in the groups {_and([repr(g) for g in names[:3]])}"
            )
            tested = sum(int((one.sides[rows] == "test").sum()) for rows in crossing)
            fatal = exact and pair == _GRAVE and tested > LEAKED * (one.sides == "test").sum()
            fix = "Use groups that keep them together, or leave them out by --drop-duplicates" if exact else _LOOK
            fix = _FEW if exact and pair == _GRAVE and not fatal else fix
            return [Finding("fatal" if fatal else "warning", one.dataset.name, "leak", what, fix, count)]
    return []


# Two datasets


def _shared(one: _Seen, other: _Seen) -> list[Finding]:
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
    one: _Seen, other: _Seen, keys: np.ndarray, key_a: np.ndarray, key_b: np.ndarray, exact: bool
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
        what = f"{name} and {name_b} {like} {_many(len(keys), 'example')}, for example {one.show(row)}"
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
                f"{name} and {name_b} {like} {_many(len(crossing), 'example')} on opposite sides of the meta-split "
                f"({pair[0]} and {pair[1]}), for example {one.show(row)}"
            )
            fatal = exact and pair == _GRAVE and leaked > LEAKED
            fix = _mend(one, other) if exact else _LOOK
            fix = _FEW if exact and pair == _GRAVE and not fatal else fix
            return [Finding("fatal" if fatal else "warning", name_b, "leak", what, fix, len(crossing))]
    return []


def _mend(one: _Seen, other: _Seen) -> str:
    """How to bring two datasets to the same side, with the least change."""
    a, b = one.dataset.info, other.dataset.info
    remove = f"or remove one: `quickstudy data remove {b.name}`"
    for pinned, free in ((a, b), (b, a)):
        if isinstance(pinned.meta_split, str) and free.meta_split is None:
            return f"Say `meta_split: {pinned.meta_split}` in data/{free.name}/dataset.yaml, {remove}"
    return f"Say the same `meta_split: train` in data/{a.name}/dataset.yaml and data/{b.name}/dataset.yaml, {remove}"


# Small things


def _groups_of_equal(keys: np.ndarray) -> list[np.ndarray]:
    """The rows that have a key in common, for every key that several have; rows ascend."""
    order = np.argsort(keys, kind="stable")
    bounds = np.flatnonzero(np.diff(keys[order], prepend=keys[order[:1]] + 1, append=keys[order[-1:]] + 1) != 0)
    several = np.flatnonzero(np.diff(bounds) > 1)
    return sorted((order[bounds[i] : bounds[i + 1]] for i in several), key=lambda rows: rows[0])


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
