"""`quickstudy runs` by Prefect's server and from its database: real runs, real states, the same answer."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL
from prefect.states import AwaitingRetry, Crashed, Running, Scheduled, Suspended

from quickstudy.errors import QuickstudyError
from quickstudy.runs import SUMMARY, Overview, RunRecords, details, open_records, overview

pytestmark = pytest.mark.usefixtures("prefect")

Sources = Callable[[], tuple[RunRecords, RunRecords]]
STEPS = [
    {"step": "data", "outcome": "ran", "seconds": 2.5, "note": "version 1a2b"},
    {"step": "tasks", "outcome": "up to date", "seconds": 0.1, "note": ""},
]


def variables(by: str) -> dict[str, str]:
    """What a person's environment holds who reads by the server or from the file."""
    if by == "server":
        auth = os.environ["PREFECT_API_AUTH_STRING"]  # which this process has made for the server inside
        return {"PREFECT_API_URL": PREFECT_API_URL.value() or "", "PREFECT_API_AUTH_STRING": auth}
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": str(PREFECT_SERVER_DATABASE_CONNECTION_URL.value())}


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Sources:
    """Opens the server and the file beneath it."""

    def opened(by: str) -> RunRecords:
        with monkeypatch.context() as patch:
            for name, value in variables(by).items():
                patch.setenv(name, value)
            return open_records()

    return lambda: (opened("server"), opened("file"))


def same(both: Sources, **asked: Any) -> Overview:
    """The overview, which is the same by both, the address of the page apart."""
    now = datetime.now(UTC)
    by_server, by_file = (overview(source, now=now, **asked) for source in both())
    assert by_file.runs == tuple(replace(run, page=None) for run in by_server.runs)
    assert (by_file.pools, by_file.planned) == (by_server.pools, by_server.planned)
    return by_server


@task
def step(what: str) -> str:
    return what


def runs_of(name: str, body: Callable[..., Any]) -> Any:
    return flow(name=name, persist_result=False)(body)


