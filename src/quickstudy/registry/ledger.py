"""The ledger of promotions: which alias moved from where to where, when, by whom and why. Pure.

It is a write-ahead log with one alias that decides. A move is written down first (intent), then its first alias moves,
in one transaction of the store, then the others, and a second line says that it is done. Whoever finds an intent
without its end looks at the first alias: where it stands at its target, the others are moved after it (done); where it
does not, nothing has moved yet, and the intent is struck. So what a reader of the champion has seen stays true.

Each line holds the digest of its content, in which stands the digest of the line before it. A line that was edited
shows in itself, one that was removed or put in between in the line after it, lines cut off at the end by the digest of
the last one, which is kept elsewhere. A line that follows an older one than the last has lost a race: two were written
at once, and this one counts for nothing.

Digests alone prove nothing against who writes all lines anew: for that there are signatures, and what git keeps of the
lines (`quickstudy.registry.lines`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

LineType = Literal["intent", "done", "struck", "accepted"]
Verb = Literal["register", "promote", "rollback", "accept", "restore"]
MoveState = Literal["done", "struck", "open"]

START = "0" * 64
"""What the first line follows."""


@dataclass(frozen=True)
class Move:
    """Of an alias from one version to another. None: no version has it."""

    alias: str
    origin: int | None
    target: int | None

    def __str__(self) -> str:
        origin, target = ("none" if number is None else str(number) for number in (self.origin, self.target))
        return f"@{self.alias} {origin} → {target}"


@dataclass(frozen=True)
class LedgerEntry:
    """A line."""

    kind: LineType
    verb: Verb
    when: str
    """UTC, ISO 8601"""
    who: str
    why: str
    moves: tuple[Move, ...]
    """of an intent; the first decides. Of an accepted line: where aliases were found, which a person lets stand"""
    evidence: Any
    """the gate's, as JSON; None: it was not asked"""
    of: str | None
    """digest of the intent that a line done or struck ends"""
    accepts: tuple[int, ...]
    """numbers of the broken lines that a person has seen and lets stand"""
    before: str
    """digest of the line before"""
    digest: str = ""

    @property
    def line(self) -> str:
        """The line as it is stored."""
        return _canonical(asdict(self))


@dataclass(frozen=True)
class Break:
    """A line at which the chain does not hold."""

    number: int
    """0: it is no line, but an alias that stands elsewhere, or what is kept elsewhere of the lines"""
    what: str

    def __str__(self) -> str:
        return f"line {self.number} {self.what}" if self.number else self.what


@dataclass(frozen=True)
class Ledger:
    """What was read."""

    entries: dict[int, LedgerEntry]
    """by the number of the line; those that lost a race are left out, those that were edited are not"""
    breaks: tuple[Break, ...]
    accepted: frozenset[int]
    """numbers of the broken lines that a later line accepts"""
    last: str
    """digest of the last line: what the next one follows"""

    @property
    def broken(self) -> tuple[Break, ...]:
        """Where the chain does not hold and nobody has let it stand."""
        return tuple(found for found in self.breaks if found.number not in self.accepted)

    @property
    def open(self) -> LedgerEntry | None:
        """The intent without an end. Only the last line can be one, as every move ends before the next begins."""
        entry = next(reversed(self.entries.values()), None)
        return entry if entry is not None and entry.kind == "intent" else None

    def holds(self, digest: str) -> bool:
        """Return whether the line with this digest counts."""
        return any(entry.digest == digest for entry in self.entries.values())

    def states(self) -> dict[int, MoveState]:
        """Return what became of each intent, by the number of its line."""
        ends = {entry.of: entry.kind for entry in self.entries.values() if entry.kind in ("done", "struck")}
        states: dict[int, MoveState] = {}
        for number, entry in self.entries.items():
            if entry.kind == "intent":
                kind = ends.get(entry.digest)
                states[number] = "done" if kind == "done" else "struck" if kind == "struck" else "open"
        return states

    def standing(self) -> dict[str, int | None]:
        """Return which version each alias stands at after all moves that were done. None: it was taken away."""
        return {move.alias: move.target for entry in self._moved() for move in entry.moves}

    def _moved(self) -> Iterator[LedgerEntry]:
        """The lines that say where aliases stand."""
        states = self.states()
        for number, entry in self.entries.items():
            if states.get(number) == "done" or entry.kind == "accepted":
                yield entry

    def at(self, alias: str, moment: str) -> LedgerEntry | None:
        """Return the move that had put an alias where it stood at a moment; None where no version had it then.

        Args:
            moment: UTC, ISO 8601 to the second, as `LedgerEntry.when` is.
        """
        found: LedgerEntry | None = None
        for entry in self._moved():
            if entry.when <= moment:
                for move in entry.moves:
                    if move.alias == alias:
                        found = entry if move.target is not None else None
        return found


def entry(
    kind: LineType,
    verb: Verb,
    *,
    before: str,
    when: str,
    who: str,
    why: str = "",
    moves: Iterable[Move] = (),
    evidence: Any = None,
    of: str | None = None,
    accepts: Iterable[int] = (),
) -> LedgerEntry:
    """Return a new line with its digest."""
    bare = LedgerEntry(kind, verb, when, who, why, tuple(moves), evidence, of, tuple(accepts), before)
    return LedgerEntry(**{**vars(bare), "digest": _digest(asdict(bare))})


def read(lines: Iterable[tuple[int, str]], end: str | None = None, unsigned: Mapping[int, str] | None = None) -> Ledger:
    """Check a ledger from its first line to its last.

    Args:
        lines: number and text of each.
        end: digest of a line that it must hold: what is kept elsewhere of its last one. It may be older than that.
        unsigned: what is wrong with the signature of a line, by its number.
    """
    entries: dict[int, LedgerEntry] = {}
    breaks: list[Break] = []
    accepted: set[int] = set()
    seen, last, number = {START}, START, 0
    unsure = False  # the line before could not be read, so that nothing can be said of what this one follows
    for number, text in lines:
        try:
            found = _parse(text)
        except (ValueError, TypeError, KeyError):
            breaks.append(Break(number, "cannot be read"))
            unsure = True
            continue
        whole = number not in (unsigned or {})
        if not whole:
            breaks.append(Break(number, (unsigned or {})[number]))
        if _digest(asdict(found)) != found.digest:
            whole = False
            breaks.append(Break(number, "was edited: its digest is another one"))
        elif found.before not in seen and not unsure:
            breaks.append(
                Break(number, "does not follow from the line before it, which was edited, removed or put in between")
            )
        elif found.before != last and not unsure:
            continue  # it lost a race
        unsure = False
        entries[number] = found
        accepted |= set(found.accepts) - {0} if found.kind == "accepted" and whole else set()
        seen.add(found.digest)
        last = found.digest
    if end is not None and end not in seen:
        breaks.append(Break(number + 1, "is missing: the ledger once went on after its last line"))
    return Ledger(entries, tuple(breaks), frozenset(accepted), last)


def _parse(text: str) -> LedgerEntry:
    values = json.loads(text)
    values["moves"] = tuple(Move(**move) for move in values["moves"])
    values["accepts"] = tuple(values["accepts"])
    found = LedgerEntry(**values)
    if not (isinstance(found.digest, str) and isinstance(found.before, str)):
        raise TypeError("digests are text")
    return found


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical({**values, "digest": ""}).encode()).hexdigest()


def _canonical(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
