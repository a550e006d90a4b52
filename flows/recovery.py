"""Runs that died without a word: kill -9, a machine without power. They are told by what they leave behind.

    python -m flows.recovery       # mark those of this clone and name them, as `quickstudy worker` does

A run of a deployment holds the lock of its workspace (quickstudy.runs.workspaces) for as long as its process lives. So
a workspace that nobody holds, and whose run Prefect believes to be at work, is that of a dead one. Runs of machines
that are gone altogether have no heartbeat; an automation marks those (flows/deploy.py).
"""

import contextlib
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed

from flows import process
from quickstudy import registry
from quickstudy.runs import workspaces
from quickstudy.system.environment import find_project

RETRAIN = "retrain/retrain"
WATCH = "watch/watch"
NEVER_STARTED = timedelta(minutes=3)
"""After which a run that a worker took and that has no process counts as dead."""

TAKEN = ("Pending", "Submitting")
"""States of a run that a worker has taken; one that waits for a machine elsewhere has another."""

NEVER_STARTED_WHY = "the worker that took it never started it"


def bury(client: SyncPrefectClient, clone: Path) -> list[str]:
    """Mark the dead runs of this clone as crashed, or as cancelled where somebody had asked for that; and as killed in
    MLflow what they have left there.

    Returns:
        their names, also of those that Prefect has marked by itself, when a worker saw them die.
    """
    buried = []
    if left := workspaces.abandoned(clone):
        registry.end_abandoned(clone)
    for run_id in left:
        with contextlib.suppress(ObjectNotFound):
            run = client.read_flow_run(UUID(run_id))
            kind = run.state.type if run.state else None
            if kind in (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING):
                _end(client, run, "its process is gone")
                buried.append(run.name)
            elif kind == StateType.CRASHED:
                buried.append(run.name)
        workspaces.forget(clone, run_id)
    pending = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING]))),
    )
    alive = workspaces.at_work(clone)
    for run in pending:
        if run.deployment_id is None or str(run.id) in alive or run.state is None or run.state.name not in TAKEN:
            continue
        if datetime.now(UTC) - run.state.timestamp > NEVER_STARTED:
            _end(client, run, NEVER_STARTED_WHY)
            buried.append(run.name)
    return buried


def drop_missed(client: SyncPrefectClient, deployment: UUID, this: UUID) -> int:
    """Delete the runs that a schedule has made and that are due, when run ``this`` begins: it does what they would do.
    After a night without a worker there is one for each time that the schedule had come.

    Returns:
        how many there were.
    """
    missed = [
        run
        for run in waiting(client, deployment)
        if run.auto_scheduled and run.id != this and run.state is not None and run.state.type == StateType.SCHEDULED
    ]
    for run in missed:
        with contextlib.suppress(ObjectNotFound):
            client.delete_flow_run(run.id)
    return len(missed)


def free_places(client: SyncPrefectClient) -> None:
    """Mark runs of watch, and of retrain that have not begun, as crashed: for `quickstudy up`, before its workers run.

    Each of the two takes one run at a time. A dead one keeps that place for ever where Prefect's server, which would
    have taken it back, died at the same time: then nobody looks for new data any more.
    """
    for name, states in ((WATCH, [StateType.PENDING, StateType.RUNNING]), (RETRAIN, [StateType.PENDING])):
        found = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[client.read_deployment_by_name(name).id])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        )
        for run in found:
            _end(client, run, "quickstudy up has ended")


def _end(client: SyncPrefectClient, run: FlowRun, why: str) -> None:
    assert run.state is not None
    if run.state.type == StateType.CANCELLING:
        client.set_flow_run_state(run.id, Cancelled(message=why), force=True)
    else:
        client.set_flow_run_state(run.id, Crashed(message=why), force=True)


def restart(client: SyncPrefectClient, times: int) -> Any:
    """Start the latest retraining once more where it crashed, and not after so many crashes in a row.

    Returns:
        the new run.
    """
    try:
        deployment = client.read_deployment_by_name(RETRAIN)
    except ObjectNotFound:
        return None
    latest = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(any_=[kind for kind in StateType if kind != StateType.SCHEDULED])
            )
        ),
        sort=FlowRunSort.START_TIME_DESC,
        limit=times + 1,
    )
    crashed = 0
    for run in latest:
        if run.state is None or run.state.type != StateType.CRASHED:
            break
        crashed += 1
    if not crashed or crashed > times or waiting(client, deployment.id):
        return None
    first = latest[0]
    tags = [tag for tag in first.tags if not tag.startswith("trigger:")]
    return run_deployment(
        RETRAIN, parameters=first.parameters, tags=[*tags, "trigger:restart"], timeout=0, as_subflow=False
    )


def waiting(client: SyncPrefectClient, deployment: UUID) -> list[FlowRun]:
    """Return the runs of a deployment that are at work, or are due and wait for their turn."""
    found = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(
                type=FlowRunFilterStateType(
                    any_=[StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
                )
            )
        ),
    )
    now = datetime.now(UTC)
    return [
        run
        for run in found
        if run.state is not None
        and (run.state.type != StateType.SCHEDULED or (run.expected_start_time or now) <= now + timedelta(seconds=5))
    ]


def main() -> int:
    def run() -> None:
        with get_client(sync_client=True) as client:
            for name in bury(client, find_project()):
                print(f"run {name} has crashed", flush=True)

    return process.main(run)


if __name__ == "__main__":
    sys.exit(main())
