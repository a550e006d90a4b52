"""What a Prefect server is told by flows/deploy.py."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, InfrastructurePending, Pending, Running, Scheduled, Submitting

from flows import deploy, recovery
from quickstudy.config import load_settings
from quickstudy.errors import QuickstudyError


def test_schedules_come_from_the_settings(with_flows: Path) -> None:
    def wanted(schedule: str | None, second: str = "wait") -> dict[str, object]:
        values = yaml.safe_load((with_flows / "params.yaml").read_text())
        values["runs"] |= {"schedule": schedule, "timezone": "Europe/Berlin", "second": second}
        (with_flows / "params.yaml").write_text(yaml.safe_dump(values))
        said = deploy._with_schedules(with_flows / "prefect.yaml", load_settings(with_flows / "params.yaml"))
        return next(found for found in said["deployments"] if found["name"] == "retrain")

    retrain = wanted("30 4 * * 1")
    assert retrain["schedules"] == [{"cron": "30 4 * * 1", "timezone": "Europe/Berlin"}]
    assert wanted(None, "skip")["schedules"] == []
    assert retrain["concurrency_limit"]["collision_strategy"] == "ENQUEUE"  # type: ignore[index]
    assert wanted(None, "skip")["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"  # type: ignore[index]
    with pytest.raises(QuickstudyError, match=r"runs.schedule = 'every night' is not what cron understands"):
        wanted("every night")
    (with_flows / "prefect.yaml").write_text("deployments: [retrain]\n")
    with pytest.raises(QuickstudyError, match=r"prefect.yaml: cannot be read"):
        wanted(None)


@pytest.mark.usefixtures("prefect")
def test_automations_that_are_there_already_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    deploy._mark_the_dead()
    with get_client(sync_client=True) as client:
        before = client.read_automations()
        deploy._mark_the_dead()
        assert [found.id for found in client.read_automations()] == [found.id for found in before] and len(before) == 2
        changes: list[object] = []
        monkeypatch.setattr(SyncPrefectClient, "update_automation", lambda _, *change: changes.append(change))
        deploy._mark_the_dead()
        assert changes == []
        monkeypatch.setattr(deploy, "SILENT", 2 * deploy.SILENT)
        deploy._mark_the_dead()
        assert len(changes) == 1


@pytest.mark.usefixtures("prefect")
def test_the_places_that_the_dead_hold_are_free_again() -> None:
    with get_client(sync_client=True) as client:
        runs = []
        for name in ("watch", "retrain"):
            made = client.create_deployment(client.create_flow_from_name(name), name)
            states: list[State[Any]] = [Running(), Pending(), Scheduled(), Completed()]
            for state in states:
                run = client.create_flow_run_from_deployment(made).id
                client.set_flow_run_state(run, state, force=True)
                runs.append(run)
        recovery.free_places(client)
        now = [found.name for run in runs if (found := client.read_flow_run(run).state)]
        assert now == ["Crashed", "Crashed", "Scheduled", "Completed", "Running", "Crashed", "Scheduled", "Completed"]


@pytest.mark.usefixtures("prefect")
def test_what_a_worker_took_and_never_started_is_dead_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [Pending(), Submitting(), InfrastructurePending(), Scheduled(), Running()]
    with get_client(sync_client=True) as client:
        made = client.create_deployment(client.create_flow_from_name("meta-train"), "meta-train")
        runs = [client.create_flow_run_from_deployment(made).id for _ in states]
        for run, state in zip(runs, states, strict=True):
            client.set_flow_run_state(run, state, force=True)
        assert recovery.bury(client, tmp_path) == []  # they may begin yet
        monkeypatch.setattr(recovery, "NEVER_STARTED", timedelta(0))
        assert len(recovery.bury(client, tmp_path)) == 2
        now = [found.name for run in runs if (found := client.read_flow_run(run).state)]
        assert now == ["Crashed", "Crashed", "InfrastructurePending", "Scheduled", "Running"]
        for run in runs:  # other tests ask this server which run was the last
            client.delete_flow_run(run)


@pytest.mark.usefixtures("prefect")
def test_automations_follow_every_state_in_which_a_worker_has_a_run() -> None:
    deploy._mark_the_dead()
    with get_client(sync_client=True) as client:
        (found,) = [one for one in client.read_automations() if "never started" in one.name]
    assert found.trigger.after == {f"prefect.flow-run.{state.name}" for state in (Pending(), Submitting())}


@pytest.mark.usefixtures("prefect")
def test_what_a_schedule_missed_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with get_client(sync_client=True) as client:
        made = client.create_deployment(client.create_flow_from_name("nightly"), "nightly")
        hours = (-3, -2, -1, -1, 5)
        runs = []
        for hour in hours:
            due: State[Any] = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(hours=hour))
            runs.append(client.create_flow_run_from_deployment(made, state=due).id)
        by_hand, real = runs[2], recovery.waiting

        def waiting(*asked: Any) -> list[FlowRun]:  # only Prefect's scheduler can say this of a run
            return [run.model_copy(update={"auto_scheduled": run.id != by_hand}) for run in real(*asked)]

        monkeypatch.setattr(recovery, "waiting", waiting)
        assert recovery.drop_missed(client, made, runs[1]) == 2
        assert {run.id for run in client.read_flow_runs()} & set(runs) == {runs[1], runs[2], runs[4]}
