"""Train where the GPU is: what the deployment meta-train runs for another run (flows/handover.py).

Inputs come from the DVC remote, or from DVC's cache where both work in the same clone; outputs go there.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows import data_steps, notice, process, stage_steps, telling
from quickstudy.config import load_settings
from quickstudy.system import locks
from quickstudy.system.atomic import write_bytes
from quickstudy.system.private import temporary_folder
from quickstudy.versions import dvc, stale


@task(
    name="inputs",
    task_run_name="inputs",
    cache_policy=NO_CACHE,
    retries=process.RETRIES,
    retry_delay_seconds=process.BACKOFF,
    retry_condition_fn=process.a_retry_can_help,
)
def fetch(root: Path, stages: tuple[str, ...], data: str) -> None:
    """Bring the data, and what the stages before have made."""
    with telling.step(None, "inputs") as done:
        listen = telling.listener("inputs")
        dvc.set_data(root, data)
        data_steps.bring_data(root, data, listen)
        for stage in stages:
            dvc.pull_outputs(root, stage, listen)
        done["note"] = f"data version {data[:8]}"


@task(
    name="outputs",
    task_run_name="outputs",
    cache_policy=NO_CACHE,
    retries=process.RETRIES,
    retry_delay_seconds=process.BACKOFF,
    retry_condition_fn=process.a_retry_can_help,
)
def send(root: Path, stage: str) -> None:
    """Bring what was trained into the DVC remote."""
    with telling.step(None, "outputs"):
        dvc.push_outputs(root, [stage], telling.listener("outputs"))


@flow(name="meta-train", persist_result=False)
def meta_train(lock: str, data: str, stage: str = "meta_train@classify", project: str | None = None) -> None:
    """Run a stage meta_train@KIND on the inputs that another run names.

    Args:
        lock: the other run's dvc.lock, which names what the stages before have made.
        data: the version of the data: DVC's hash.
        stage: whose training it is.
        project: its folder; by default the one around the current folder.

    Raises:
        QuickstudyError: the inputs are not to be had here, or what the stage tells the user.
    """
    root = process.project_of(project)
    limits = load_settings(root / "params.yaml").runs
    with process.only_run(root), notice.of_run(root), alone_on_the_gpu(limits.limit(stage)):
        write_bytes(root / "dvc.lock", lock.encode())
        stages = {stage.name: stage for stage in stale.stages(root)}
        fetch.with_options(timeout_seconds=limits.limit("inputs"))(root, stages[stage].after, data)
        train = stage_steps.bring_up_to_date.with_options(
            name=stage, task_run_name=stage, timeout_seconds=limits.limit(stage)
        )
        train(root, stages[stage], return_state=True).result()
        if dvc.has_remote(root):
            send.with_options(timeout_seconds=limits.limit("outputs"))(root, stage, return_state=True).result()


@contextlib.contextmanager
def alone_on_the_gpu(patience: float) -> Iterator[None]:
    """Wait until no other run of this machine uses the GPUs that this process sees. The pool's limit keeps runs of one
    server apart; this those of two servers, and what a crash of the server has left at work.

    Args:
        patience: seconds that a run of another user's is waited for.
    """
    name = f"quickstudy-gpu-{re.sub(r'[^A-Za-z0-9-]', '-', os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))}.lock"
    tell = get_run_logger().info
    with contextlib.ExitStack() as held:
        if (own := temporary_folder()) is not None:  # whatever others do with the lock that all share
            waits = "another run uses the GPU of this machine; this one waits for it"
            held.enter_context(process.holding(own / name, lambda: tell(waits)))
        held.enter_context(locks.in_turn(name, tell, patience))
        yield
