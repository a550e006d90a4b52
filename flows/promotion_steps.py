"""Steps of a flow that register a model, ask the gate or a person, and move aliases."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import pause_flow_run, runtime, suspend_flow_run, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import FlowPauseTimeout, Pause
from prefect.input import RunInput
from prefect.states import Completed
from prefect.tasks import Task

from flows import notice
from flows.process import a_retry_can_help, call
from flows.telling import listener, step, tell
from quickstudy import registry
from quickstudy.errors import GATE_CODES, QuickstudyError
from quickstudy.evaluation.rules import Rule
from quickstudy.pipeline.paths import gate_folder
from quickstudy.registry.ledger import LedgerEntry
from quickstudy.runs import workspaces
from quickstudy.versions import whole

GATE = ("quickstudy", "gate")


UNTIL_TAKEN_FOR_DEAD = [20.0, 45.0]
"""After this many seconds a move of aliases that was killed is settled by the next one (registry.promotions)."""


@task(
    name="register",
    task_run_name="register",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[5, *UNTIL_TAKEN_FOR_DEAD],
    retry_condition_fn=a_retry_can_help,
)
def register(root: Path) -> Any:
    """Bring the model and its evaluation into MLflow, once."""
    with step(root, "register") as done, registry.reachable(root):
        whole.check_outputs(root)
        registration = registry.register(root)
        done.update(
            outcome="ran" if registration.logged else "up to date",
            note=_about_version(registration),
            version=registration.version,
            aliases=list(registration.aliases),
        )
    names = "".join(f", @{alias}" for alias in registration.aliases)
    create_markdown_artifact(
        f"`{registration.uri}`{names}, run `{registration.run_id}` in {registry.redacted(registry.tracking_uri(root))}",
        key="register",
        description="The model's version in MLflow",
    )
    return registration if registration.logged else Completed(name="Cached", message="registered", data=registration)


@task(name="choose", task_run_name="choose", cache_policy=NO_CACHE)
def choose(root: Path, verb: Any, name: str, against: int | None) -> registry.Plan:
    """Choose which version shall take the place of which champion, and check that it is there and whole."""
    with step(root, "choose") as done:
        plan = registry.plan(root, verb, name)
        plan = plan if against is None else replace(plan, champion=against)
        done.update(note=str(plan), version=plan.version)
    return plan


@task(name="gate", task_run_name="gate", cache_policy=NO_CACHE)
def ask_gate(root: Path, plan: registry.Plan, must_compare: bool) -> dict[str, Any]:
    """Let both models answer the same episodes and ask the gate; its word goes to MLflow, beside the version.

    Args:
        must_compare: raise where the two cannot be compared; otherwise that is the answer, with the reason.

    Returns:
        `quickstudy.evaluation.gate.Verdict.record`, or ``answer`` NOT COMPARED and ``sentence``.
    """
    folder = root / gate_folder(plan.version, plan.champion)
    with step(root, "gate") as done:
        try:
            verdict = _gate(root, plan, folder, listener("gate"))
        except QuickstudyError as error:
            if must_compare:
                raise
            verdict = {"answer": "NOT COMPARED", "sentence": str(error)}
        with registry.reachable(root):
            registry.log_gate(root, plan.version, plan.champion, verdict["answer"], folder)
        done.update(note=verdict["sentence"], verdict=verdict)
    create_markdown_artifact(_in_words(plan, verdict), key="gate", description="The gate's word on the challenger")
    if (page := folder / "card/card.html").exists():
        create_link_artifact(page.resolve().as_uri(), "The model card, beside the champion", key="gate-card")
    return verdict


def _gate(root: Path, plan: registry.Plan, folder: Path, listen: Callable[[str], None]) -> dict[str, Any]:
    path = folder / "verdict.json"
    path.unlink(missing_ok=True)  # of an earlier time
    call(
        root, "gate", [*GATE, str(plan.version), "--against", str(plan.champion or "none")], listen, GATE_CODES.values()
    )
    verdict: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return verdict


def _in_words(plan: registry.Plan, verdict: dict[str, Any]) -> str:
    lines = [f"**{verdict['answer']}** ({plan})", "", verdict["sentence"]]
    if rules := [Rule.of(record) for record in verdict.get("rules", ())]:
        lines += ["", "| rule | gain | interval | asked | |", "|---|---|---|---|---|"]
        lines += [f"| {' | '.join((*rule.cells(), rule.state))} |" for rule in rules]
    return "\n".join(lines)


class Decision(RunInput):
    """What a person answers."""

    promote: bool
    reason: str
    name: str
    """who decides"""


def ask_person(plan: registry.Plan, verdict: dict[str, Any], hours: float) -> Decision:
    """Wait for a person, who finds the evidence and the form on the run's page in Prefect, behind Resume. A run of a
    deployment is suspended: its process ends, and a worker runs the flow again when the answer is there.

    Raises:
        QuickstudyError: nobody answered in time.
    """
    form = Decision.with_initial_data(description=_in_words(plan, verdict))
    wait: Any = suspend_flow_run if runtime.deployment.id else partial(pause_flow_run, poll_interval=2)
    name = runtime.flow_run.name
    line = f"waits for a person at most {hours:g} h: Prefect's page (quickstudy ui), run {name}, Resume"
    tell("text", step="ask", text=line)
    try:
        # The question is about these two: with another champion it is asked anew.
        decision: Decision = wait(
            wait_for_input=form, timeout=int(hours * 3600) or 1, key=f"{plan.version}-{plan.champion}"
        )
    except Pause:
        workspaces.let_go()
        raise
    except FlowPauseTimeout:
        raise QuickstudyError(
            f"nobody has answered within {hours:g} h",
            where=f"models:/{registry.NAME}/{plan.version}",
            fix="Nothing was moved. Ask again: quickstudy promote --ask",
        ) from None
    note = f"{decision.name or 'somebody'} says {'yes' if decision.promote else 'no'}: {decision.reason}"
    with step(None, "ask") as done:
        done.update(note=note, promote=decision.promote)
    return decision


def moving_again_can_help(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether another process is moving aliases or was killed at it, or MLflow's server has gone meanwhile."""
    try:
        state.result()
    except (registry.Moving, registry.Unreachable):
        return True
    except Exception:
        return False
    return False


