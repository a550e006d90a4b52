"""Aliases and their ledger: who is champion, who moved it, when and why.

Aliases move in one function, ``move``, which keeps the ledger (`quickstudy.registry.ledger`, and where its lines lie
`quickstudy.registry.lines`). An alias that does not stand where the ledger has put it, or whose version is gone, is a
break of the ledger: nothing is promoted until a person decides, also no new model that would be "the first".
"""

import contextlib
import os
import pwd
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.registry import ledger, lines, models, store
from quickstudy.registry.ledger import Break, Ledger, LedgerEntry, Move
from quickstudy.registry.lines import LEDGER
from quickstudy.registry.store import ALIASES, NAME
from quickstudy.secrets import redacted, redacted_values

JUDGED = "gate_against"
"""Of a version: the champion that the gate compared it with last."""

MOVE_SECONDS = 60.0
"""How long a move on a server, where no lock says that its process lives, is taken to be under way."""


class Moving(QuickstudyError):
    """Another process moves aliases, or did so when it was killed a moment ago."""


@dataclass(frozen=True)
class Plan:
    """A version that shall take the champion's place."""

    verb: ledger.Verb
    version: int
    champion: int | None

    def __str__(self) -> str:
        return f"version {self.version} instead of {_called(self.champion)}"


def plan(root: Path, verb: ledger.Verb, name: str) -> Plan:
    """Return what `promote` would do. Change nothing but a move that was cut off, which is settled.

    Args:
        verb: "promote", or "rollback" with the name "previous".
        name: number or alias of the version.

    Raises:
        QuickstudyError: it cannot; says why.
    """
    found = read_ledger(root)
    if found.broken:
        raise broken_ledger(found)
    now = models.aliases(root)
    if name in ("challenger", "previous") and name not in now:
        raise QuickstudyError(
            "nothing to roll back to: no version was champion before" if verb == "rollback" else "no version has it",
            where=f"models:/{NAME}@{name}",
            fix="Name a version: quickstudy promote VERSION. Those there are: quickstudy history",
        )
    number, champion = models.version(root, name).number, now.get("champion")
    promotable(root, number, champion)
    return Plan(verb, number, champion)


def approved(plan: Plan, reason: str) -> None:
    """Check that a person who has decided says why.

    Raises:
        QuickstudyError: it is not said.
    """
    if not reason.strip():
        words = f"promote {plan.version} --approve" if plan.verb == "promote" else "rollback"
        raise QuickstudyError(
            "a person's word needs a reason, for the ledger",
            where=f"models:/{NAME}/{plan.version}",
            fix=f'Say why: quickstudy {words} --reason "…"',
        )


def unjudged(root: Path, automatic: bool) -> Plan | None:
    """Return the challenger in the champion's place, if the gate has not compared the two yet. Change nothing.

    Args:
        automatic: the gate's PROMOTE moves the champion; one that did not, as the process was killed, is asked again.
    """
    now = models.aliases(root)
    challenger, champion = now.get("challenger"), now.get("champion")
    if challenger is None or champion is None:
        return None
    tags = models.version(root, str(challenger)).tags
    if tags.get(JUDGED) == str(champion) and not (automatic and tags.get("gate") == "PROMOTE"):
        return None
    return Plan("promote", challenger, champion)


def log_gate(root: Path, number: int, champion: int | None, answer: str, folder: Path) -> None:
    """Keep the gate's word on a version with its run: what is in the folder, and tags of the version."""
    client, run = store.client(root), models.version(root, str(number)).run_id
    if folder.is_dir():
        client.log_artifacts(run, str(folder), "gate")
    client.set_model_version_tag(NAME, str(number), "gate", answer)
    client.set_model_version_tag(NAME, str(number), JUDGED, str(champion))


def promotable(root: Path, number: int, champion: int | None) -> None:
    """Check that a version can take the place of the champion: it is there, whole, and another one.

    Raises:
        QuickstudyError: it is not.
    """
    found = models.version(root, str(number))
    if number == champion:
        raise QuickstudyError("is the champion already", where=found.uri, fix="Who made it that: quickstudy history")
    models.resolve(found.uri, root)


def promote(
    root: Path, number: int, *, against: int | None, why: str, evidence: Any = None, verb: ledger.Verb = "promote"
) -> LedgerEntry:
    """Make a version the champion; who was that becomes ``previous``. All of it or nothing, whenever it is cut off.

    Args:
        against: the champion that the decision was made against.
        why: the reason, for the ledger.
        evidence: the gate's, as JSON; None where a person decided without it.
        verb: "rollback" where the ledger shall call it that.

    Raises:
        QuickstudyError: the champion is another one by now, the version cannot be served, or the ledger is broken.
            Nothing was moved.
    """
    with store.locked(root):
        client = store.client(root)
        now = settled(root, client)
        champion = now.get("champion")
        if champion != against:
            raise QuickstudyError(
                f"the champion has changed meanwhile, from {_called(against)} to {_called(champion)}{_by(root)}",
                where=f"models:/{NAME}/{number}",
                fix="Nothing was moved. Look at what it is now (quickstudy history) and decide again",
            )
        promotable(root, number, champion)
        moves = [Move("champion", champion, number)]
        if champion is not None:
            moves.append(Move("previous", now.get("previous"), champion))
        elif now.get("previous") == number:
            moves.append(Move("previous", number, None))
        if now.get("challenger") == number:
            moves.append(Move("challenger", number, None))
        return move(root, client, verb, moves, why, evidence)


