"""What a team leaves running: new data, another machine that trains, people who press buttons, processes that die."""

import os
import re
import signal
import time
import urllib.parse
from pathlib import Path

from tests.toy.project import run_git
from tests.toy.stack import Stack, is_alive


def new_data(stack: Stack, name: str, text: str) -> None:
    (stack.home / f"data/{name}").write_text(text)


def next_retraining(stack: Stack, seen: set[str], seconds: float = 90) -> str:
    """The run of retrain that is not among those seen, once it has begun."""

    def found() -> str | None:
        return next((run["id"] for run in stack.runs("retrain") if run["id"] not in seen), None)

    return str(stack.wait(found, seconds))


def all_runs(stack: Stack) -> set[str]:
    return {run["id"] for run in stack.runs("retrain")}


def test_new_data_is_trained_on_the_other_machine(stack: Stack) -> None:
    run = stack.runs("retrain")[-1]["id"]
    ran = "ran tasks@classify, meta_train@classify, evaluate@classify, card; new version 1 @champion"
    assert re.search(ran, stack.summary(run))
    child = stack.runs("meta-train")[0]
    log = stack.log(run)
    assert "gpu: meta-train: 3 of 3" in log and child["name"] in log  # the other machine's log in this one's
    assert (stack.gpu / ".cache/workspaces/meta_train/tree/build/model/classify/model.safetensors").is_file()
    assert not (stack.gpu / ".cache/workspaces/meta_train/tree/build/evaluate").exists()  # it got what it needs
    trained = (stack.gpu / ".cache/workspaces/meta_train/tree/build/model/classify/model.safetensors").read_bytes()
    tree = stack.home / ".cache/workspaces/retrain/tree"
    assert (tree / "build/model/classify/model.safetensors").read_bytes() == trained
    # Nobody's working copy was touched, but for data.dvc, which names the version of data/.
    assert not (stack.home / "build").exists() and not (stack.gpu / "build").exists()
    assert set(run_git(stack.home, "status", "--porcelain").split()) <= {"M", "??", "data.dvc"}

    start = time.monotonic()
    new_data(stack, "three.txt", "three\n")
    seen = all_runs(stack)
    run = next_retraining(stack, seen, 60)
    assert time.monotonic() - start < 60  # the promise of the issue, and the timeout above
    assert stack.ended(run)[0] == "Completed", stack.log(run)
    assert "new data" in stack.summary(run) and "version 2 @challenger" in stack.summary(run)
    assert "trigger:data" in stack.get(f"/flow_runs/{run}")["tags"]


def test_a_run_with_nothing_to_do_trains_nothing(stack: Stack) -> None:
    trained = len(stack.runs("meta-train"))
    run = stack.run("retrain/retrain")
    assert stack.ended(run)[0] == "Completed", stack.log(run)
    assert stack.summary(run) == "nothing was stale"
    assert len(stack.runs("meta-train")) == trained


def test_a_second_retraining_waits_and_cancelling_stops_both_machines(stack: Stack) -> None:
    seen = all_runs(stack)
    new_data(stack, "slow", "30")
    run = next_retraining(stack, seen)
    trainer = stack.wait(lambda: stack.trainer(stack.gpu), 90)
    second = stack.run("retrain/retrain")
    stack.wait(lambda: stack.state(second)[0] == "AwaitingConcurrencySlot", 30)
    child = stack.runs("meta-train")[0]["id"]
    start = time.monotonic()
    stack.cancel(run)
    stack.wait(lambda: not is_alive(trainer), 30)
    took = time.monotonic() - start
    assert stack.ended(run, 60)[0] == "Cancelled"
    assert stack.ended(child, 60)[0] == "Cancelled"
    assert took < 10, took
    stack.cancel(second)
    assert stack.ended(second, 60)[0] == "Cancelled"
    new_data(stack, "slow", "1")
    seen = all_runs(stack)
    run = next_retraining(stack, seen)
    assert stack.ended(run)[0] == "Completed", stack.log(run)


def test_a_machine_that_dies_costs_what_came_after_its_checkpoint(stack: Stack) -> None:
    seen = all_runs(stack)
    new_data(stack, "slow", "4")
    run = next_retraining(stack, seen)
    trainer = stack.wait(lambda: stack.trainer(stack.gpu), 90)
    checkpoints = stack.gpu / ".cache/checkpoints"
    begun = set(checkpoints.iterdir())
    stack.wait(lambda: set(checkpoints.iterdir()) - begun, 60)  # the first step is done
    # The GPU machine loses its power: everything on it, at once.
    worker = stack.processes.pop("gpu")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    stack.wait(lambda: not is_alive(trainer), 30)
    stack.start_gpu()
    assert stack.ended(run, 240)[0] == "Completed", stack.log(run)
    started = (stack.gpu / ".cache/workspaces/meta_train/tree/started").read_text()
    assert int(started.split()[1]) >= 1  # it went on from its checkpoint
    child = stack.runs("meta-train")
    assert [c["state"]["name"] for c in child[:2]] == ["Completed", "Crashed"]


