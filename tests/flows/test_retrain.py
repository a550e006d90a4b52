"""The flow retrain on the stages of tests/toy."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterStartTime,
)
from prefect.client.schemas.sorting import FlowRunSort, TaskRunSort
from prefect.states import Failed

from flows import data_steps, process, promotion_steps, retrain
from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.versions.command import Busy, StageFailed

pytestmark = pytest.mark.usefixtures("prefect", "no_starter", "served")

STEPS = ["data", "tasks@classify", "meta_train@classify", "evaluate@classify", "card", "register"]


def last_run() -> tuple[Any, list[Any], list[Any]]:
    """The flow run that began last, its task runs in order and its artifacts."""
    with get_client(sync_client=True) as client:
        begun = FlowRunFilter(start_time=FlowRunFilterStartTime(is_null_=False))  # other tests leave runs that wait
        run = client.read_flow_runs(flow_run_filter=begun, sort=FlowRunSort.START_TIME_DESC, limit=1)[0]
        mine = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        tasks = client.read_task_runs(flow_run_filter=mine, sort=TaskRunSort.END_TIME_DESC)
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
        return run, tasks[::-1], artifacts


@flow
def version_data(root: Path) -> str:
    return data_steps.version_data(root, return_state=True).result()


def test_everything_runs_once_and_is_then_up_to_date(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUICKSTUDY_EVENTS", "1")
    first = retrain.retrain(str(project))
    assert (first.version, first.aliases, first.new) == (1, ("champion",), True)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [event["step"] for event in events if event["event"] == "start"] == STEPS
    assert [event["outcome"] for event in events if event["event"] == "done"] == ["ran"] * 6
    told = {"event": "progress", "what": "meta-train", "done": 2, "total": 3, "step": "meta_train@classify"}
    assert told in events
    run, tasks, artifacts = last_run()
    assert run.state.is_completed()
    assert [task.name for task in tasks] == STEPS
    assert [task.state.name for task in tasks] == ["Completed"] * 6
    shown = {artifact.key: artifact for artifact in artifacts}
    keys = {"tasks-classify", "meta-train-classify", "evaluate-classify"}
    assert set(shown) == {"data", *keys, "card", "register", "run"}
    ran = "ran tasks@classify, meta_train@classify, evaluate@classify, card"
    assert shown["run"].description.endswith(f"{ran}; new version 1 @champion")
    assert "words@domain" in shown["evaluate-classify"].data and shown["card"].data == "# Model card\n"

    second = retrain.retrain(str(project))
    assert (second.version, second.new, second.logged) == (1, False, False)
    _, tasks, _ = last_run()
    assert [(task.name, task.state.name) for task in tasks] == [(step, "Cached") for step in STEPS]


def test_a_mistake_of_the_users_ends_the_flow_with_its_line(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUICKSTUDY_EVENTS", "1")
    monkeypatch.chdir(project)
    (project / "data/bad").touch()
    assert retrain.main([]) == 2
    captured = capsys.readouterr()
    mistake = {"event": "error", "text": "data/bad: one class only. Add a second one"}
    assert mistake in [json.loads(line) for line in captured.out.splitlines()]
    assert captured.err.splitlines()[-1] == "quickstudy: data/bad: one class only. Add a second one"
    run, tasks, _ = last_run()
    assert run.state.is_failed()
    assert [(task.name, task.state.name, task.run_count) for task in tasks] == [
        ("data", "Completed", 1),
        ("tasks@classify", "Failed", 1),
    ]
    assert not (project / "mlruns").exists()


def test_a_stage_that_was_killed_gets_another_try_and_a_bug_does_not(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = yaml.safe_load((project / "dvc.yaml").read_text())
    command = content["stages"]["tasks"]["do"]["cmd"]
    content["stages"]["tasks"]["do"]["cmd"] = f"if [ ! -e tried ]; then touch tried; kill -9 $$; fi; {command}"
    (project / "dvc.yaml").write_text(yaml.safe_dump(content))
    retrain.retrain(str(project))
    _, tasks, _ = last_run()
    assert {task.name: task.run_count for task in tasks} == {
        step: 2 if step == "tasks@classify" else 1 for step in STEPS
    }

    (project / "data/bug").touch()
    with pytest.raises(StageFailed, match="AssertionError"):
        retrain.retrain(str(project))
    _, tasks, _ = last_run()
    assert (tasks[-1].name, tasks[-1].run_count) == ("tasks@classify", 1)


def test_two_flows_do_not_share_a_project(project: Path) -> None:
    with (
        process.only_run(project),
        pytest.raises(QuickstudyError, match=r"another run is at work here \(process \d+\)"),
    ):
        retrain.retrain(str(project))
    assert not (project / "data.dvc").exists()


def test_missing_data_is_built_once_and_then_comes_from_the_cache(
    project: Path, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUICKSTUDY_EVENTS", "1")
    progress = '{"event": "progress", "what": "build words", "done": 1, "total": 1}'
    script = f"mkdir -p data; echo built >> times; echo '{progress}'; echo and more; cp times data/starter"
    monkeypatch.setattr(data_steps, "STARTER", ("sh", "-c", script))

    def note() -> str:
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return next(event["note"] for event in events if event["event"] == "done")

    first = version_data(project)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event for event in events if event["event"] not in ("start", "done")] == [
        json.loads(progress) | {"step": "data"}  # what else it prints does not go on
    ]
    assert (project / "times").read_text() == "built\n"  # what is missing, beside the data that is there
    shutil.rmtree(project / "data")
    assert version_data(project) == first
    assert (project / "data/starter").exists() and (project / "times").read_text() == "built\n"
    assert "not committed yet" in note()

    # Another clone of the same commit, on a platform that builds other bytes.
    git(project, "add", "data.dvc")
    git(project, "commit", "--quiet", "--message=data")
    version_data(project)
    assert "the committed one" in note()
    for name in ("data", ".dvc/cache", ".cache"):
        shutil.rmtree(project / name)
    other = version_data(project)
    assert other != first and "on this platform" in note()


def test_data_follows_data_dvc_when_git_changes_it(project: Path) -> None:
    old = version_data(project)
    text = (project / "data.dvc").read_text()
    (project / "data/three.txt").write_text("three\n")
    new = version_data(project)
    (project / "data.dvc").write_text(text)  # as `git checkout` of an older commit does
    assert version_data(project) == old
    assert not (project / "data/three.txt").exists()

    # A change of the data wins over data.dvc: nothing that is in no version is lost.
    (project / "data/four.txt").write_text("four\n")
    (project / "data.dvc").write_text(text.replace(old, new))
    assert version_data(project) not in (old, new)
    assert (project / "data/four.txt").exists()


def test_a_new_version_of_the_data_names_what_was_imported() -> None:
    old, new = "a" * 32, "b" * 32
    for built in (True, False):
        note = data_steps._about(new, old, old, built, ["tickets"])
        assert note == "version bbbbbbbb is new (beside the starter data: tickets); the committed one is aaaaaaaa"


def test_a_new_model_is_judged_once_and_promoted_where_the_gate_says_so(
    project: Path,
    toy_gate: None,
    git: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QUICKSTUDY_EVENTS", "1")

    def train(seed: int, answer: str, promotion: str = "automatic") -> list[dict[str, Any]]:
        params = yaml.safe_load((project / "params.yaml").read_text())
        params["seed"], params["gate"]["promotion"] = seed, promotion
        (project / "params.yaml").write_text(yaml.safe_dump(params))
        (project / "answer").write_text(answer)
        capsys.readouterr()
        retrain.retrain(str(project))
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
        return [event for event in events if event["event"] == "done"]

    assert [event["step"] for event in train(0, "PROMOTE")] == STEPS  # nobody to be compared with
    assert [event["step"] for event in train(1, "HOLD")] == [*STEPS, "gate"]
    assert registry.aliases(project) == {"champion": 1, "challenger": 2} and registry.unjudged(project, True) is None
    assert [event["step"] for event in train(1, "PROMOTE")] == STEPS  # it has been judged

    assert [event["step"] for event in train(2, "PROMOTE", "manual")] == [*STEPS, "gate"]
    assert registry.aliases(project) == {"champion": 1, "challenger": 3}
    # As it is after a kill between the gate's word and the move: who lets the gate decide is not left behind.
    assert registry.unjudged(project, False) is None
    assert registry.unjudged(project, True) == registry.Plan("promote", 3, 1)
    done = train(3, "PROMOTE")
    assert [event["step"] for event in done] == [*STEPS, "gate", "move"]
    assert done[-2]["verdict"]["answer"] == "PROMOTE" and registry.aliases(project) == {"champion": 4, "previous": 1}
    entry = list(registry.read_ledger(project).entries.values())[-2]
    assert entry.why == "The toy says promote." and entry.evidence["answer"] == "PROMOTE"

    # Killed between two aliases of one move: it is completed first, and the champion is not its own challenger.
    def dies(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.delete_registered_model_alias", dies)
        with pytest.raises(RuntimeError, match="killed"):
            train(4, "PROMOTE")
    assert registry.aliases(project) == {"champion": 5, "previous": 4, "challenger": 5}
    assert [event["step"] for event in train(4, "PROMOTE")] == STEPS
    assert registry.aliases(project) == {"champion": 5, "previous": 4}


def test_a_comparison_that_is_impossible_does_not_fail_the_run(
    project: Path, toy_gate: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrain.retrain(str(project))
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("\nseed: 0", "\nseed: 1"))
    assert retrain.retrain(str(project)).version == 2  # no file ``answer``
    run, tasks, _ = last_run()
    assert run.state.is_completed() and tasks[-1].name == "gate"
    assert registry.version(project, "2").tags["gate"] == "NOT COMPARED"
    assert registry.aliases(project) == {"champion": 1, "challenger": 2}


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (QuickstudyError("no space left on the disk", where="/gpu"), True),  # of another machine, by its run's message
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x"), True),
        (Busy("another DVC command is at work here"), True),
        (registry.Moving("root@gpu has been moving aliases for 2 s"), True),
        (StageFailed("meta_train", "was killed", killed=True), True),
        (StageFailed("meta_train", "ValueError: 3", killed=False), False),
        (QuickstudyError("train.steps = -1 is not positive"), False),
    ],
)
def test_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    failed: Any = Failed(data=error)
    assert process.a_retry_can_help(promotion_steps.register, None, failed) is again  # type: ignore[arg-type]