def moved(root: Path, plan: Plan) -> LedgerEntry | None:
    """Return what has put the champion where it stands, if it is this move; one that was cut off is settled first, but
    for one that may be under way."""
    entry = read_ledger(root).at("champion", "9999")  # now, whatever the clocks say
    return entry if entry and Move("champion", plan.champion, plan.version) in entry.moves else None


def read_ledger(root: Path) -> Ledger:
    """Return the ledger of promotions, with the lines at which it does not hold. Settle a move that was cut off
    first."""
    found = ledger_now(root)
    if found.open is not None and not found.broken:
        with store.locked(root), contextlib.suppress(QuickstudyError):  # on a server: it is under way
            settled(root, store.client(root))
        found = ledger_now(root)
    return found


def check_ledger(root: Path) -> None:
    """Make sure that aliases could move now: before hours of work that shall end in a promotion.

    Raises:
        QuickstudyError: the ledger is broken, or an alias does not stand where it says.
    """
    if (found := read_ledger(root)).broken:
        raise broken_ledger(found)


def accept_breaks(root: Path, why: str) -> tuple[Break, ...]:
    """Let the lines stand at which the ledger does not hold, and the aliases where they are, so that they can move
    again. The lines stay visible, and this one says where the aliases were.

    Returns:
        what was broken.

    Raises:
        QuickstudyError: nothing is.
    """
    with store.locked(root):
        client, found = store.client(root), _broken_now(root)
        moves = [Move(alias, wanted, there) for alias, wanted, there, _ in _astray(root, found)]
        now, challenger = models.aliases_of(client), found.standing().get("challenger")
        if challenger is not None and "challenger" not in now:
            moves.append(Move("challenger", challenger, None))
        _decide(root, client, found, "accept", why, moves)
        _set_aliases(
            client, [move for move in moves if move.target is None and move.alias in now]
        )  # its version is gone
        return found.broken


def restore_aliases(root: Path, why: str) -> tuple[Move, ...]:
    """Put the aliases back to where the ledger says they stand.

    Returns:
        what was moved.

    Raises:
        QuickstudyError: they are there, the ledger itself is broken, or a version of theirs is gone.
    """
    with store.locked(root):
        client, found = store.client(root), _broken_now(root)
        chain = lines.chain_now(root)
        if chain.broken:
            raise broken_ledger(chain)
        astray = list(_astray(root, found))
        for alias, wanted, _, _ in astray:
            if wanted is not None and not _is_there(root, wanted):
                raise QuickstudyError(
                    f"its version {wanted} was deleted, and cannot be put back",
                    where=f"models:/{NAME}@{alias}",
                    fix='Restore MLflow\'s records from a backup, or: quickstudy history --accept --reason "…"',
                )
        moves = [Move(alias, there, wanted) for alias, wanted, there, _ in astray]
        _decide(root, client, found, "restore", why, moves)
        _set_aliases(client, moves)
        return tuple(moves)


def _broken_now(root: Path) -> Ledger:
    found = ledger_now(root)
    if not found.broken:
        raise QuickstudyError("the ledger is whole", where=LEDGER, fix="There is nothing to decide")
    return found


def _decide(root: Path, client: Any, found: Ledger, verb: ledger.Verb, why: str, moves: list[Move]) -> None:
    numbers = [broken.number for broken in found.broken if broken.number]
    line = ledger.entry(
        "accepted",
        verb,
        before=found.last,
        when=_now(),
        who=_who(),
        why=redacted(why),
        moves=moves,
        accepts=numbers,
    )
    lines.append(root, client, line)
    lines.end(root, client, line)


def broken_ledger(found: Ledger) -> QuickstudyError:
    """Return what is wrong with a ledger, in a line."""
    astray = any(broken.what.startswith("@") for broken in found.broken)
    return QuickstudyError(
        "; ".join(map(str, found.broken)),
        where=f"models:/{LEDGER}",
        fix=f'No alias moves until a person decides: quickstudy history --accept --reason "…" lets it stand'
        f"{', --restore puts the aliases back' if astray else ''}",
    )


def move(root: Path, client: Any, verb: ledger.Verb, moves: list[Move], why: str, evidence: Any = None) -> LedgerEntry:
    """Move aliases, all or none; the first one decides. The only writer of aliases; the caller has settled the ledger
    and holds the lock, which on a server others do not heed: there the ledger's order says who was first."""
    who = _who()
    intent = ledger.entry(
        "intent",
        verb,
        before=lines.chain_now(root).last,
        when=_now(),
        who=who,
        why=redacted(why),
        moves=moves,
        evidence=redacted_values(evidence),
    )
    lines.append(root, client, intent)
    if lines.chain_now(root).last != intent.digest:
        raise _too_late(root, moves[0])
    _set_aliases(client, moves)
    done = ledger.entry("done", verb, before=intent.digest, when=_now(), who=who, of=intent.digest)
    lines.append(root, client, done)
    after = lines.chain_now(root)
    if not after.holds(done.digest):  # this process was taken for dead
        standing = after.standing()
        _set_aliases(client, [Move(move.alias, None, standing.get(move.alias, move.origin)) for move in moves])
        raise _too_late(root, moves[0])
    lines.end(root, client, done)
    return intent


