"""Build a registered model again from what was recorded of it, beside the working copy, and say whether it is the same.

quickstudy reproduce 3              # starts this in a process of its own and draws its progress
python -m flows.reproduce 3         # the same with Prefect's own log
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows import notice, process, telling
from quickstudy.config import load_settings
from quickstudy.lineage import rebuild
from quickstudy.lineage import recipe as recipes
from quickstudy.lineage import reproduction as reproductions
from quickstudy.system.progress import read_event
from quickstudy.versions import stale


# A rebuild starts from nothing: no step is taken from what an earlier one has left. How long it takes is not what the
# same step of a run would take, and is not remembered.
@task(name="record", task_run_name="record", cache_policy=NO_CACHE)
def read(root: Path, uri: str, patch: str | None) -> recipes.Recipe:
    """Read what was recorded of the model."""
    with telling.step(None, "record") as done:
        recipe = recipes.read(root, uri)
        recipes.check_patch(recipe, patch)
        done["note"] = f"{recipe.uri}, run {recipe.record.run_id}"
    return recipe


@task(name="worktree", task_run_name="worktree", cache_policy=NO_CACHE)
def prepare(root: Path, recipe: recipes.Recipe) -> tuple[Path, recipes.DataOrigin]:
    """Bring back the code of its commit, with its patch, and find where its data can come from."""
    with telling.step(None, "worktree") as done:
        project, data_from = recipes.prepare(root, recipe)
        rebuild.check_code(project, recipe)
        done["note"] = f"commit {recipe.commit[:10]}{' with the recorded patch' if recipe.patch else ''}"
    return project, data_from


@task(
    name="data",
    task_run_name="data",
    cache_policy=NO_CACHE,
    retries=1,
    retry_delay_seconds=10,
    retry_condition_fn=process.a_retry_can_help,
)
def fetch(project: Path, recipe: recipes.Recipe, data_from: recipes.DataOrigin) -> str:
    """Bring its data into the worktree."""
    with telling.step(None, "data") as done:
        listen = telling.listener("data")
        rebuild.fetch_data(project, recipe, data_from, lambda line: listen(line) if read_event(line) else None)
        done["note"] = (
            f"version {recipe.data[:8]}, {data_from if data_from.startswith('built') else f'from {data_from}'}"
        )
    return recipe.data


@task(cache_policy=NO_CACHE)
def build(project: Path, recipe: recipes.Recipe, stage: stale.Stage) -> str | None:
    """Run a stage of its dvc.yaml anew. Return how it failed, where it did."""
    with telling.step(None, stage.name) as done:
        failure = rebuild.build(project, recipe, stage, telling.listener(stage.name))
        done["note"] = failure or ""
    return failure


@task(name="verdict", task_run_name="verdict", cache_policy=NO_CACHE)
def judge(
    root: Path,
    project: Path,
    recipe: recipes.Recipe,
    data_from: recipes.DataOrigin,
    failure: str | None,
    started: float,
) -> reproductions.Reproduction:
    """Say whether it is the same, and keep that."""
    with telling.step(None, "verdict") as done:
        report = telling.reporter("verdict")
        found = reproductions.judge(
            root,
            project,
            recipe,
            data_from,
            load_settings(root / "params.yaml").reproduce,
            failure,
            started,
            lambda done, total: report({"event": "progress", "what": "answers", "done": done, "total": total}),
        )
        done.update(note=f"{found.answer}: {found.why}", answer=found.answer, run_id=found.run_id)
    listed = "".join(f"\n- {line}" for line in (*found.where, *found.environment, *found.notes))
    create_markdown_artifact(
        f"**{found.answer}**: `{found.uri}` built again at commit `{found.commit}`; {found.why}.\n{listed}",
        key="reproduce",
        description="Whether the rebuilt model is the registered one",
    )
    return found


@flow(name="reproduce", persist_result=False)
def reproduce(uri: str, project: str | None = None, patch: str | None = None) -> reproductions.Reproduction:
    """Build a model again, in a worktree of its commit.

    Args:
        uri: a version, an alias or a run.
        project: its folder; by default the one around the current folder.
        patch: sha256 of the patch that a person has read, where that is not the recorded one.

    Raises:
        QuickstudyError: it cannot be rebuilt; says why.
        versions.StageFailed: a stage was killed.
    """
    root, started = process.project_of(project), time.monotonic()
    with recipes.alone(root), notice.of_run(root):
        read_state = read(root, uri, patch, return_state=True)
        recipe = read_state.result()
        prepared = prepare(root, recipe, return_state=True, wait_for=[read_state])
        worktree, data_from = prepared.result()
        last: State[Any] = fetch(worktree, recipe, data_from, return_state=True, wait_for=[prepared])
        last.result()
        failure: str | None = None
        for stage in recipes.needed(worktree):
            run = build.with_options(name=stage.name, task_run_name=stage.name)
            last = run(worktree, recipe, stage, return_state=True, wait_for=[last])
            failure = last.result()
            if failure:
                get_run_logger().warning("%s", failure)
                break
        found: reproductions.Reproduction = judge(
            root, worktree, recipe, data_from, failure, started, return_state=True, wait_for=[last]
        ).result()
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.reproduce")
    parser.add_argument("uri", help="a version, an alias or a run")
    parser.add_argument("--patch", help="sha256 of the patch that you have read, where it is not the recorded one")
    asked = parser.parse_args(arguments)
    return process.main(lambda: reproduce(asked.uri, patch=asked.patch))


if __name__ == "__main__":
    sys.exit(main())
