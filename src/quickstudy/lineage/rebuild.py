"""A model made again, stage by stage, from its recipe.

A git worktree at the recorded commit, with the recorded patch where the working copy was dirty; the data that DVC knows
under the recorded hash; the stages of its own dvc.yaml that lead to the model, run by its own code, with nothing taken
from DVC's caches. The user's working copy is not touched. All of it lies in ``.cache/reproduce/RUN``.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from quickstudy.errors import QuickstudyError
from quickstudy.lineage.recipe import DataOrigin, Recipe, impossible
from quickstudy.system import processes
from quickstudy.system.progress import asking, in_words, read_event
from quickstudy.versions import dvc, stale
from quickstudy.versions.command import StageFailed

BUILD_STARTER: tuple[str, ...] = (sys.executable, "-m", "quickstudy", "data", "build")


def fetch_data(project: Path, recipe: Recipe, data_from: DataOrigin, on_line: Callable[[str], None]) -> None:
    """Bring the data into the worktree.

    Raises:
        QuickstudyError: it is not the data of the record.
    """
    if data_from == "DVC's cache":
        dvc.checkout_data(project)
    elif data_from == "the DVC remote":
        dvc.pull_data(project, on_line)
    else:
        lines: list[str] = []

        def listen(line: str) -> None:
            event = read_event(line)
            lines.append(line if event is None else in_words(event))
            on_line(line)

        if processes.stream(BUILD_STARTER, project, listen, {**asking(), **environment(project, recipe)}) != 0:
            said = next((line for line in reversed(lines) if line.strip()), "without a word")
            raise impossible(recipe.record, [f"its starter data could not be built ({said})"])
        built = dvc.hash_data(project)
        if built != recipe.data:
            raise impossible(
                recipe.record,
                [
                    f"the starter data of its commit is version {built[:8]} on this machine, not {recipe.data[:8]}: "
                    "get the data from where it was trained (dvc push there, a DVC remote here)"
                ],
            )


def build(project: Path, recipe: Recipe, stage: stale.Stage, on_line: Callable[[str], None]) -> str | None:
    """Run a stage by the worktree's own code, whatever DVC has in its caches.

    Returns:
        how it failed, where it could not do what it did then.

    Raises:
        versions.StageFailed: it was killed, which says nothing.
    """
    try:
        dvc.repro(project, stage.name, on_line, anew=True, env=environment(project, recipe))
    except StageFailed as failure:
        if failure.killed:
            raise
        return str(failure)
    except QuickstudyError as error:
        return f"stage {stage.name} failed: {error}"
    return None


def environment(project: Path, recipe: Recipe) -> dict[str, str]:
    """Return the variables under which the stages of a worktree run: its code comes before the installed one, and torch
    has the recorded number of threads, on which the order of its sums depends."""
    found = {"PYTHONPATH": os.pathsep.join(filter(None, (str(project / "src"), os.environ.get("PYTHONPATH"))))}
    train = (recipe.params or {}).get("train") or {}
    if recipe.threads and train.get("processes", 1) == 1:
        found |= {"OMP_NUM_THREADS": str(recipe.threads), "MKL_NUM_THREADS": str(recipe.threads)}
    return found


def check_code(project: Path, recipe: Recipe) -> None:
    """Make sure that a stage would run the worktree's code, not the installed one.

    Raises:
        QuickstudyError: it would not.
    """
    package = project / "src" / "quickstudy"
    if not package.is_dir():
        return
    lines: list[str] = []
    command = [sys.executable, "-c", "import quickstudy; print(quickstudy.__file__)"]
    code = processes.stream(command, project, lines.append, environment(project, recipe))
    if code != 0 or not lines or Path(lines[-1]).parent.resolve() != package.resolve():
        raise impossible(
            recipe.record, [f"its code cannot be run here: Python takes {lines[-1] if lines else 'none'} instead"]
        )
