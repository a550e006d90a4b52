"""Training on another machine: a run hands the stage meta_train to the deployment meta-train, on the work pool gpu.

The other machine has a clone, the DVC remote and the servers' addresses. It gets the commit, the data's version and
dvc.lock, which names every input by its hash; what it trains comes back through DVC's run cache.
"""

import hashlib
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect import get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from flows.telling import tell
from quickstudy.errors import QuickstudyError
from quickstudy.runs import workspaces
from quickstudy.versions import command, dvc, git, stale

DEPLOYMENT = "meta-train/meta-train"
LOOK_SECONDS = 2.0
COMES_BACK = timedelta(minutes=5)
"""How long a worker that was online is waited for: its machine may be starting again."""

LIVE = [StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING]


def begin(root: Path, stage: stale.Stage) -> None:
    """Let the other machine begin to train, where it does not yet; `train` joins it. So several kinds train side by
    side where several workers serve."""
    with get_client(sync_client=True) as client:
        deployment = _deployment(client)
        _await_worker(client, deployment.work_pool_name, stage.name)
        _begun(client, deployment, root, stage)


def train(root: Path, stage: stale.Stage) -> FlowRun:
    """Let the other machine train; its log appears in this run's. One that trains the same already is joined.

    Raises:
        QuickstudyError: a mistake that the other run tells, somebody cancelled it, no such deployment or no worker.
        versions.StageFailed: it crashed.
    """
    with get_client(sync_client=True) as client:
        deployment = _deployment(client)
        _await_worker(client, deployment.work_pool_name, stage.name)
        run = _begun(client, deployment, root, stage)
        say = get_run_logger()
        say.info("%s is handed to the pool %s, run %s", stage.name, deployment.work_pool_name, run.name)
        try:
            return _follow(client, run.id, deployment.work_pool_name, stage.name)
        except BaseException:
            if _is_cancelled(client):  # whoever stops this run means both; after a crash the next run joins the other
                client.set_flow_run_state(run.id, Cancelling(message="the run that asked for it was cancelled"))
            raise


def _begun(client: SyncPrefectClient, deployment: Any, root: Path, stage: stale.Stage) -> Any:
    """The other machine's run of a stage: one that is at work, or a new one. It is told by its inputs: the commit, the
    data, and what dvc.lock says of the stages before."""
    lock = (root / "dvc.lock").read_text(encoding="utf-8")
    data, commit = dvc.data_hash(root), git.code_state(root).commit
    assert data and commit
    before = {name: entry for name, entry in stale.locked(root / "dvc.lock").items() if name in stage.after}
    told = json.dumps([commit, data, before, stage.name], sort_keys=True)
    inputs = hashlib.sha256(told.encode()).hexdigest()[:12]
    return _at_work(client, deployment.id, inputs) or run_deployment(
        DEPLOYMENT,
        parameters={"lock": lock, "data": data, "stage": stage.name},
        tags=[f"inputs:{inputs}", f"{workspaces.AT}{commit}"],
        timeout=0,
    )


def _deployment(client: SyncPrefectClient) -> Any:
    try:
        return client.read_deployment_by_name(DEPLOYMENT)
    except ObjectNotFound:
        raise QuickstudyError(
            f"there is no deployment {DEPLOYMENT}",
            where=str(client.api_url),
            fix="Deploy it: quickstudy up. Or train here: runs.train_on: here",
        ) from None


def _await_worker(client: SyncPrefectClient, pool: str, step: str) -> None:
    """Return when a worker is online. Wait for that only where one was there a moment ago."""
    told = False
    while True:
        workers = client.read_workers_for_work_pool(pool)
        if any(worker.status == "ONLINE" for worker in workers):
            return
        seen = max((worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time), default=None)
        if seen is None or datetime.now(UTC) - seen > COMES_BACK:
            raise QuickstudyError(
                f"no worker of the pool {pool} is online",
                where="runs.train_on",
                fix=f"Start one on the machine that shall train: quickstudy worker {pool}",
            )
        if not told:
            told, until = True, (seen + COMES_BACK).astimezone()
            line = f"no worker of the pool {pool} is online; waits until {until:%H:%M:%S} (quickstudy worker {pool})"
            get_run_logger().info("%s", line)
            tell("text", step=step, text=line)
        time.sleep(LOOK_SECONDS)


def _at_work(client: SyncPrefectClient, deployment: Any, inputs: str) -> FlowRun | None:
    found = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=[f"inputs:{inputs}"]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=LIVE[:-1])),
        ),
    )
    return found[0] if found else None


def _follow(client: SyncPrefectClient, run_id: Any, pool: str, step: str) -> FlowRun:
    log, shown, waiting = get_run_logger(), 0, ""
    while True:
        run = client.read_flow_run(run_id)
        own = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
        for line in client.read_logs(own, limit=200, offset=shown, sort=LogSort.TIMESTAMP_ASC):
            shown += 1
            log.log(line.level, "%s: %s", pool, line.message)
            tell("text", step=step, text=line.message)
        assert run.state is not None
        if run.state.is_final():
            break
        if run.start_time is None and (why := _queue(client, pool, run)) != waiting:
            waiting = why
            log.info("%s", why)
            tell("text", step=step, text=why)
        time.sleep(LOOK_SECONDS)
    said = run.state.message or ""
    if run.state.is_failed():
        raise QuickstudyError(
            said.removeprefix("Flow run encountered an exception: ").removeprefix("QuickstudyError: ")
        )
    if run.state.is_cancelled():
        raise QuickstudyError("was cancelled", where=f"run {run.name} on {pool}", fix="The next run goes on from there")
    if not run.state.is_completed():
        why = said if run.start_time else f"{said}; .cache/worker-{pool}.log there says why"
        raise command.StageFailed(step, f"run {run.name} on {pool} ended as {run.state.name} ({why})", killed=True)
    return run


def _queue(client: SyncPrefectClient, pool: str, run: FlowRun) -> str:
    """Say what a run that has not begun waits for."""
    online = [worker for worker in client.read_workers_for_work_pool(pool) if worker.status == "ONLINE"]
    if not online:
        return f"waits for a worker: none of the pool {pool} is online now (quickstudy worker {pool})"
    ahead = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING]))
        ),
        work_pool_filter=_pool(pool),
    )
    others = [other for other in ahead if other.id != run.id]
    return f"waits for the pool {pool}: {len(others)} at work there" if others else f"a worker of {pool} takes it"


def _pool(name: str) -> Any:
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    return WorkPoolFilter(name=WorkPoolFilterName(any_=[name]))


def _is_cancelled(client: SyncPrefectClient) -> bool:
    state = client.read_flow_run(runtime.flow_run.id).state
    return state is not None and (state.is_cancelling() or state.is_cancelled())
