"""promote, rollback, history and diff: which version serves, since when, by whose word and why."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.errors import QuickstudyError
from quickstudy.secrets import redacted
from quickstudy.system.printing import print

if TYPE_CHECKING:
    from quickstudy.registry.ledger import Ledger, Verb

LAST = 50
"""How many moves `history` shows."""

RENAMED = {"gate.accuracy": "gate.score"}
"""Parameters that had another name once."""

Reason = Annotated[str, typer.Option("--reason", help="Why, for the ledger.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(promote)
    app.command()(rollback)
    app.command()(history)
    app.command()(diff)


def promote(
    version: Annotated[str, typer.Argument(help="Its number or alias.")] = "challenger",
    approve: Annotated[bool, typer.Option("--approve", help="You decide, whatever the evidence; say why.")] = False,
    ask: Annotated[
        bool, typer.Option("--ask", help="A person decides on Prefect's page, within gate.deadline of params.yaml.")
    ] = False,
    reason: Reason = "",
) -> None:
    """Make a version the champion if the gate says PROMOTE, or a person does; who was that becomes @previous.

    The gate (`quickstudy gate`) is asked in any case and its evidence goes into the ledger. Exit code 0: moved,
    3: HOLD, 4: REJECT, 5: a person said no.
    """
    if approve and ask:
        raise QuickstudyError("either you decide or another does", where="--approve --ask", fix="Leave one out")
    _move("promote", version, reason, approve, ask)


def rollback(reason: Reason = "") -> None:
    """Make @previous the champion again; the two change places."""
    _move("rollback", "previous", reason, approve=True)


def history(
    everything: Annotated[bool, typer.Option("--all", help=f"Not only the last {LAST} moves.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every line of the ledger, as it is stored.")] = False,
    on: Annotated[
        str, typer.Option("--on", metavar="DATE", help="Who was champion then, and why: 2026-03-03, or with a time.")
    ] = "",
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Let broken lines stand, and aliases where they are: then these can move again."),
    ] = False,
    restore: Annotated[
        bool, typer.Option("--restore", help="Put the aliases back to where the ledger says they stand.")
    ] = False,
    reason: Reason = "",
    holds: Annotated[
        str,
        typer.Option("--holds", metavar="DIGEST", help="Is this line in the ledger, as a notification has told of it?"),
    ] = "",
) -> None:
    """Which version was champion when, by whom and why; says where the ledger is broken (exit code 2), also by what git
    keeps of it."""
    from rich.table import Table
    from rich.text import Text

    from quickstudy import registry
    from quickstudy.cli.pipeline import project
    from quickstudy.system.terminal import Console

    if on and as_json:
        raise QuickstudyError("one answer or the whole ledger", where="--on --json", fix="Leave one out")
    root = project()
    console = Console()
    if accept and restore:
        raise QuickstudyError("the registry is right or the ledger is", where="--accept --restore", fix="Leave one out")
    if reason and not (accept or restore):
        raise QuickstudyError("a reason is for a decision", where="--reason", fix="Add --accept, or leave it out")
    if accept or restore:
        if not reason.strip():
            where = "--accept" if accept else "--restore"
            raise QuickstudyError("a decision needs a reason", where=where, fix='Say --reason "…"')
        if restore:
            for move in registry.restore_aliases(root, reason):
                console.print(f"{move}: as the ledger says", soft_wrap=True)
        else:
            for broken in registry.accept_breaks(root, reason):
                console.print(f"{broken}: it stands from now on", soft_wrap=True)
        return
    ledger, aliases, signed = registry.read_ledger(root), registry.aliases(root), registry.signers(root)
    try:
        ledger = replace(ledger, breaks=(*ledger.breaks, *registry.compare_remote(root, ledger)))
    except QuickstudyError as error:
        Console(stderr=True).print(f"not compared with the git remote: {error}", style="yellow", soft_wrap=True)
    if holds:
        held = [number for number, entry in ledger.entries.items() if entry.digest.startswith(holds.lower())]
        if not held or len(holds) < 8:
            raise QuickstudyError("no line of the ledger has this digest", where=f"--holds {holds}")
        print(f"line {held[0]}")
        return
    if as_json:
        states = ledger.states()
        lines = [
            {
                "line": number,
                **json.loads(entry.line),
                **({"state": states[number]} if number in states else {}),
                **({"signed_by": signed[number]} if number in signed else {}),
            }
            for number, entry in ledger.entries.items()
        ]
        breaks = [
            {"line": found.number, "what": found.what, "accepted": found.number in ledger.accepted}
            for found in ledger.breaks
        ]
        print(json.dumps({"aliases": aliases, "lines": lines, "breaks": breaks}, indent=1, ensure_ascii=False))
    elif on:
        console.print(_champion_on(ledger, on), highlight=False, soft_wrap=True)
    else:
        table = Table(box=None, padding=(0, 1))
        for heading in ("when (UTC)", "who", "what", "aliases", "gate", "why"):
            table.add_column(heading, overflow="fold")
        broken_lines = {found.number for found in ledger.breaks}
        states = ledger.states()
        moved = [(number, states.get(number, "done")) for number, entry in ledger.entries.items() if entry.moves]
        shown = moved if everything else moved[-LAST:]
        for number, state in shown:
            entry = ledger.entries[number]
            moves = "\n".join(map(str, entry.moves)) if state == "done" else "nothing moved: cut off"
            if number in broken_lines:
                moves += "\nthis line is broken"
            table.add_row(
                entry.when[:19].replace("T", " "),
                Text(f"{entry.who}\nsigned: {signed[number]}" if number in signed else entry.who),
                entry.verb,
                Text(moves, style="red" if number in broken_lines else "" if state == "done" else "dim"),
                Text(_gate(entry.verb, entry.evidence)),
                Text(entry.why),
            )
        if table.row_count:
            console.print(table)
        else:
            console.print("No alias has moved yet.")
        if len(shown) < len(moved):
            console.print(f"{len(moved) - len(shown)} moves before these: quickstudy history --all", highlight=False)
        for found in ledger.breaks:
            if found.number and found.number in ledger.accepted:
                console.print(f"{found}; a person lets it stand", style="yellow", highlight=False, soft_wrap=True)
        now = ", ".join(f"@{alias} {aliases[alias]}" for alias in registry.ALIASES if alias in aliases)
        console.print(f"Now: {now or 'no version has an alias'}", highlight=False, soft_wrap=True)
    if ledger.broken:
        raise registry.broken_ledger(ledger)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A version: its number or alias.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Two versions side by side: data, code, parameters and metrics, what differs first."""
    from rich.table import Table
    from rich.text import Text

    from quickstudy import registry
    from quickstudy.cli.pipeline import project
    from quickstudy.system.terminal import Console

    root = project()
    versions = [registry.version(root, name) for name in (a, b)]
    made = [
        {
            "created": version.created,
            "data": version.tags.get("data_hash", ""),
            "code": version.tags.get("git_commit", "")
            + (" + changes.patch" if version.tags.get("git_dirty") == "true" else ""),
        }
        for version in versions
    ]
    parts: dict[str, list[tuple[str, Any, Any]]] = {
        "made": _pairs(*made),
        "parameters": _pairs(*(_named_today(version.parameters, RENAMED) for version in versions)),
        "metrics": _pairs(*(_results(version.metrics) for version in versions)),
    }
    if as_json:
        rows = {part: [{"name": name, "a": x, "b": y} for name, x, y in pairs] for part, pairs in parts.items()}
        print(json.dumps({"a": versions[0].uri, "b": versions[1].uri, **rows}, indent=1, ensure_ascii=False))
        return
    table = Table(box=None, padding=(0, 1))
    table.add_column("")
    for version in versions:
        names = "".join(f" @{alias}" for alias in version.aliases)
        table.add_column(f"version {version.number}{names}", overflow="fold")
    table.add_column("difference", justify="right", no_wrap=True)
    same = 0
    for part in ("made", "parameters"):
        for name, x, y in parts[part]:
            if x == y:
                same += part == "parameters"
            table.add_row(Text(name), Text(str(x)), Text(str(y))) if x != y or part == "made" else None
    intervals = [_results(version.metrics) for version in versions]
    for name, x, y in parts["metrics"]:
        if name.endswith((".ci95", ".episodes")):  # an interval stands beside its score
            continue
        cells = [_figure(name, value, metrics) for value, metrics in zip((x, y), intervals, strict=True)]
        label = name.removeprefix("evaluate/").removesuffix(".score")
        table.add_row(Text(label), *map(Text, cells), Text(_difference(name, x, y)))
    console = Console()
    console.print(table)
    if same:
        console.print(f"{same} parameters are the same in both.", highlight=False)


