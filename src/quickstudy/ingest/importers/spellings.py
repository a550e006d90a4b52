"""One class in several spellings: which are one, and which are told.

What differs in blanks, in the Unicode normal form or in how a number is written alone is joined. ``Cat`` and ``cat``
may be two things (``US`` and ``us``): that is told, and joined where it is asked for; their group is one either way, so
that neither is tested where the other was learned.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping

from quickstudy.ingest.importers.options import Note
from quickstudy.ingest.importers.rows import Rows
from quickstudy.kinds.kind import Targets
from quickstudy.kinds.names import alike


def join_spellings(rows: Rows, targets: Targets, known: Collection[str], ignore_case: bool, note: Note) -> None:
    """Bring the names among targets, and groups and domains, to one spelling each: what is known, else the usual one.

    Args:
        rows: of a source; their targets, groups and domains are changed.
        targets: of their kind.
        known: names that the dataset has already.
        ignore_case: whether names that differ in case alone are one.
        note: told what was joined, and what was not.
    """
    there = targets.count([target for target in rows.targets if target is not None])
    renamed = _renamed(there, known, ignore_case)
    if renamed:
        rows.targets = [None if target is None else targets.renamed(target, renamed) for target in rows.targets]
        old, new = next(iter(renamed.items()))
        note(f"{len(renamed)} spellings of {targets.WORD} are joined with others, as {old!r} with {new!r}")
    left = {renamed.get(name, name) for name in there} | set(known)
    if pairs := [same for same in _together(left, ignore_case=True) if not set(same) <= set(known)]:
        several = f"{sum(map(len, pairs))} {targets.WORD} differ from others in case alone"
        note(f"{several}, as {pairs[0][0]!r} and {pairs[0][1]!r}, and stay apart; --ignore-case joins them")
    rows.groups, rows.domains = _one_spelling(rows.groups), _one_spelling(rows.domains)


def _renamed(there: Mapping[str, int], known: Collection[str], ignore_case: bool) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for same in _together({*there, *known}, ignore_case):
        new = min(same, key=lambda name: (name not in known, -there.get(name, 0), name))
        renamed |= {name: new for name in same if name in there and name not in known and name != new}
    return renamed


def _together(names: Collection[str], ignore_case: bool) -> list[list[str]]:
    """Names that are alike, where there are several, sorted."""
    of_key: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        of_key[alike(name, ignore_case)].append(name)
    return [same for same in of_key.values() if len(same) > 1]


def _one_spelling(names: list[str]) -> list[str]:
    renamed = _renamed(dict.fromkeys(names, 0), (), ignore_case=False)
    return [renamed.get(name, name) for name in names] if renamed else names
