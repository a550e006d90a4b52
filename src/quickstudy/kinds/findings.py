"""What may be wrong with the targets of data, as far as kinds share how it is looked for; each says it in its words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from quickstudy.config import Episodes
from quickstudy.data.dataset import Dataset, Split, by_code

Severity = Literal["fatal", "warning"]

CONTESTED = 0.01
"""Share of a dataset's examples under two targets from which on it is fatal. Real data has a few (CLINC150: 4 of 23,700
utterances), which cost nothing that can be measured; a percent is a mistake in the labels, a column mixed up, say, and
bounds every score from above."""

LOOK = "Look at some; where classes look alike, nothing needs to be done"
DROP = "Import it again with --drop-duplicates"


@dataclass(frozen=True)
class Finding:
    """One thing found. `dataclasses.asdict` makes JSON of it."""

    severity: Severity
    dataset: str
    kind: str
    """unreadable | classes | duplicates | near | labels | leak"""
    what: str
    fix: str
    count: int


@dataclass(frozen=True)
class Seen:
    """A dataset, of one example at least, as the checks look at it."""

    dataset: Dataset
    codes: np.ndarray
    """int64 [n]: equal where targets are equal."""
    sides: np.ndarray | None
    """[n] of "train", "validation", "test"; None where nobody said how groups are split."""

    def show(self, row: int) -> str:
        """Return an example in a few words."""
        if self.dataset.modality != "text":
            return self.dataset.path(row) or f"row {row + 1}"
        text = self.dataset.raw([row])[0]
        return f"row {row + 1}" if text is None else repr(text if len(text) <= 60 else text[:57] + "…")

    def pools(self) -> list[tuple[str, np.ndarray]]:
        """Return the rows that one episode may be drawn from, with the side of the meta-split that they are on."""
        groups, group = self.dataset.codes("group")
        if self.dataset.info.episode_scope == "dataset":
            groups, group = ["all"], np.zeros(len(self.dataset), dtype=np.int64)
        pools = []
        for side in ("any",) if self.sides is None else get_args(Split):
            rows = np.arange(len(self.dataset)) if self.sides is None else np.flatnonzero(self.sides == side)
            pools += [(side, of_group) for of_group in by_code(group, rows, len(groups)) if len(of_group)]
        return pools


# Sizes


def too_small(
    seen: Seen, episodes: Episodes, under: np.ndarray, names: Sequence[str], one: str, several: str
) -> list[Finding]:
    """Look for classes (or tags, or what a task else has groups of) of too few examples for an episode.

    Args:
        seen: a dataset.
        episodes: the shots, queries and ways asked for.
        under: int64 [n], the class that each row is drawn under, below 0 where it is under none.
        names: of the classes.
        one, several: what a class is called.
    """
    fewest, most = min(episodes.shots) + episodes.query, max(episodes.shots) + episodes.query
    need = f"the {fewest} examples ({min(episodes.shots)}-shot with {episodes.query} queries) that an episode needs"
    size = np.bincount(under[under >= 0], minlength=len(names))
    if none := _makes_no_episode(seen, under, fewest, need, one, several):
        return [none]
    findings = []
    small, middling = size < fewest, (size >= fewest) & (size < most)
    if small.any():
        worst = int(size.argmin())
        what = f"{small.sum()} of {len(size)} {several} have fewer than {need} ({names[worst]!r} {size[worst]})"
        findings.append(_small(seen, f"{what} and are left out", int(small.sum())))
    if middling.any():
        left_out = [f"{shot}-shot" for shot in episodes.shots if (size[middling] < shot + episodes.query).any()]
        what = f"{middling.sum()} of {len(size)} {several} have fewer than {most} examples and are left out of"
        findings.append(_small(seen, f"{what} {joined(left_out)} episodes", int(middling.sum())))
    return [*findings, *_little_tested(seen, episodes, under, fewest, one, several)]


def _small(seen: Seen, what: str, count: int, severity: Severity = "warning") -> Finding:
    fix = "Add examples, or lower episodes.shots or episodes.query in params.yaml"
    return Finding(severity, seen.dataset.name, "classes", what, fix, count)


def _makes_no_episode(seen: Seen, under: np.ndarray, fewest: int, need: str, one: str, several: str) -> Finding | None:
    able = max(_able(under[rows], fewest) for _, rows in seen.pools())
    if able >= 2:
        return None
    if able == 0:
        what = f"no {one} has {need}"
    elif seen.dataset.info.episode_scope == "group":
        what = f"no group has two {several} with {need}"
    elif seen.sides is not None:
        what = f"no side of the meta-split has two {several} with {need}"
    else:
        what = f"only one {one} has {need}"
    return _small(seen, what, able, "fatal")


def _little_tested(
    seen: Seen, episodes: Episodes, under: np.ndarray, fewest: int, one: str, several: str
) -> list[Finding]:
    if seen.sides is None:
        return []
    info = seen.dataset.info
    best = max((_able(under[rows], fewest) for side, rows in seen.pools() if side == "test"), default=0)
    # Whole to one side, by its pin or for want of a second group: then that none of it is tested is no surprise.
    whole = isinstance(info.meta_split, str) or len(seen.dataset.codes("group")[0]) == 1
    if best < 2 and not whole:
        able = f"no {one}" if best == 0 else f"only one {one}"
        what = f"{able} on the meta-test side has examples enough for an episode; nothing of it is tested"
        fix = "Add groups, or pin some by meta_split in its dataset.yaml"
    elif 2 <= best < (way := episodes.way_of(info.name)):
        what = (
            f"{best} {several} on the meta-test side have examples enough; its episodes are {best}-way, not {way}-way"
        )
        fix = f"Say so by `ways: {{{info.name}: {best}}}` in params.yaml, or add groups"
    else:
        return []
    return [Finding("warning", info.name, "classes", what, fix, best)]


def _able(under: np.ndarray, fewest: int) -> int:
    """How many classes have examples enough."""
    return int((np.bincount(under[under >= 0]) >= fewest).sum())


# Repetitions: ``same`` are the rows of examples that are equal, ``near`` of such that are nearly equal


def repetitions(seen: Seen, same: list[np.ndarray], alike: str) -> list[Finding]:
    """Look for equal examples of equal targets; ``alike`` says in words that these are."""
    spare = [len(rows) - len(set(seen.codes[rows])) for rows in same]
    if not sum(spare):
        return []
    first = next(rows for rows, count in zip(same, spare, strict=True) if count)
    what = f"{many(sum(spare), 'exact repetition')} {alike}, for example of {seen.show(first[0])}"
    return [Finding("warning", seen.dataset.name, "duplicates", what, DROP, sum(spare))]


def contested(
    seen: Seen, same: list[np.ndarray], under: str, shown: Callable[[np.ndarray], str], fix: str
) -> list[Finding]:
    """Look for equal examples of unequal targets.

    Args:
        seen: a dataset.
        same: rows of equal examples.
        under: what these stand under, in words.
        shown: what some of these rows stand under.
        fix: how it is mended.
    """
    apart = [rows for rows in same if len(set(seen.codes[rows])) > 1]
    if not apart:
        return []
    count = sum(map(len, apart))
    severity: Severity = "fatal" if count > CONTESTED * len(seen.dataset) else "warning"
    example = f"for example {seen.show(apart[0][0])} under {shown(apart[0])}"
    what = f"{many(count, 'example')} stand under {under}, {example}"
    return [Finding(severity, seen.dataset.name, "labels", what, fix, count)]


def near_repetitions(seen: Seen, near: list[np.ndarray], own: str, other: str) -> list[Finding]:
    """Look for examples that nearly repeat another, ``own`` and ``other`` saying of what target that is."""
    if not near:
        return []
    alike = [len(set(seen.codes[rows])) == 1 for rows in near]
    within = {row for rows, equal in zip(near, alike, strict=True) if equal for row in rows.tolist()}
    between = {row for rows, equal in zip(near, alike, strict=True) if not equal for row in rows.tolist()}
    across = [rows for rows, equal in zip(near, alike, strict=True) if not equal]
    first, second = (across or near)[0][:2]
    count = len(within | between)
    what = (
        f"{many(count, 'example')} nearly repeat another, {len(within)} of them {own} and {len(between)} {other}, "
        f"for example {seen.show(first)} and {seen.show(second)}"
    )
    return [Finding("warning", seen.dataset.name, "near", what, LOOK, count)]


# Words


def many(count: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{count:,} {noun}{'s' if count != 1 else ''}"


def joined(names: Sequence[str]) -> str:
    """Return names in one phrase: a, b and c."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
