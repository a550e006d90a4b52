"""Look for new data and for runs that died, and start what is due: what `quickstudy up` runs where it sees something.

    python -m flows.watch       # one look, against PREFECT_API_URL

It works in the worker's own clone, whose data/ and inbox/ people and programs fill: what is in the inbox goes into the
datasets, data/ gets a version, and a retraining starts with it, in a workspace of its own.
"""

import json
import sys
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter, FlowRunFilterTags
from prefect.deployments import run_deployment
from prefect.events import emit_event
from prefect.exceptions import ObjectNotFound

from flows import notice, process, recovery, telling
from quickstudy import registry
from quickstudy.config import Settings, load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.runs import watching
from quickstudy.versions import command, dvc

TAKE = ("quickstudy", "data", "take", "--json")
DRIFT = ("quickstudy", "drift", "--json")


@flow(name="watch", persist_result=False)
def watch(project: str | None = None) -> str | None:
    """Look once for what is to be done, and start it.

    Args:
        project: its folder; by default the one around the current folder.

    Returns:
        the version of the data that a retraining was started with; None where there was nothing to start.

    Raises:
        QuickstudyError: the data cannot be used; says why.
    """
    root = process.project_of(project)
    settings = load_settings(root / "params.yaml")
    with notice.of_run(root, always=False), get_client(sync_client=True) as client:
        for name in recovery.bury(client, root):
            get_run_logger().warning("run %s has crashed", name)
        if again := recovery.restart(client, settings.runs.restarts):
            with telling.step(None, "restart") as done:
                done["note"] = f"the last retraining crashed; {again.name} goes on from what it had finished"
        if watching.deliveries(root / settings.watch.inbox):
            take_deliveries.with_options(timeout_seconds=settings.runs.limit("inbox"))(root)
        now = watching.signature(root / "data")
        if now is None or watching.version_of(root, now) or (version := look(root, now)) is None:
            return None
        started = None if started_with(client, version) else start(root, settings, version)
        watching.remember(root, now, version)  # whatever fails before is tried again by the next look
        return started


@task(name="inbox", task_run_name="inbox", cache_policy=NO_CACHE)
def take_deliveries(root: Path) -> list[dict[str, Any]]:
    """Take what is in the inbox into the datasets; put what is bad aside."""
    path = root / ".cache" / "taken.json"
    with telling.step(None, "inbox") as done:
        process.call(root, "inbox", [*TAKE, str(path)], telling.listener("inbox"))
        deliveries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        counts = {what: [d for d in deliveries if d["outcome"] == what] for what in ("taken", "rejected", "waiting")}
        if not counts["taken"] and not counts["rejected"]:
            done["outcome"] = "up to date"
        words = {"taken": "taken", "rejected": "set aside", "waiting": "still being written"}
        done["note"] = "; ".join(
            f"{words[what]}: {', '.join(_name(d) for d in found)}" for what, found in counts.items() if found
        )
    if counts["taken"] or counts["rejected"]:
        create_table_artifact(deliveries, key="inbox", description="What lay in the inbox, and what became of it")
    for rejected in counts["rejected"]:
        get_run_logger().warning("%s: %s", _name(rejected), rejected["reason"])
    return deliveries


def _name(delivery: dict[str, Any]) -> str:
    name = f"{delivery['dataset']}/{delivery['delivery']}"
    if delivery["outcome"] == "taken":
        return f"{name} ({delivery['examples']} new)"
    return f"{name} ({delivery['reason']})" if delivery["outcome"] == "rejected" else name


def look(root: Path, now: str) -> str | None:
    """Give data/ a version and return it; None where it does not look like ``now`` any more, or another DVC command
    holds it."""
    try:
        version = dvc.add_data(root)
    except command.Busy as busy:
        get_run_logger().info("%s; the next look comes", busy)
        return None
    return version if watching.signature(root / "data") == now else None


def started_with(client: SyncPrefectClient, version: str) -> bool:
    """Return whether a retraining was started with this version of the data, by whomever."""
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[_tag(version)])),
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[_retrain(client).id])),
        limit=1,
    )
    return bool(found)


def start(root: Path, settings: Settings, version: str) -> str | None:
    """Let the data be had from elsewhere, ask what the policy says, and start the retraining."""
    with telling.step(None, "start") as done:
        listen = telling.listener("start")
        if dvc.has_remote(root):
            dvc.push_data(root, listen)
        emit_event("quickstudy.data.changed", resource={"prefect.resource.id": f"quickstudy.data.{version[:32]}"})
        why = f"data version {version[:8]}"
        if settings.watch.retrain == "never":
            done.update(outcome="up to date", note=f"{why}; watch.retrain is never")
            return None
        if settings.watch.retrain == "drift" and registry.aliases(root).get("champion"):
            path = root / ".cache" / "drift.json"
            code = process.call(root, "drift", [*DRIFT, str(path)], listen, (0, 3))
            if code == 0:
                done.update(outcome="up to date", note=f"{why} has not drifted; the schedule takes it")
                return None
            emit_event("quickstudy.data.drifted", resource={"prefect.resource.id": f"quickstudy.data.{version[:32]}"})
            why += " has drifted"
        run: Any = run_deployment(
            recovery.RETRAIN,
            parameters={"data": version},
            tags=[_tag(version), "trigger:data"],
            timeout=0,
            as_subflow=False,
        )
        done["note"] = f"{why}; retraining {run.name}"
    return version


def _retrain(client: SyncPrefectClient) -> Any:
    try:
        return client.read_deployment_by_name(recovery.RETRAIN)
    except ObjectNotFound:
        raise QuickstudyError(
            f"there is no deployment {recovery.RETRAIN}", where=str(client.api_url), fix="Deploy it: quickstudy up"
        ) from None


def _tag(version: str) -> str:
    return f"data:{version[:12]}"


def main() -> int:
    return process.main(watch)


if __name__ == "__main__":
    sys.exit(main())