def _set_aliases(client: Any, moves: list[Move]) -> None:
    for move in moves:
        if move.target is not None:
            client.set_registered_model_alias(NAME, move.alias, str(move.target))
        else:
            client.delete_registered_model_alias(NAME, move.alias)


def settled(root: Path, client: Any) -> dict[str, int]:
    """Complete or strike a move that was cut off, and return the aliases after it. The caller holds the lock.

    Raises:
        QuickstudyError: the ledger is broken.
        Moving: another process is at work.
    """
    from mlflow.exceptions import MlflowException

    found = ledger_now(root)
    if found.broken:
        raise broken_ledger(found)
    if found.open is not None:
        intent = found.open
        age = (datetime.now(UTC) - datetime.fromisoformat(intent.when)).total_seconds()
        if not store.is_local(root) and age < MOVE_SECONDS:
            raise Moving(
                f"{intent.who} has been moving aliases for {age:.0f} s", where=LEDGER, fix="Try again in a minute"
            )
        decided = models.aliases_of(client).get(intent.moves[0].alias) == intent.moves[0].target
        if decided:
            for move in intent.moves[1:]:
                with contextlib.suppress(MlflowException):  # its version was deleted meanwhile
                    _set_aliases(client, [move])
        line = ledger.entry(
            "done" if decided else "struck",
            intent.verb,
            before=intent.digest,
            when=_now(),
            who=_who(),
            why="it was cut off, and is completed" if decided else "it was cut off before anything moved",
            of=intent.digest,
        )
        lines.append(root, client, line)
        lines.end(root, client, line)
        if (found := ledger_now(root)).broken:
            raise broken_ledger(found)
    return models.aliases_of(client)


def ledger_now(root: Path) -> Ledger:
    """Return the ledger as it stands, with a move that was cut off left open; of its breaks are also the aliases that
    do not stand where it has put them. Change nothing."""
    found = lines.chain_now(root)
    while True:
        astray = tuple(Break(0, what) for *_, what in _astray(root, found))
        again = lines.chain_now(root) if astray else found
        if again.last == found.last:  # else another process has moved aliases between the two looks
            return replace(found, breaks=(*found.breaks, *astray))
        found = again


def _astray(root: Path, found: Ledger) -> Iterator[tuple[str, int | None, int | None, str]]:
    """Yield the aliases that the ledger has put elsewhere: (alias, where the ledger says, where it is, in words). Those
    of a move that is open may stand at either end."""
    now, standing = models.aliases(root), found.standing()
    moving = {move.alias for move in found.open.moves} if found.open is not None else set()
    for alias in ALIASES:
        wanted, there = standing.get(alias), now.get(alias)
        if alias in moving or (there is None and (wanted is None or alias == "challenger")):
            continue  # a challenger that was taken away lets nobody become champion
        if wanted == there and there is not None:
            if not _is_there(root, there):
                yield alias, wanted, None, f"@{alias} stands at version {there}, which was deleted"
        elif there is None:
            gone = "" if _is_there(root, wanted) else ", which was deleted"
            yield (
                alias,
                wanted,
                None,
                f"@{alias} was taken away by another tool: the ledger says version {wanted}{gone}",
            )
        elif not found.entries:
            yield alias, wanted, there, f"@{alias} stands at version {there}, and the ledger is empty"
        else:
            said = "none" if wanted is None else f"version {wanted}"
            gone = "" if _is_there(root, there) else ", which was deleted"
            what = f"@{alias} was moved by another tool to version {there}{gone}: the ledger says {said}"
            yield alias, wanted, there if _is_there(root, there) else None, what


def _is_there(root: Path, number: int | None) -> bool:
    return number is not None and models.exists(root, number)


def _too_late(root: Path, move: Move) -> QuickstudyError:
    return QuickstudyError(
        f"another promotion came first{_by(root)}",
        where=f"models:/{NAME}/{move.target}",
        fix="This one moved nothing. Look at what it is now (quickstudy history) and decide again",
    )


def _by(root: Path) -> str:
    """Say who moved the champion last, and when."""
    found = lines.chain_now(root)
    for number, state in reversed(found.states().items()):
        entry = found.entries[number]
        if state != "struck" and entry.moves[0].alias == "champion":
            return f" ({entry.verb} of version {entry.moves[0].target} by {entry.who}, {entry.when})"
    return ""


def _called(number: int | None) -> str:
    return "none" if number is None else f"version {number}"


def _who() -> str:
    """Say whose process this is. The number is the system's word; the name of it is not asked of the environment."""
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container without a name for its user
        user = str(uid)
    return f"{user}@{socket.gethostname()} (uid {uid})"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