def quietly(run: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(ValueError):
        run(*arguments)


def put(name: str, state: State, **more: Any) -> str:
    """A run of a flow that is brought into a state from outside; gives its identifier."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(runs_of(name, lambda: None), **more)
        if state.type not in (StateType.SCHEDULED, StateType.RUNNING):
            client.set_flow_run_state(run.id, Running(), force=True)
        client.set_flow_run_state(run.id, state, force=True)
        return str(run.id)


def test_what_ran_and_how_it_ended_is_the_same_by_both(both: Sources) -> None:
    def nightly(fails: bool, project: str = "here") -> None:
        step("data")
        if fails:
            raise QuickstudyError("no column named 'label'", where="data/tickets", fix="Name it")
        create_table_artifact(STEPS, key=SUMMARY, description="The data was new; HOLD")
        training()

    def train() -> None:
        step("train")

    training, looks = runs_of("meta-train", train), runs_of("watch", lambda: None)
    retrain = runs_of("retrain", nightly)
    before = {run.id for run in same(both, last=300).runs}
    retrain(False)
    quietly(retrain.with_options(flow_run_name="a failed night"), True)
    looks()
    lost = put(
        "retrain", Crashed(message="Flow run process exited with 137\nand more"), tags=["trigger:data of tickets"]
    )
    asks, turns = put("promote", Suspended(timeout_seconds=600)), put("reproduce", Running())
    put("promote", Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=5)))
    again = put("reproduce", Running())
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(
            UUID(again), AwaitingRetry(scheduled_time=datetime.now(UTC) + timedelta(hours=1)), force=True
        )
    late = put("rollback", Scheduled(scheduled_time=datetime.now(UTC) - timedelta(minutes=5)))

    shown = {run.id: run for run in same(both, last=300).runs if run.id not in before}
    told = [(run.flow, run.state, run.started_by, run.what) for run in shown.values()]
    assert sorted(told) == [
        ("promote", "suspended", "by hand", "waits for a person's word"),
        ("reproduce", "running", "by hand", ""),
        ("reproduce", "waiting", "by hand", ""),
        ("retrain", "completed", "by hand", "The data was new; HOLD"),
        ("retrain", "crashed", "data of tickets", "Flow run process exited with 137 and more"),
        ("retrain", "failed", "by hand", "data/tickets: no column named 'label'. Name it"),
        ("rollback", "waiting", "by hand", ""),
    ]
    assert shown[lost].error == "Flow run process exited with 137\nand more"
    assert shown[asks].seconds is None and shown[late].seconds is None and shown[turns].seconds is not None
    whens = [run.when for run in shown.values() if run.when]
    assert whens == sorted(whens, reverse=True) and len(whens) == len(shown)
    assert [run.id for run in same(both, last=2).runs] == list(shown)[:2]
    for state, flow_name in (("crashed", None), (None, "rollback"), ("failed", "retrain"), ("waiting", "retrain")):
        few = [run.id for run in same(both, last=300, state=state, flow=flow_name).runs if run.id not in before]
        fits = (run for run in shown.values() if state in (None, run.state) and flow_name in (None, run.flow))
        assert few == [run.id for run in fits]
    with get_client(sync_client=True) as client:
        told = {"key": SUMMARY, "type": "table", "flow_run_id": asks, "description": "ask ended early", "data": "[]"}
        client._client.post("/artifacts/", json=told).raise_for_status()
    assert [run.what for run in same(both, last=300).runs if run.id == asks] == ["waits for a person's word"]
    hidden = {run.flow for run in same(both, last=300, everything=True).runs if run.id not in {*shown, *before}}
    assert hidden == {"watch"}

    done = next(run for run in shown.values() if run.state == "completed")
    for source in both():
        (run,) = details(source, done.id)
        assert [(found.step, found.outcome, found.seconds) for found in run.steps] == [
            ("data", "ran", 2.5),
            ("tasks", "up to date", 0.1),
        ]
        assert run.parameters == {"fails": False, "project": "here"} and run.parent is None
        (child,) = run.children
        assert (child.flow, child.state) == ("meta-train", "completed")
        (child,) = details(source, child.id)
        assert child.parent == run.name and [found.step[:4] for found in child.steps] == ["step"]
        (failed,) = details(source, "a failed night")
        assert [(found.step[:4], found.outcome) for found in failed.steps] == [("step", "completed")]
        with pytest.raises(QuickstudyError, match="Near: a failed night"):
            details(source, "a failed nigth")
        with pytest.raises(QuickstudyError, match="no run is called so"):
            details(source, str(uuid4()))
    assert done.page == f"{(PREFECT_API_URL.value() or '').removesuffix('/api')}/runs/flow-run/{done.id}"


def test_looks_that_found_something_or_failed_are_shown(both: Sources) -> None:
    def look(found: bool, fails: bool) -> None:
        if found:
            create_table_artifact(STEPS[:1], key=SUMMARY, description="tickets: 12 new examples")
        if fails:
            raise ValueError("the disk is full")

    looks = runs_of("watch", look)
    before = {run.id for run in same(both, last=300).runs}
    for _ in range(3):
        looks(False, False)
    looks(True, False)
    quietly(looks, False, True)
    shown = [run for run in same(both, last=300).runs if run.id not in before]
    assert [(run.state, run.what) for run in shown] == [
        ("failed", "ValueError: the disk is full"),
        ("completed", "tickets: 12 new examples"),
    ]
    assert [run.id for run in same(both, last=300, flow="watch", state="failed").runs][:1] == [shown[0].id]
    assert [run.id for run in same(both, last=300, flow="watch", state="completed").runs][:1] == [shown[1].id]
    assert len(same(both, last=300, flow="watch", everything=True).runs) >= 5


def test_a_summary_that_is_written_again_counts(both: Sources) -> None:
    def again() -> None:
        create_table_artifact(STEPS[:1], key=SUMMARY, description="first")
        create_table_artifact(STEPS, key=SUMMARY, description="second")

    runs_of("retrain", again)()
    run = same(both).runs[0]
    assert (run.what, len(run.steps)) == ("second", 2)


def test_pools_and_what_is_planned(both: Sources) -> None:
    with get_client(sync_client=True) as client:
        pools = [f"{uuid4().hex[:8]}-{name}" for name in ("cpu", "gpu")]
        for pool in pools:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
        url = f"/work_pools/{pools[0]}/workers/heartbeat"
        client._client.post(url, json={"name": "one", "heartbeat_interval_seconds": 30}).raise_for_status()
        flow_id, names = client.create_flow(runs_of("retrain", lambda: None)), (uuid4().hex[:8], uuid4().hex[:8])
        nightly = {"schedule": IntervalSchedule(interval=timedelta(days=1)), "active": True}
        made = [
            client.create_deployment(flow_id, names[0], work_pool_name=pools[0], schedules=[nightly]),
            client.create_deployment(flow_id, names[1], work_pool_name=pools[1]),
        ]
        waiting = client.create_flow_run_from_deployment(made[1])
        at_work = client.create_flow_run_from_deployment(made[0])
        client.set_flow_run_state(at_work.id, Running(), force=True)
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=9)
        soon = datetime.now(UTC) + timedelta(seconds=20)
        queued = client.create_flow_run_from_deployment(made[0])
        in_line: State[Any] = Scheduled(name="AwaitingConcurrencySlot", scheduled_time=soon)
        client.set_flow_run_state(queued.id, in_line, force=True)
        for hours in (1, 0):
            client.create_flow_run_from_deployment(made[0], state=Scheduled(scheduled_time=at + timedelta(hours=hours)))
    seen = same(both)
    mine = {pool.name: (pool.running, pool.waiting, pool.online) for pool in seen.pools if pool.name in pools}
    assert mine == {pools[0]: (1, 1, 1), pools[1]: (0, 1, 0)}
    next_one = seen.planned[f"retrain/{names[0]}"]
    assert f"retrain/{names[1]}" not in seen.planned and next_one is not None and next_one > soon
    first = next(run for run in seen.runs if run.id == str(waiting.id))
    assert (first.state, first.deployment, first.pool) == ("waiting", names[1], pools[1])
    # A worker that has not been heard of for three heartbeats is gone.
    later = datetime.now(UTC) + timedelta(seconds=91)
    assert {pool.online for source in both() for pool in overview(source, now=later).pools if pool.name in pools} == {0}


def test_the_verb_says_the_same_by_both(project: Path) -> None:
    def fails() -> None:
        create_table_artifact(STEPS, key=SUMMARY, description="The data was new")
        raise ValueError("a [red] bracket")

    quietly(runs_of("retrain", fails).with_options(flow_run_name="a bad night"))

    def answer(by: str, *arguments: str) -> tuple[int, str, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment |= {**variables(by), "COLUMNS": "160"}
        command = [str(Path(sys.executable).parent / "quickstudy"), "runs", *arguments]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    outs = {by: answer(by, "--last", "1", "--json") for by in ("server", "file")}
    (run,), (by_file,) = (json.loads(out)["runs"] for _, out, _ in outs.values())
    assert by_file == {**run, "page": None}
    assert (run["name"], run["what"], run["error"]) == (
        "a bad night",
        "The data was new",
        "ValueError: a [red] bracket",
    )
    for by in ("server", "file"):
        code, out, _ = answer(by, "--state", "failed")
        row = next(row for row in out.splitlines() if "a bad night" in row)
        assert code == 0 and row.split()[5:9] == ["retrain", "by", "hand", "failed"] and "The data was new" in row
        code, out, _ = answer(by, "a bad night")
        assert code == 0 and "ValueError: a [red] bracket" in out and "version 1a2b" in out
        assert ("/runs/flow-run/" in out) == (by == "server")
        code, out, err = answer(by, "a bad nihgt")
        assert (code, out) == (2, "")
        assert err.startswith("quickstudy: a bad nihgt: no run is called so. Near: a bad night")
        assert err.count("\n") == 1
