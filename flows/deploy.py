"""Tell a Prefect server what there is to run: pools, the deployments of prefect.yaml, and what to do when a run dies.

python -m flows.deploy       # against PREFECT_API_URL; `quickstudy up` does it when the server is there
"""

import argparse
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.states import StateType
from pydantic import ValidationError

from flows import process, recovery
from quickstudy.config import Settings, load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.system.environment import find_project

POOLS: dict[str, int | None] = {"cpu": None, "gpu": 1}
"""Work pool → how many runs it may have at once, when it is made; a pool that is there keeps its own."""

TEMPLATE: dict[str, Any] = {
    "job_configuration": {"stream_output": True},
    "variables": {
        "type": "object",
        "description": "Nothing: what a run of this pool is, its deployment says.",
        "properties": {},
        "additionalProperties": False,
    },
}
"""What a run on a worker of this machine's may change about its process: nothing. Prefect's own template lets whoever
starts a run name its command, folder and environment. Without ``env`` in the configuration Prefect has no place for one
that a deployment was given later, which its server takes unseen."""

SECOND = {"wait": "ENQUEUE", "skip": "CANCEL_NEW"}
"""What Prefect calls what a second retraining does."""

FLOWS = ["retrain", "watch", "meta-train", "promote", "reproduce"]
"""Flows whose runs are watched so. A dead run of watch would keep the next ones from beginning."""

SILENT = timedelta(seconds=90)
"""Three heartbeats (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."""


def deploy(root: Path) -> None:
    """Make pools, deployments and automations what the project says. Doing it again changes nothing.

    Raises:
        QuickstudyError: a schedule that is none, or Prefect refuses.
    """
    wanted = _with_schedules(root / "prefect.yaml", load_settings(root / "params.yaml"))
    _make_pools()
    path = root / ".cache" / "prefect.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(wanted, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode != 0:
        said = [line.strip(" │╭╰─") for line in (done.stdout + done.stderr).splitlines() if line.strip(" │╭╰─")]
        raise QuickstudyError(f"Prefect does not take it: {' '.join(said[-3:])}", where=root / "prefect.yaml")
    _mark_the_dead()


def _with_schedules(path: Path, settings: Settings) -> dict[str, Any]:
    """Return what prefect.yaml says, with the schedules and limits of params.yaml in it."""
    runs = settings.runs
    if runs.schedule is not None:
        try:
            CronSchedule(cron=runs.schedule, timezone=runs.timezone)
        except ValidationError:
            raise QuickstudyError(
                f"runs.schedule = {runs.schedule!r} is not what cron understands",
                where="params.yaml",
                fix='Five fields: minute hour day month weekday, as "0 3 * * *" for every night at three; or null',
            ) from None
    try:
        wanted: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        deployments = {deployment["name"]: deployment for deployment in wanted["deployments"]}
        retrain = deployments["retrain"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise QuickstudyError(f"cannot be read ({error})", where=path, fix="git checkout prefect.yaml") from None
    retrain["schedules"] = [{"cron": runs.schedule, "timezone": runs.timezone}] if runs.schedule else []
    retrain["concurrency_limit"]["collision_strategy"] = SECOND[runs.second]
    return wanted


def _make_pools() -> None:
    with get_client(sync_client=True) as client:
        for name, limit in POOLS.items():
            try:
                found = client.read_work_pool(name)
            except ObjectNotFound:
                # With its template, which else the first worker adds; two that do so at once lock SQLite for a minute.
                client.create_work_pool(
                    WorkPoolCreate(name=name, type="process", concurrency_limit=limit, base_job_template=TEMPLATE)
                )
                continue
            if found.type == "process" and found.base_job_template != TEMPLATE:
                client.update_work_pool(name, WorkPoolUpdate(base_job_template=TEMPLATE))


def _mark_the_dead() -> None:
    """Let Prefect mark as crashed, by automations, a run that says nothing any more: its process or machine is gone."""
    ends = ("Completed", "Failed", "Cancelled", "Crashed", "Suspended", "Paused")
    heartbeat = "prefect.flow-run.heartbeat"
    _automate(
        "quickstudy: a silent run has crashed",
        "A run that has begun and then sends no heartbeat has lost its machine.",
        "no heartbeat: its machine is gone",
        after={heartbeat},
        expect={heartbeat, *(f"prefect.flow-run.{end}" for end in ends)},
        within=SILENT,
    )
    _automate(
        "quickstudy: a run that never started has crashed",
        "A run that a worker took and that does not begin has lost that worker.",
        recovery.NEVER_STARTED_WHY,
        after={f"prefect.flow-run.{state}" for state in recovery.TAKEN},
        expect={"prefect.flow-run.*"},
        within=recovery.NEVER_STARTED,
    )


def _automate(
    name: str, description: str, message: str, *, after: set[str], expect: set[str], within: timedelta
) -> None:
    """Mark runs of our flows as crashed where nothing that is expected happens in time."""
    wanted = AutomationCore(
        name=name,
        description=description,
        trigger=EventTrigger(
            after=after,
            expect=expect,
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            match_related={"prefect.resource.role": "flow", "prefect.resource.name": FLOWS},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, name=None, message=message, force=False)],
    )
    with get_client(sync_client=True) as client:
        found = client.read_automations_by_name(name)
        if found and (found[0].trigger, found[0].actions) == (wanted.trigger, wanted.actions):
            return  # an update would forget what it waits for
        if found:
            client.update_automation(found[0].id, wanted)
        else:
            client.create_automation(wanted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--alone", action="store_true", help="no worker of this clone runs yet: what was at work is dead"
    )
    alone = parser.parse_args().alone

    def run() -> None:
        deploy(find_project())
        if alone:
            with get_client(sync_client=True) as client:
                recovery.free_places(client)

    return process.main(run)


if __name__ == "__main__":
    sys.exit(main())