def _champion_on(ledger: "Ledger", on: str) -> str:
    try:
        moment = datetime.fromisoformat(on)
    except ValueError:
        raise QuickstudyError(
            f"{on!r} is no date", where="--on", fix="Write it as 2026-03-03, or 2026-03-03T14:30 (UTC)"
        ) from None
    if len(on) == len("2026-03-03"):
        moment = moment.replace(hour=23, minute=59, second=59)  # of a day, its end
    moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    moment = min(moment, datetime.now(UTC))  # nobody knows the rest of today
    text = moment.isoformat(timespec="seconds")
    entry = ledger.at("champion", text)
    when = f"{moment:%Y-%m-%d %H:%M} UTC"
    if entry is None:
        return f"On {when} no version was champion."
    target = next(move.target for move in entry.moves if move.alias == "champion")
    since = entry.when[:16].replace("T", " ")
    gate = _gate(entry.verb, entry.evidence)
    return f"On {when} version {target} was champion, since {since} ({entry.verb} by {entry.who}" + (
        f"; gate: {gate}): {entry.why}" if gate else f"): {entry.why}"
    )


def _move(verb: "Verb", version: str, reason: str, approve: bool, ask: bool = False) -> None:
    from quickstudy import registry
    from quickstudy.cli.gate import show_verdict
    from quickstudy.cli.pipeline import drive, project
    from quickstudy.errors import GATE_CODES
    from quickstudy.system.terminal import Console

    root = project()
    # A mistake is told before Prefect starts; the flow looks again.
    plan = registry.plan(root, verb, version)
    if approve:
        registry.approved(plan, reason)
    before = registry.aliases(root)
    # The number, not the alias: what was looked at is what is promoted.
    words = [verb, *([str(plan.version)] if verb == "promote" else []), "--reason", redacted(reason)]
    if verb == "promote":
        words += [option for option, on in (("--approve", approve), ("--ask", ask)) if on]
    words += ["--against", str(plan.champion)] if plan.champion is not None else []
    told = drive(root, ["-m", "flows.promote", *words], "promote.log").last
    after, console = registry.aliases(root), Console()
    verdict = told.get("gate", {}).get("verdict", {})
    if "rules" in verdict:
        show_verdict(console, verdict)
    for alias in registry.ALIASES:
        if before.get(alias) != after.get(alias):
            was, now = (f"version {at[alias]}" if alias in at else "none" for at in (before, after))
            console.print(f"@{alias}  {was} → {now}", highlight=False)
    if "move" not in told:
        console.print("Nothing was moved.")
        if "ask" in told:
            raise typer.Exit(5)
        how = f'quickstudy promote {plan.version} --approve --reason "…"'
        console.print(f"To overrule the gate: {how}", highlight=False, soft_wrap=True)
        raise typer.Exit(GATE_CODES[verdict["answer"]])


