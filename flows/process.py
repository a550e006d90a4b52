"""The steps of the flows: Prefect tasks under the names that they have elsewhere, with artifacts of their results."""

import contextlib
import csv
import fcntl
import json
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import get_run_logger, pause_flow_run, runtime, suspend_flow_run, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import FlowPauseTimeout, Pause, PrefectHTTPStatusError
from prefect.input import RunInput
from prefect.states import Completed
from prefect.tasks import Task

from flows import handover, notice
from flows.telling import listener, step, tell
from quickstudy import registry
from quickstudy.cli.display import COUNT
from quickstudy.cli.gate import CODES, folder_of
from quickstudy.cli.stages import LIVE
from quickstudy.data.dataset import dataset_names
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.gate import Rule
from quickstudy.registry.ledger import Entry
from quickstudy.runs import workspaces
from quickstudy.starter import STARTER as STARTER_DATA
from quickstudy.system.atomic import write_bytes
from quickstudy.system.environment import find_project
from quickstudy.system.processes import GRACE, stream
from quickstudy.versions import dvc

STARTER = ("quickstudy", "data", "build")
GATE = ("quickstudy", "gate")

RETRIES, BACKOFF = 4, [5.0, 15.0, 45.0, 120.0]
"""How often what may pass is tried again, and after how many seconds each time."""

UNTIL_TAKEN_FOR_DEAD = [20.0, 45.0]
"""After this many seconds a move of aliases that was killed is settled by the next one (registry.promotions)."""

LAST_DATA = Path(".cache") / "data_version"
"""The version that data/ had when a run last looked, to tell a change of the data from a change of data.dvc by git."""


