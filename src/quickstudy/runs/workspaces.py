"""Where a run of a deployment works: a git worktree of its own at one commit, never somebody's working copy.

Prefect calls `checkout` as a pull step (prefect.yaml), in the process that then becomes the flow's by exec. So the lock
that it takes lasts as long as the run, and goes with it however it ends. It is not filelock's, which an exec closes and
which has no shared one, by which others see who is at work. What git ignores stays from one run to the next: data/,
what the stages built and their caches, so that a run with nothing to do ends in seconds.
"""

import contextlib
import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from pathlib import Path

from quickstudy import registry
from quickstudy.config import load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.runs.api import request
from quickstudy.system.environment import find_project
from quickstudy.versions import git, worktree

FOLDER = Path(".cache") / "workspaces"

HOME = "QUICKSTUDY_HOME"
"""The variable that names the worker's clone."""

REPOSITORY = "QUICKSTUDY_REPOSITORY"
"""The variable that names where that clone comes from, where it is not there yet."""

COMMIT = "QUICKSTUDY_COMMIT"
"""The variable by which whoever starts a worker names the commit of all its runs."""

AT = "commit:"
"""How the tag of a run begins that names its commit, where another run has asked for it. Whoever starts a run sets no
variable of its environment: then they could set every one."""

LOCKED = "QUICKSTUDY_LOCKED"
"""The variable that names the workspace whose lock this process holds already."""

RUN = "PREFECT__FLOW_RUN_ID"
"""The variable in which Prefect names the run."""

REFUSED = "QUICKSTUDY_REFUSED"
"""The variable that says why a run has no workspace."""

UNSENT = Path(".cache") / "unsent"
"""Says that what was built in a workspace is not registered yet."""

TRIES = 5
"""How often Prefect's server is asked, some seconds apart, before a run ends because it does not answer."""

SHARED = ("checkpoints", "checks")
"""Folders of .cache, named by content, that all workspaces of a clone have in common: what one has begun, another can
end."""


def home(name: str) -> dict[str, str]:
    """Take the worker's clone itself, for what looks after its data. A pull step; its lock only says who is at work."""
    clone = _home()
    _take(clone, name)
    return {"directory": str(clone)}


def checkout(workspace: str, keep: bool = False) -> dict[str, str]:
    """Make a worktree at the commit of this run, with the code in it first on the path of the flow. A pull step.

    Args:
        workspace: which; two runs that want the same at the same time get two.
        keep: as the last run has left it, whatever its commit; for what asks about that run's model.

    Returns:
        what Prefect wants of a pull step: the ``directory`` to run the flow in. Where there can be none (no such commit
        here, other packages than it asks for, nothing to keep) the flow runs in the worker's clone, which ends it with
        the reason: an error here would tell only the worker's log.
    """
    clone = _home()
    try:
        return {"directory": str(_checkout(clone, workspace, keep))}
    except QuickstudyError as error:
        os.environ[REFUSED] = str(error)
        return {"directory": str(clone)}


def _checkout(clone: Path, workspace: str, keep: bool) -> Path:
    folder = _take(clone, workspace)
    tree = folder / "tree"
    if keep and not (tree / ".git").exists():
        raise QuickstudyError(
            f"no run has worked in the workspace {workspace} of this machine",
            where=folder,
            fix="Start one: quickstudy prefect deployment run retrain/retrain",
        )
    if not keep:
        commit = git.find_commit(
            clone, os.environ.get(COMMIT) or _commit_of_run() or load_settings(clone / "params.yaml").runs.ref
        )
        new = not (tree / ".git").exists()
        if new:
            worktree.remove_worktree(clone, tree)  # the rest of one that was cut off
        else:
            _send(worktree.project_in(clone, tree))
        project = worktree.add_worktree(clone, tree, commit) if new else worktree.reset_worktree(clone, tree, commit)
    else:
        project = worktree.project_in(clone, tree)
    if wrong := wrong_packages(project):
        raise QuickstudyError(
            f"this worker's packages are not those of the run's commit ({', '.join(wrong[:3])}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''})",
            where=clone,
            fix="Check that commit out in the worker's clone, make install, and start the worker again",
        )
    _share(clone, project)
    os.environ[LOCKED] = str(project)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(project / "src"), os.environ.get("PYTHONPATH"))))
    return project


def _commit_of_run() -> str | None:
    """Return the commit that the tags of this process's run name.

    Raises:
        QuickstudyError: Prefect's server does not say what they are, or they name none.
    """
    run, api = os.environ.get(RUN), os.environ.get("PREFECT_API_URL")
    if not (run and api):
        return None
    for tries in count(1):
        try:
            tags = request(api, f"/flow_runs/{run}", auth=os.environ.get("PREFECT_API_AUTH_STRING"))["tags"]
            break
        except (OSError, HTTPException, ValueError) as error:
            if tries == TRIES:
                raise QuickstudyError(f"Prefect's server does not say what run this is ({error})", where=api) from None
            time.sleep(tries)
    named = [tag.removeprefix(AT) for tag in tags if tag.startswith(AT)]
    if named and not re.fullmatch(r"[0-9a-f]{40}", named[0]):
        raise QuickstudyError("is no commit", where=f"{AT}{named[0]}", fix="Start the run again")
    return named[0] if named else None


