"""Version the data, bring every stage of dvc.yaml up to date, register the model, ask the gate, promote.

    quickstudy run              # starts this in a process of its own and draws its progress
    python -m flows.retrain     # the same with Prefect's own log

Without ``PREFECT_API_URL`` Prefect runs its server inside, for as long as the flow takes; with it, against that server.
As a deployment (prefect.yaml) it works in a workspace of its own and lets the pool gpu train.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import UUID

from prefect import flow, get_run_logger, runtime
from prefect.client.orchestration import get_client

from flows import data_steps, notice, process, promotion_steps, recovery, stage_steps, telling
from quickstudy import registry
from quickstudy.config import Settings, load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.registry import Registration
from quickstudy.runs import workspaces
from quickstudy.versions import command, dvc, git, stale, whole

TRAINING = "meta_train"


@flow(name="retrain", persist_result=False)
def retrain(
    project: str | None = None,
    data: str | None = None,
    train_on: Literal["gpu", "here"] | None = None,
    kind: str | None = None,
) -> Registration | None:
    """Do everything from the data to a registered model and the gate's word on it; what is up to date is skipped.

    Args:
        project: its folder; by default the one around the current folder.
        data: the version of the data, DVC's hash. By default data/ as it is; in a workspace, as the worker's clone
            has it.
        train_on: who trains: a worker of the pool gpu, or this process. By default this one; in a workspace, what
            runs.train_on says.
        kind: of task, whose stages alone are brought up to date; None: all. What comes after them, card and
            registration, needs those of the other kinds too: it is left out, and None returned, where they are stale.

    Raises:
        QuickstudyError: what the user has to mend, in one line.
        versions.StageFailed: a stage ended by a bug or a signal.
    """
    root = process.project_of(project)
    settings = load_settings(root / "params.yaml")
    limit = settings.runs.limit
    deployed = bool(runtime.deployment.id)
    if deployed:
        data = data or known_data(root)
        train_on = train_on or settings.runs.train_on
        with get_client(sync_client=True) as client:
            recovery.bury(client, Path(os.environ[workspaces.HOME]))
            missed = recovery.drop_missed(client, UUID(str(runtime.deployment.id)), UUID(str(runtime.flow_run.id)))
        if missed:
            get_run_logger().info("does the work of %d other runs too, whose time on the schedule had come", missed)
    alone = only_retraining(settings.runs.second) if deployed else contextlib.nullcontext()
    with process.only_run(root), alone, notice.of_run(root):
        check_before(root)
        if data:
            state = data_steps.take_data.with_options(timeout_seconds=limit("data"))(root, data, return_state=True)
        else:
            state = data_steps.version_data.with_options(timeout_seconds=limit("data"))(root, return_state=True)
        state.result()
        stages = of_kind(root, kind)
        if deployed and not (
            stale.stale(root) or whole.damaged(root)
        ):  # one look instead of one a stage: the common end of a trigger
            get_run_logger().info("every stage is up to date")
            stages = ()
        for stage in stages:
            elsewhere = stage.name.partition("@")[0] == TRAINING and train_on == "gpu"
            if kind and "@" not in stage.name and (others := others_stale(root, stages)):
                get_run_logger().info("nothing is registered, as other kinds are not up to date: %s", ", ".join(others))
                return None
            step = (stage_steps.train_elsewhere if elsewhere else stage_steps.bring_up_to_date).with_options(
                name=stage.name, task_run_name=stage.name, timeout_seconds=limit(stage.name)
            )
            beside = {}
            if elsewhere:
                later = stages[stages.index(stage) + 1 :]
                beside["beside"] = [other for other in later if other.name.partition("@")[0] == TRAINING]
            state = step(root, stage, **beside, return_state=True, wait_for=[state])
            state.result()
        register = promotion_steps.register.with_options(timeout_seconds=limit("register"))
        with workspaces.until_sent(root):
            registration: Registration = register(root, return_state=True, wait_for=[state]).result()
        if deployed and registration.logged:
            keep(root, settings, registration)
        automatic = settings.gate.promotion == "automatic"
        plan = registry.unjudged(root, automatic)
        if plan is not None:
            verdict = promotion_steps.ask_gate.with_options(timeout_seconds=limit("gate"))(
                root, plan, must_compare=False
            )
            if verdict["answer"] == "PROMOTE" and automatic:
                promotion_steps.move_and_notify(root, plan, verdict["sentence"], verdict, settings.gate.notify)
    return registration


def check_before(root: Path) -> None:
    """Tell what would end the run after hours of work, or leave its changes unrecorded, before it begins.

    Raises:
        QuickstudyError: a secret would go into MLflow, or no alias could move.
    """
    for name, why in git.check_recordable(root).left_out.items():
        get_run_logger().info("%s is not recorded with the run: %s", name, why)
    with contextlib.suppress(registry.Unreachable), registry.reachable(root):  # what is built waits for it
        registry.check_ledger(root)


def of_kind(root: Path, kind: str | None) -> tuple[stale.Stage, ...]:
    """The stages of dvc.yaml, or those of a kind of task and what comes after the kinds.

    Raises:
        QuickstudyError: there is no stage of this kind.
    """
    if kind is not None:
        load_settings(root / "params.yaml").of(kind)
    found = stale.stages(root)
    return tuple(stage for stage in found if kind is None or stage.name.partition("@")[2] in ("", kind))


def others_stale(root: Path, stages: tuple[stale.Stage, ...]) -> list[str]:
    """The stale stages of other kinds than these stages are of."""
    mine = {stage.name for stage in stages}
    return [name for name in stale.stale(root) if name not in mine and name != "data"]


@contextlib.contextmanager
def only_retraining(second: Literal["wait", "skip"]) -> Iterator[None]:
    """Hold the worker's clone for one retraining. Prefect's limit does so too, but only as long as its lease lasts, and
    a server that is busy or starts again loses those.

    Raises:
        QuickstudyError: another one is at work, and a second one is to be skipped.
    """

    def busy() -> None:
        if second == "skip":
            raise QuickstudyError(
                "another retraining is at work; this one is skipped",
                where="runs.second",
                fix="Say wait to have it run after that one",
            )
        get_run_logger().info("another retraining is at work; this one waits for it")

    with process.holding(Path(os.environ[workspaces.HOME]) / ".cache" / "retrain.lock", busy):
        yield


def known_data(root: Path) -> str | None:
    """Return the version of the data that the worker's clone has, where it can be had: there new data arrives."""
    home = os.environ.get(workspaces.HOME)
    version = dvc.data_hash(Path(home)) if home else None
    if not version or dvc.in_cache(root, version):
        return version
    if not dvc.has_remote(root):
        return None
    dvc.set_data(root, version)
    try:
        return version if dvc.in_remote(root) else None
    except command.RemoteFailed:
        return version  # bringing it is tried again, and says so


def keep(root: Path, settings: Settings, registration: Registration) -> None:
    """Commit what this run has made of the data to a branch of its own, where runs.branch says so."""
    if not settings.runs.branch:
        return
    name = f"runs/{datetime.now(UTC):%Y-%m-%d-%H%M%S}-version-{registration.version}"
    files = {path: (root / path).read_bytes() for path in command.WRITTEN_BY_RUNS if (root / path).exists()}
    files["metrics.json"] = json.dumps(registry.stage_metrics(root), indent=1).encode()
    with telling.step(None, "branch") as done:
        git.commit_files(
            root,
            name,
            files,
            f"Version {registration.version} of the model: data, lock and metrics",
            push=settings.runs.push,
        )
        done["note"] = f"{name}{' (pushed)' if settings.runs.push else ''}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.retrain")
    parser.add_argument("--kind", help="of task, whose stages alone are brought up to date")
    asked = parser.parse_args(arguments)
    return process.main(lambda: retrain(kind=asked.kind))


if __name__ == "__main__":
    sys.exit(main())
