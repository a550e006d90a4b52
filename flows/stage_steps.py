"""Steps of a flow that bring a stage of dvc.yaml up to date, here or where another run trains."""

import contextlib
import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows import handover
from flows.process import BACKOFF, a_retry_can_help
from flows.telling import listener, step
from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.pipeline.paths import LIVE
from quickstudy.versions import dvc, stale
from quickstudy.versions.command import MustRun


@task(cache_policy=NO_CACHE, retries=1, retry_delay_seconds=5, retry_condition_fn=a_retry_can_help)
def bring_up_to_date(root: Path, stage: stale.Stage) -> Any:
    """Bring one stage up to date by `dvc repro`. One that is so already ends in the state Cached.

    Returns:
        "ran", "up to date" or "restored" (from DVC's run cache).
    """
    what, _, kind = stage.name.partition("@")
    follow = registry.following(root, root / LIVE, kind) if what == "meta_train" else contextlib.nullcontext()
    with step(root, stage.name) as done, follow:
        outcome = dvc.repro(root, stage.name, listener(stage.name))
        done["outcome"] = outcome
    show(root, stage)
    return outcome if outcome == "ran" else Completed(name="Cached", message=outcome, data=outcome)


@task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=BACKOFF, retry_condition_fn=a_retry_can_help)
def train_elsewhere(root: Path, stage: stale.Stage, beside: Sequence[stale.Stage] = ()) -> Any:
    """Have a worker of the pool gpu run the stage, unless DVC knows what comes out, and bring that here.

    Args:
        beside: other trainings that can begin now, on whichever workers there are.
    """
    with step(root, stage.name) as done:
        listen = listener(stage.name)
        pull = dvc.has_remote(root)
        try:
            outcome = dvc.repro(root, stage.name, listen, pull=pull, may_run=False)
        except MustRun:
            if pull:
                dvc.push_data(root, listen)
                dvc.push_outputs(root, stage.after, listen)
            for another in beside:
                if _must_run(root, another, pull):
                    if pull:
                        dvc.push_outputs(root, another.after, listen)
                    handover.begin(root, another)
            other = handover.train(root, stage)
            try:
                dvc.repro(root, stage.name, listen, pull=pull, may_run=False)
            except MustRun:
                raise QuickstudyError(
                    f"the run {other.name} has trained, but what it made is not to be had here",
                    where=stage.name,
                    fix="Configure the same DVC remote in both clones (dvc remote add -d), or say runs.train_on: here",
                ) from None
            outcome = "ran"
            done["note"] = f"by {other.name}"
        done["outcome"] = outcome
    show(root, stage)
    return outcome if outcome == "ran" else Completed(name="Cached", message=outcome, data=outcome)


def _must_run(root: Path, stage: stale.Stage, pull: bool) -> bool:
    """Whether DVC does not know what comes out of a stage."""
    try:
        dvc.repro(root, stage.name, lambda line: None, pull=pull, may_run=False)
    except MustRun:
        return True
    return False


def show(root: Path, stage: stale.Stage) -> None:
    """Make an artifact in Prefect's UI of what a stage made: its text, its table or its numbers, the first there is."""
    key = re.sub(r"[_@]", "-", stage.name).lower()
    places = [root / out for out in stage.outs]
    folders = list(dict.fromkeys(place if place.is_dir() else place.parent for place in places if place.exists()))
    for path in (found for folder in folders for found in sorted(folder.glob("*.md"))):
        if (page := path.with_suffix(".html")).exists():
            create_link_artifact(page.resolve().as_uri(), page.name, key=f"{key}-page")
        text = re.sub(r"!\[[^]]*]\([^)]*\)\s*", "", path.read_text(encoding="utf-8"))  # figures lie beside the file
        create_markdown_artifact(text, key=key, description=f"{stage.name}: {path.name}")
        return
    for path in (folder / "table.csv" for folder in folders):
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                create_table_artifact(list(csv.DictReader(file)), key=key, description=f"{stage.name}: {path.name}")
            return
    rows = [
        {"name": name, "value": value}
        for folder in folders
        for path in (folder / "metrics.json", folder / f"{stage.name.partition('@')[0]}.json")
        if path.exists()
        for name, value in stale.flatten(json.loads(path.read_text(encoding="utf-8"))).items()
    ]
    if rows:
        create_table_artifact(rows, key=key, description=f"{stage.name}: its numbers")