def a_retry_can_help(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether the failure may pass: a busy workspace, a killed stage, a remote out of reach, a locked database, a full
    disk, here or where another run trains, a move of aliases that another run began."""
    try:
        state.result()
    except (dvc.Busy, dvc.RemoteFailed, registry.Unreachable, registry.Moving):
        return True
    except dvc.StageFailed as failure:
        return failure.killed
    except Exception as error:
        return "database is locked" in str(error) or "no space left" in str(error).lower()
    return False


def project_of(folder: str | None) -> Path:
    """The project that a flow works in: the folder it was given, or the one around the current folder.

    Raises:
        QuickstudyError: there is none, or no workspace could be made for this run (quickstudy.runs.workspaces).
    """
    if refused := os.environ.get(workspaces.REFUSED):
        raise QuickstudyError(refused)
    return find_project(Path(folder) if folder else None)


@contextlib.contextmanager
def only_run(root: Path) -> Iterator[None]:
    """Hold the project for one flow at a time; the lock goes with the process, however that ends.

    Raises:
        QuickstudyError: another run holds it.
    """
    if os.environ.get(workspaces.LOCKED) == str(root):  # a deployment's run: its pull step has done so
        _end_with_worker()
        yield
        return
    path = root / ".cache" / "run.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise QuickstudyError(
                f"another run is at work here (process {lock.read().strip() or 'unknown'})",
                where=root,
                fix="Wait until it ends, or stop it",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _end_with_worker() -> None:
    """End this process when the worker that started it has ended: nobody could cancel it any more."""
    worker = os.getppid()

    def watch() -> None:
        while os.getppid() == worker:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="worker", daemon=True).start()


# What a step makes are files, of which DVC and MLflow know whether they are current: Prefect caches nothing.
@task(
    name="data",
    task_run_name="data",
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=BACKOFF,
    retry_condition_fn=a_retry_can_help,
)
def take_data(root: Path, version: str) -> Any:
    """Make data/ a version that is known, whatever was there before: for a workspace, in which nobody works."""
    with step(root, "data") as done:
        same = version == _last_data(root)
        dvc.set_data(root, version)
        bring_data(root, version, listener("data"))
        _remember_data(root, version)
        done.update(outcome="up to date" if same else "ran", note=f"version {version[:8]}", version=version)
    return version


@task(
    name="data",
    task_run_name="data",
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_delay_seconds=BACKOFF,
    retry_condition_fn=a_retry_can_help,
)
def version_data(root: Path) -> Any:
    """Make sure that data/ is there and has a version; say whether that is the committed one.

    Data that is missing comes from DVC's cache, else from the DVC remote where one is configured, else it is the
    starter data, built here. A clone that never versioned its data also gets what is missing of the starter data, so
    that a build which was interrupted is completed.

    Returns:
        the DVC hash of data/.
    """
    with step(root, "data") as done:
        listen = listener("data")
        wanted = dvc.data_hash(root)
        last = _last_data(root)
        there = (root / "data").is_dir() and any((root / "data").iterdir())
        built = False
        if not there and wanted and dvc.in_cache(root, wanted):
            dvc.checkout_data(root)
        elif not there and wanted and dvc.has_remote(root):
            dvc.pull_data(root, listen)
        elif not there or (last is None and not (wanted and dvc.in_cache(root, wanted))):
            call(root, "data", STARTER, listen)
            built = True
        said = (root / "data.dvc").read_bytes() if wanted else b""
        version = dvc.add_data(root)
        if wanted not in (None, version) and version == last and _follow(root, said, listen):
            version = str(wanted)
        _remember_data(root, version)
        imported = [name for name in dataset_names(root / "data") if name not in STARTER_DATA]
        note = _about(version, wanted, dvc.committed_data_hash(root), built, imported)
        changed = version != wanted
        done.update(outcome="ran" if changed or built else "up to date", note=note, version=version)
        get_run_logger().info(note)
    create_markdown_artifact(f"Data version `{version}`: {note}", key="data", description="The version of data/")
    return version if changed or built else Completed(name="Cached", message=note, data=version)


@task(cache_policy=NO_CACHE, retries=1, retry_delay_seconds=5, retry_condition_fn=a_retry_can_help)
def bring_up_to_date(root: Path, stage: dvc.Stage) -> Any:
    """`dvc repro` of one stage. A stage that is up to date ends in the state Cached.

    Returns:
        "ran", "up to date" or "restored" (from DVC's run cache).
    """
    follow = registry.following(root, root / LIVE) if stage.name == "meta_train" else contextlib.nullcontext()
    with step(root, stage.name) as done, follow:
        outcome = dvc.repro(root, stage.name, listener(stage.name))
        done["outcome"] = outcome
    show(root, stage)
    return outcome if outcome == "ran" else Completed(name="Cached", message=outcome, data=outcome)


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=BACKOFF, retry_condition_fn=a_retry_can_help)
def train_elsewhere(root: Path, stage: dvc.Stage) -> Any:
    """The stage by a worker of the pool gpu, unless DVC knows what comes out; then what came out, from there."""
    with step(root, stage.name) as done:
        listen = listener(stage.name)
        pull = dvc.has_remote(root)
        try:
            outcome = dvc.repro(root, stage.name, listen, pull=pull, may_run=False)
        except dvc.MustRun:
            if pull:
                dvc.push_data(root, listen)
                dvc.push_outputs(root, stage.after, listen)
            other = handover.train(root, stage.name)
            try:
                dvc.repro(root, stage.name, listen, pull=pull, may_run=False)
            except dvc.MustRun:
                raise QuickstudyError(
                    f"the run {other.name} has trained, but what it made is not to be had here", where=stage.name,
                    fix="Configure the same DVC remote in both clones (dvc remote add -d), or say runs.train_on: here",
                ) from None  # fmt: skip
            outcome = "ran"
            done["note"] = f"by {other.name}"
        done["outcome"] = outcome
    show(root, stage)
    return outcome if outcome == "ran" else Completed(name="Cached", message=outcome, data=outcome)


@task(
    name="register",
    task_run_name="register",
    cache_policy=NO_CACHE,
    retries=3,
    retry_delay_seconds=[5, *UNTIL_TAKEN_FOR_DEAD],
    retry_condition_fn=a_retry_can_help,
)
def register(root: Path) -> Any:
    """The model and its evaluation into MLflow, once."""
    with step(root, "register") as done, registry.reachable(root):
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
    """Which version shall take the place of which champion; it is there and whole."""
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
    folder = root / folder_of(plan.version, plan.champion)
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
    call(root, "gate", [*GATE, str(plan.version), "--against", str(plan.champion or "none")], listen, CODES.values())
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
    tell(step="ask", line=f"waits for a person at most {hours:g} h: Prefect's page (quickstudy ui), run {name}, Resume")
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
    """Whether another process is moving aliases or was killed at it, or MLflow's server has gone meanwhile."""
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
def move(root: Path, plan: registry.Plan, reason: str, evidence: Any) -> Entry:
    """The aliases and the ledger."""
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


def move_and_notify(root: Path, plan: registry.Plan, reason: str, evidence: Any, blocks: Sequence[str]) -> Entry:
    """Both, as two tasks."""
    entry: Entry = move(root, plan, reason, evidence)
    if blocks:
        notify(blocks, entry)
    return entry


@task(name="notify", task_run_name="notify", cache_policy=NO_CACHE)
def notify(blocks: Sequence[str], entry: Entry) -> None:
    """Tell Prefect's notification blocks of a move. What is moved stays moved, whoever cannot be reached."""
    moves = ", ".join(str(move) for move in entry.moves)
    for name in blocks:
        notice.notify(name, f"quickstudy {entry.verb}", f"{moves}\nby {entry.who}, {entry.when}\n{entry.why}")


def show(root: Path, stage: dvc.Stage) -> None:
    """An artifact in Prefect's UI with what a stage made: its text, its table or its numbers, the first there is."""
    key = stage.name.replace("_", "-").lower()
    places = [root / out for out in stage.outs]
    folders = list(dict.fromkeys(place if place.is_dir() else place.parent for place in places if place.exists()))
    for path in (found for folder in folders for found in sorted(folder.glob("*.md"))):
        if (page := path.with_suffix(".html")).exists():
            create_link_artifact(page.resolve().as_uri(), page.name, key=f"{key}-page")
        text = re.sub(r"!\[[^]]*]\([^)]*\)\s*", "", path.read_text(encoding="utf-8"))  # figures lie beside the file
        create_markdown_artifact(text, key=key, description=f"{stage.name}: {path.name}")
        return
    for path in (folder / "table.csv" for folder in folders):
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                create_table_artifact(list(csv.DictReader(file)), key=key, description=f"{stage.name}: {path.name}")
            return
    rows = [
        {"name": name, "value": value}
        for folder in folders
        for path in (folder / "metrics.json", folder / f"{folder.name}.json")
        if path.exists()
        for name, value in dvc.flatten(json.loads(path.read_text(encoding="utf-8"))).items()
    ]
    if rows:
        create_table_artifact(rows, key=key, description=f"{stage.name}: its numbers")


def bring_data(root: Path, version: str, listen: Callable[[str], None]) -> None:
    """Make data/ what data.dvc names, whatever was there before.

    Raises:
        QuickstudyError: it is not to be had here.
        versions.RemoteFailed: the DVC remote does not give it.
    """
    if dvc.in_cache(root, version):
        dvc.checkout_data(root, force=True)
    elif dvc.has_remote(root):
        dvc.pull_data(root, listen)
    else:
        raise QuickstudyError(
            f"data version {version[:8]} is not in DVC's cache here, and no DVC remote is configured",
            where=root, fix="Configure one here and where the data was made (dvc remote add -d), and dvc push it there",
        )  # fmt: skip


def _remember_data(root: Path, version: str) -> None:
    write_bytes(root / LAST_DATA, version.encode())


def _last_data(root: Path) -> str | None:
    try:
        return (root / LAST_DATA).read_text().strip() or None
    except FileNotFoundError:
        return None


def call(
    root: Path, name: str, command: Sequence[str], listen: Callable[[str], None], fine: Collection[int] = (0,)
) -> int:
    """Run a verb of the command line for a step; of what it prints only the counts go on, not what to do next.

    Returns:
        its exit code, one of ``fine``.

    Raises:
        QuickstudyError: a mistake of the user's, in its line.
        versions.StageFailed: it ended with another code than ``fine``.
    """
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        if COUNT.search(line):
            listen(line)

    code = stream(command, root, keep)
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {code}")
    if code == 2:
        raise QuickstudyError(last.removeprefix("quickstudy: "))
    if code not in fine:
        raise dvc.StageFailed(name, last, killed=code < 0)
    return code


def _follow(root: Path, said: bytes, listen: Callable[[str], None]) -> bool:
    """Bring data/ to what data.dvc said before `dvc add` overwrote it: git has changed data.dvc, nobody the data."""
    kept = (root / "data.dvc").read_bytes()
    write_bytes(root / "data.dvc", said)
    wanted = dvc.data_hash(root)
    assert wanted is not None
    try:
        if dvc.in_cache(root, wanted):
            dvc.checkout_data(root)
            return True
        if dvc.has_remote(root):
            dvc.pull_data(root, listen)
            return True
    except BaseException:
        write_bytes(root / "data.dvc", said)
        raise
    write_bytes(root / "data.dvc", kept)
    listen(f"data.dvc names version {wanted[:8]}, which is neither in DVC's cache nor in a remote")
    return False


def _about(version: str, wanted: str | None, committed: str | None, built: bool, imported: list[str]) -> str:
    if version == committed:
        return f"version {version[:8]}, the committed one"
    if committed is None:
        return f"version {version[:8]}, not committed yet"
    beside = f" (beside the starter data: {', '.join(imported)})" if imported else ""
    if built and wanted == committed and not imported:
        return (
            f"version {version[:8]} is new: on this platform the starter data has other bytes than in the committed "
            f"version {committed[:8]} (or that one also holds other data)"
        )
    return f"version {version[:8]} is new{beside}; the committed one is {committed[:8]}"


def _about_version(registration: registry.Registration) -> str:
    names = " ".join([f"version {registration.version}", *(f"@{alias}" for alias in registration.aliases)])
    if registration.new:
        return f"new {names}"
    return f"{names} is this model; its new evaluation is a run of its own" if registration.logged else names


def main(flow: Callable[[], Any]) -> int:
    """Run a flow as a process of its own and return its exit code; a bug leaves its traceback."""
    try:
        flow()
    except KeyboardInterrupt as error:
        return fail(error)
    except Exception as error:
        code = fail(error)
        if code == 1:
            traceback.print_exc()
        return code
    return 0


def fail(error: BaseException) -> int:
    """Tell what ended a flow in one line and return the exit code of its process: 2 for a user's mistake."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, RuntimeError) and "Failed to reach API at" in str(error):
        error = QuickstudyError(
            "Prefect's server does not answer",
            where=os.environ.get("PREFECT_API_URL"),
            fix="Start it, or unset PREFECT_API_URL to run without one",
        )
    if isinstance(error, PrefectHTTPStatusError) and error.response.status_code in (401, 403):
        error = QuickstudyError(
            "Prefect's server refuses the login",
            where=os.environ.get("PREFECT_API_URL"),
            fix="Set PREFECT_API_AUTH_STRING to the server's user:password",
        )
    if isinstance(error, QuickstudyError):
        tell(error=str(error))
        print(f"quickstudy: {error}", file=sys.stderr)
        return 2
    tell(crash=f"{error}" if isinstance(error, dvc.StageFailed) else f"{type(error).__name__}: {error}")
    return 1