@contextlib.contextmanager
def until_sent(project: Path) -> Iterator[None]:
    """Remember while the body runs, and after it where MLflow does not answer, that what was built here is not
    registered yet: then the next run registers it before it changes anything (`checkout`)."""
    (project / UNSENT).parent.mkdir(exist_ok=True)
    (project / UNSENT).touch()
    try:
        yield
    except registry.Unreachable as error:
        raise registry.Unreachable(
            error.what, where=error.where, fix="The model waits in this workspace; the next run registers it"
        ) from None
    except Exception:  # another try would fail as well
        (project / UNSENT).unlink()
        raise
    (project / UNSENT).unlink()


def _send(project: Path) -> None:
    """Register what an earlier run has built and MLflow could not take, by the code that built it.

    Raises:
        registry.Unreachable: it still does not answer.
    """
    if not (project / UNSENT).exists():
        return
    code = "from pathlib import Path; from quickstudy import registry; registry.register(Path.cwd())"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join((str(project / "src"), os.environ.get("PYTHONPATH", "")))}
    done = subprocess.run([sys.executable, "-c", code], cwd=project, env=env, capture_output=True, text=True)
    if "Unreachable" in done.stderr:
        raise registry.Unreachable(
            "MLflow still does not answer, and what the last run has built is not registered yet",
            where=project,
            fix="Start MLflow's server, then this run again; nothing is lost until then",
        )
    (project / UNSENT).unlink()


def abandoned(clone: Path) -> list[str]:
    """Return the ids of the runs that worked in the workspaces of a clone and whose processes are gone."""
    return [run for run, alive in _runs(clone).items() if not alive]


def at_work(clone: Path) -> list[str]:
    """Return the ids of the runs that hold a workspace of a clone."""
    return [run for run, alive in _runs(clone).items() if alive]


def forget(clone: Path, run: str) -> None:
    """Say no more of a run that is gone."""
    for path in (clone / FOLDER).glob("*/lock"):
        with path.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            if lock.read().strip() == run:
                lock.truncate(0)


def let_go() -> None:
    """Say, in a run that holds a workspace, that it is not dead when its process ends: it waits for a person, and goes
    on in another process, perhaps elsewhere."""
    for path in (Path(os.environ[HOME]) / FOLDER).glob("*/lock"):
        if path.read_text().strip() == os.environ.get(RUN):
            os.truncate(path, 0)


def _runs(clone: Path) -> dict[str, bool]:
    """Return the id of the run that holds or held each workspace, and whether its process lives."""
    found = {}
    for path in (clone / FOLDER).glob("*/lock"):
        with path.open("r+") as lock:
            run = lock.read().strip()
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                alive = False
            except OSError:
                alive = True
        if run:
            found[run] = alive
    return found


def wrong_packages(project: Path) -> list[str]:
    """Return how the packages of this environment differ from those of a project's requirements.lock. A build's own
    suffix (``+cu130``) does not count, nor what is there beside."""
    wrong = []
    for line in (project / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"([\w.-]+)==([^\s;]+)", line.strip()):
            name, wanted = found.groups()
            try:
                have = version(name)
            except PackageNotFoundError:
                have = "none"
            if have.partition("+")[0] != wanted.partition("+")[0]:
                wrong.append(f"{name} {have}, not {wanted}")
    return wrong


def _home() -> Path:
    named, url = os.environ.get(HOME), os.environ.get(REPOSITORY)
    if named and url and not Path(named).exists():  # a container, which begins with nothing
        git.clone(url, Path(named))
    return find_project(Path(named) if named else None)


def _take(clone: Path, workspace: str) -> Path:
    """Take the first folder of this name that no other run holds; this process holds it from now on."""
    for number in count(1):
        folder = clone / FOLDER / (workspace if number == 1 else f"{workspace}-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        os.set_inheritable(lock, True)  # the flow, which this process becomes, goes on holding it
        os.truncate(lock, 0)
        os.write(lock, os.environ.get(RUN, "").encode())
        return folder
    raise AssertionError


def _share(clone: Path, project: Path) -> None:
    for name in SHARED:
        common, own = clone / ".cache" / name, project / ".cache" / name
        common.mkdir(parents=True, exist_ok=True)
        own.parent.mkdir(exist_ok=True)
        if not own.is_symlink():
            own.symlink_to(common, target_is_directory=True)