def _gate(verb: str, evidence: Any) -> str:
    if isinstance(evidence, dict) and "answer" in evidence:
        return str(evidence["answer"])
    return "" if verb in ("register", "accept", "restore") else "not asked: a person's word"


def _pairs(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    """Return (name, value in a, value in b), what differs first; among numbers the largest difference first."""
    pairs = [(name, a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b])]

    def rank(pair: tuple[str, Any, Any]) -> tuple[bool, float]:
        _, x, y = pair
        numbers = isinstance(x, int | float) and isinstance(y, int | float)
        return x == y, -abs(y - x) if numbers else 0.0

    return sorted(pairs, key=rank)


def _results(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics without what a training told as it went: that says how it went, not what came of it. Those of
    before there were kinds of task are named as classify's are today."""
    found = {name: value for name, value in metrics.items() if not name.startswith(("live/", "system/"))}
    return _named_today(found, {name: today for name in found if (today := _of_classify(name, found)) is not None})


def _of_classify(name: str, metrics: Mapping[str, float]) -> str | None:
    """The name today of a metric of before there were kinds; None: it is named so today."""
    stage, _, rest = name.partition("/")
    scored = rest.rpartition(".")[0]
    if stage == "evaluate" and (
        rest in ("mean_accuracy", "below_a_baseline") or f"{stage}/{scored}.accuracy" in metrics
    ):
        return f"evaluate/classify/{re.sub('accuracy$', 'score', rest)}"
    return f"{stage}/classify/{rest}" if stage in ("meta_train", "train") and "/" not in rest else None


def _named_today(values: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """What is there under today's name already is newer."""
    return {renamed[name]: value for name, value in values.items() if name in renamed} | {
        name: value for name, value in values.items() if name not in renamed
    }


def _figure(name: str, value: float | None, metrics: Mapping[str, float]) -> str:
    if value is None:
        return "–"
    if not _is_score(name):
        return f"{value:.4g}"
    interval = metrics.get(f"{name.removesuffix('score')}ci95")
    return f"{100 * value:.1f} %" if interval is None else f"{100 * value:.1f} ± {100 * interval:.1f} %"


def _difference(name: str, a: float | None, b: float | None) -> str:
    """Return b − a in the unit of `_figure`."""
    if a is None or b is None:
        return ""
    return f"{100 * (b - a):+.1f} points" if _is_score(name) else f"{b - a:+.4g}"


def _is_score(name: str) -> bool:
    return name.endswith((".score", "/mean_score"))
