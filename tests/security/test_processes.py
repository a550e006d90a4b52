"""What a process that was killed leaves behind: a run that MLflow takes for one at work, a lock that is let go late."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.registry import store
from quickstudy.system import processes


def wait(what: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def test_a_process_is_gone_when_its_number_means_another_or_none() -> None:
    assert not processes.is_gone(processes.identity())
    child = subprocess.Popen(["sleep", "60"])
    name = processes.identity(child.pid)
    assert not processes.is_gone(name)
    machine, boot, numbering, number, started = name.split()
    assert processes.is_gone(" ".join((machine, boot, numbering, number, f"{started}1")))  # a number that is used again
    child.kill()
    wait(lambda: processes.is_gone(name), 10)  # also while nobody has asked how it ended
    child.wait()
    assert processes.is_gone(name)
    elsewhere = " ".join(("another-machine", "another-start", numbering, number, started))
    assert not processes.is_gone(elsewhere) and not processes.is_gone("") and not processes.is_gone("who knows")
    assert not processes.is_gone(" ".join((machine, boot, "pid:[1]", number, started)))  # in another container


TRAINING = """
import sys, time
from pathlib import Path
from quickstudy import registry

root, live = Path(sys.argv[1]), Path(sys.argv[1]) / "live.jsonl"
with registry.following(root, live, "classify"):
    live.write_text('{"step": 1, "loss": 0.5}\\n')
    print("follows", flush=True)
    time.sleep(600)
"""


def statuses(root: Path) -> dict[str, str]:
    client = store.client(root)
    experiment = client.get_experiment_by_name(store.NAME).experiment_id
    return {run.info.run_id: run.info.status for run in client.search_runs([experiment])}


def begin(root: Path) -> "subprocess.Popen[str]":
    known = set(statuses(root))
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(root)], cwd=root, stdout=subprocess.PIPE, text=True, env={**os.environ}
    )
    wait(lambda: set(statuses(root)) - known, 120)
    return training


def test_a_killed_training_ends_in_mlflow_too(project: Path) -> None:
    with store.locked(project):
        store.client(project)
    killed, living = begin(project), begin(project)
    try:
        assert set(statuses(project).values()) == {"RUNNING"}
        assert registry.end_abandoned(project) == []  # both are at work
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        (ended,) = registry.end_abandoned(project)
        assert sorted(statuses(project).values()) == ["KILLED", "RUNNING"] and statuses(project)[ended] == "KILLED"
    finally:
        for process in (killed, living):
            process.kill()
            process.wait()
    third = begin(project)  # the next training says so of the ones before
    third.kill()
    third.wait()
    assert sorted(statuses(project).values()) == ["KILLED", "KILLED", "RUNNING"]


def test_a_registration_ends_what_a_killed_process_left(built: Path, served: None) -> None:
    with store.locked(built):
        client = store.client(built)
    child = subprocess.Popen(["sleep", "60"])
    experiment = client.get_experiment_by_name(store.NAME).experiment_id
    left = client.create_run(experiment, tags={"process": processes.identity(child.pid)}).info.run_id
    other = client.create_run(experiment, tags={}).info.run_id  # nobody knows whose
    child.kill()
    child.wait()
    registration = registry.register(built)
    assert statuses(built) == {left: "KILLED", other: "RUNNING", registration.run_id: "FINISHED"}


HOLDER = """
import sys, time
from pathlib import Path
from flows import process

with process.only_run(Path(sys.argv[1])):
    print("holds", flush=True)
    try:
        time.sleep(600)
    except KeyboardInterrupt:
        time.sleep(2)  # it closes its files
"""

STARTER = """
import sys
from pathlib import Path
from quickstudy.system import processes

flow = processes.start([sys.executable, "-c", sys.argv[2], sys.argv[1]], Path(sys.argv[3]), interrupt="command")
flow.wait()
"""


def test_a_run_after_one_that_was_killed_waits_for_its_end_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import process

    repository = Path(__file__).parents[2]
    told: list[str] = []
    monkeypatch.setattr(process, "tell", lambda event, **what: told.append(json.dumps(what)))
    command = [sys.executable, "-c", STARTER, str(tmp_path), HOLDER, str(repository)]
    starter = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None and starter.stdout.readline() == "holds\n"
    refused = time.monotonic()
    with (
        pytest.raises(QuickstudyError, match=r"another run is at work here \(process \d+\)"),
        process.only_run(tmp_path),
    ):
        pass
    refused = time.monotonic() - refused
    starter.kill()
    starter.wait()
    waited = time.monotonic()
    with process.only_run(tmp_path):
        waited = time.monotonic() - waited
    assert len(told) == 1 and "was killed" in told[0]
    assert refused < processes.GRACE < process.ENDS_WITHIN and waited < process.ENDS_WITHIN
    with process.only_run(tmp_path):  # of one that has ended in order nothing is left
        assert len(told) == 1