def test_the_flow_is_killed_and_started_again(stack: Stack) -> None:
    new_data(stack, "slow", "3")
    run = next_retraining(stack, all_runs(stack))
    stack.wait(lambda: stack.trainer(stack.gpu), 90)
    seen = all_runs(stack)
    os.kill(flow_process(stack.home, run), signal.SIGKILL)
    assert stack.ended(run, 120)[0] == "Crashed"
    again = next_retraining(stack, seen, 120)
    assert "trigger:restart" in stack.get(f"/flow_runs/{again}")["tags"]
    assert stack.ended(again)[0] == "Completed", stack.log(again)


def flow_process(clone: Path, run: str) -> int:
    """The process of a flow run, by the variable that Prefect gives it."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            words = path.read_bytes().split(b"\0")
            command = (path.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if f"PREFECT__FLOW_RUN_ID={run}".encode() in words and b"prefect.engine" in command:
            return int(path.parent.name)
    raise AssertionError(f"no process of run {run}")


def test_a_person_decides_on_the_page_of_a_run_that_holds_no_process(stack: Stack) -> None:
    champion = stack.quickstudy("history", "--on", "2999-01-01")[1]
    run = stack.run("promote/promote", version="challenger", ask=True)
    stack.wait(lambda: stack.state(run)[0] == "Suspended", 90)
    details = stack.get(f"/flow_runs/{run}")["state"]["state_details"]
    assert details["pause_timeout"] and details["run_input_keyset"]
    answer = {"promote": True, "reason": "it hears children", "name": "Ada"}
    assert stack.post(f"/flow_runs/{run}/resume", {"run_input": answer})["status"] == "ACCEPT"
    assert stack.ended(run)[0] == "Completed", stack.log(run)
    assert "Ada says yes: it hears children" in stack.summary(run)
    now = stack.quickstudy("history", "--on", "2999-01-01")[1]
    assert now != champion and "it hears children (Ada)" in now


def test_a_schedule_makes_runs(stack: Stack) -> None:
    def scheduled() -> list[str]:
        body = {"flows": {"name": {"any_": ["retrain"]}}, "flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}}}
        return [run["expected_start_time"] for run in stack.post("/flow_runs/filter", body)]

    assert scheduled() == []
    stack.settings(runs={"schedule": "17 3 * * *"})
    stack.deploy()
    times = stack.wait(scheduled, 90)  # with SQLAlchemy 2.1 Prefect's scheduler makes none, and says nothing
    assert all("T03:17:00" in time for time in times)
    stack.settings(runs={"schedule": None})
    stack.deploy()
    stack.wait(lambda: not scheduled(), 90)


def test_a_commit_that_the_other_machine_cannot_have(stack: Stack) -> None:
    text = (stack.home / "params.yaml").read_text()
    (stack.home / "params.yaml").write_text(re.sub(r"(?m)^seed: \d+", "seed: 7", text))
    stack.commit("not pushed", push=False)
    run = stack.run("retrain/retrain")
    name, message = stack.ended(run)
    assert name in ("Failed", "Crashed") and "is not in this clone" in message and "git push" in message
    run_git(stack.home, "push", "--quiet", "origin", "main")


def test_a_pool_without_a_worker(stack: Stack) -> None:
    stack.stop("gpu")
    stack.wait(lambda: not stack.online("gpu"), 120)
    seen = all_runs(stack)
    new_data(stack, "slow", "0.5")
    run = next_retraining(stack, seen)
    # It was there just now.
    stack.wait(lambda: "no worker of the pool gpu is online; waits until" in stack.log(run), 60)
    stack.start_gpu()
    assert stack.ended(run)[0] == "Completed", stack.log(run)

    stack.stop("gpu")
    stack.wait(lambda: not stack.online("gpu"), 120)
    for worker in stack.post("/work_pools/gpu/workers/filter", {}):  # one that was never there
        stack.send("DELETE", f"/work_pools/gpu/workers/{urllib.parse.quote(worker['name'])}")
    seen = all_runs(stack)
    new_data(stack, "slow", "0")
    run = next_retraining(stack, seen)
    name, message = stack.ended(run, 60)
    assert name == "Failed" and "no worker of the pool gpu is online" in message and "quickstudy worker gpu" in message
    code, _, err = stack.quickstudy("worker", "tpu")
    assert code == 2 and "there is no pool tpu" in err
    stack.start_gpu()


def test_a_worker_with_other_packages(stack: Stack) -> None:
    lock = (stack.home / "requirements.lock").read_text()
    (stack.home / "requirements.lock").write_text(re.sub(r"(?m)^numpy==.*", "numpy==1.0.0", lock))
    stack.commit("another numpy")
    run = stack.run("retrain/retrain")
    name, message = stack.ended(run)
    assert name in ("Failed", "Crashed") and "numpy" in message and "not 1.0.0" in message
    (stack.home / "requirements.lock").write_text(lock)
    stack.commit("the right numpy")
    run = stack.run("retrain/retrain")
    assert stack.ended(run)[0] == "Completed", stack.log(run)