# Not tried again after another failure: what that has left half done, whoever comes next settles.
@task(
    name="move",
    task_run_name="move",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=UNTIL_TAKEN_FOR_DEAD,
    retry_condition_fn=moving_again_can_help,
)
def move(root: Path, plan: registry.Plan, reason: str, evidence: Any) -> LedgerEntry:
    """Move the aliases, and write that into the ledger."""
    with step(root, "move") as done, registry.reachable(root):
        # The server may have died after it had done what the first try asked for.
        entry = registry.moved(root, plan) if runtime.task_run.run_count > 1 else None
        entry = entry or registry.promote(
            root, plan.version, against=plan.champion, why=reason, evidence=evidence, verb=plan.verb
        )
        note = ", ".join(str(move) for move in entry.moves)
        done.update(note=note, version=plan.version)
    create_markdown_artifact(
        f"{entry.verb} by {entry.who}, {entry.when}: {note}\n\n> {entry.why}",
        key="promotion",
        description="Which aliases moved, and why",
    )
    return entry


def move_and_notify(root: Path, plan: registry.Plan, reason: str, evidence: Any, blocks: Sequence[str]) -> LedgerEntry:
    """Do both, as two tasks."""
    entry: LedgerEntry = move(root, plan, reason, evidence)
    if blocks:
        notify(blocks, entry)
    return entry


@task(name="notify", task_run_name="notify", cache_policy=NO_CACHE)
def notify(blocks: Sequence[str], entry: LedgerEntry) -> None:
    """Tell Prefect's notification blocks of a move. What is moved stays moved, whoever cannot be reached."""
    moves = ", ".join(str(move) for move in entry.moves)
    for name in blocks:
        notice.notify(
            name,
            f"quickstudy {entry.verb}",
            f"{moves}\nby {entry.who}, {entry.when}\n{entry.why}\nledger {entry.digest}",
        )


def _about_version(registration: registry.Registration) -> str:
    names = " ".join([f"version {registration.version}", *(f"@{alias}" for alias in registration.aliases)])
    if registration.note:
        names = f"{names}; {registration.note}"
    if registration.new:
        return f"new {names}"
    return f"{names} is this model; its new evaluation is a run of its own" if registration.logged else names
