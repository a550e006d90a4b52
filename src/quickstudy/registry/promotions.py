"""Aliases and their ledger: who is champion, who moved it, when and why.

Aliases move in one function, ``move``, which keeps the ledger (`quickstudy.registry.ledger`). MLflow has no log to
append to, but it numbers the versions of a model without gaps or repeats, whoever makes them: version N of the
registered model ``quickstudy-ledger`` is the ledger's line N, in a tag. So the ledger lies where the aliases lie, in
the project's own store as in a server's.
"""

import contextlib
import getpass
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from quickstudy.errors import QuickstudyError
from quickstudy.registry import ledger, models, store
from quickstudy.registry.ledger import Break, Ledger, LedgerEntry, Move
from quickstudy.registry.store import NAME

JUDGED = "gate_against"
"""Of a version: the champion that the gate compared it with last."""

LEDGER = f"{NAME}-ledger"

ENTRY = "entry"

LEDGER_END = "ledger_end"
"""Of the registered model: the digest of the ledger's last line, or of an older one where a process was killed."""

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


def accept_breaks(root: Path, why: str) -> tuple[Break, ...]:
    """Let the lines stand at which the ledger does not hold, so that aliases can move again. They stay visible.

    Returns:
        the broken lines.

    Raises:
        QuickstudyError: there are none.
    """
    with store.locked(root):
        client, found = store.client(root), ledger_now(root)
        if not found.broken:
            raise QuickstudyError("the ledger is whole", where=LEDGER, fix="There is nothing to accept")
        line = ledger.entry(
            "accepted",
            "accept",
            before=found.last,
            when=_now(),
            who=_who(),
            why=why,
            accepts=[broken.number for broken in found.broken],
        )
        _append(client, line)
        client.set_registered_model_tag(NAME, LEDGER_END, line.digest)
        return found.broken


def broken_ledger(found: Ledger) -> QuickstudyError:
    """Return what is wrong with a ledger, in a line."""
    return QuickstudyError(
        "; ".join(map(str, found.broken)),
        where=f"models:/{LEDGER}",
        fix='No alias moves until a person lets it stand: quickstudy history --accept --reason "…"',
    )


def move(root: Path, client: Any, verb: ledger.Verb, moves: list[Move], why: str, evidence: Any = None) -> LedgerEntry:
    """Move aliases, all or none; the first one decides. The only writer of aliases; the caller has settled the ledger
    and holds the lock, which on a server others do not heed: there the ledger's order says who was first."""
    who = _who()
    intent = ledger.entry(
        "intent", verb, before=ledger_now(root).last, when=_now(), who=who, why=why, moves=moves, evidence=evidence
    )
    _append(client, intent)
    if ledger_now(root).last != intent.digest:
        raise _too_late(root, moves[0])
    _set_aliases(client, moves)
    done = ledger.entry("done", verb, before=intent.digest, when=_now(), who=who, of=intent.digest)
    _append(client, done)
    after = ledger_now(root)
    if not after.holds(done.digest):  # this process was taken for dead
        standing = after.standing()
        _set_aliases(client, [Move(move.alias, None, standing.get(move.alias, move.origin)) for move in moves])
        raise _too_late(root, moves[0])
    client.set_registered_model_tag(NAME, LEDGER_END, done.digest)
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
        _append(client, line)
        client.set_registered_model_tag(NAME, LEDGER_END, line.digest)
    return models.aliases_of(client)


def ledger_now(root: Path) -> Ledger:
    """Return the ledger as it stands, with a move that was cut off left open. Change nothing."""
    lines: list[tuple[int, str]]
    if store.is_local(root):
        lines = store.query(
            root,
            f"SELECT v.version, coalesce(t.value, '') FROM model_versions v LEFT JOIN model_version_tags t"
            f" ON t.name = v.name AND t.version = v.version AND t.key = '{ENTRY}' WHERE v.name = ? ORDER BY v.version",
            LEDGER,
        )
        ends = store.query(root, "SELECT value FROM registered_model_tags WHERE name = ? AND key = ?", NAME, LEDGER_END)
        return ledger.read(lines, ends[0][0] if ends else None)
    from mlflow.exceptions import MlflowException

    client = store.client(root)
    found, token = [], None
    while True:
        page = client.search_model_versions(f"name = '{LEDGER}'", max_results=1000, page_token=token)
        found += page
        if not (token := page.token):
            break
    lines = sorted((int(line.version), line.tags.get(ENTRY, "")) for line in found)
    try:
        end = client.get_registered_model(NAME).tags.get(LEDGER_END)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        end = None
    return ledger.read(lines, end)


def _append(client: Any, line: LedgerEntry) -> None:
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):  # it exists
        client.create_registered_model(
            LEDGER, description=f"No model: version N is line N of the ledger of {NAME}, in its tag {ENTRY}."
        )
    client.create_model_version(LEDGER, source="ledger:/line", tags={ENTRY: line.line}, await_creation_for=None)


def _too_late(root: Path, move: Move) -> QuickstudyError:
    return QuickstudyError(
        f"another promotion came first{_by(root)}",
        where=f"models:/{NAME}/{move.target}",
        fix="This one moved nothing. Look at what it is now (quickstudy history) and decide again",
    )


def _by(root: Path) -> str:
    """Say who moved the champion last, and when."""
    found = ledger_now(root)
    for number, state in reversed(found.states().items()):
        entry = found.entries[number]
        if state != "struck" and entry.moves[0].alias == "champion":
            return f" ({entry.verb} of version {entry.moves[0].target} by {entry.who}, {entry.when})"
    return ""


def _called(number: int | None) -> str:
    return "none" if number is None else f"version {number}"


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
