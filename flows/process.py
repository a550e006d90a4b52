"""The steps of the flows: Prefect tasks under the names that they have elsewhere, with artifacts of their results."""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout
from prefect import runtime
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from prefect.tasks import Task

from flows import guarded
from flows.telling import tell
from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.runs import workspaces
from quickstudy.secrets import redacted
from quickstudy.system.environment import find_project
from quickstudy.system.processes import GRACE, STARTER, identity, is_gone, stream
from quickstudy.system.progress import asking, read_event
from quickstudy.versions.command import Busy, RemoteFailed, StageFailed

if not PREFECT_API_URL.value():  # Prefect starts a server inside
    guarded.guard_temporary_servers()

RETRIES, BACKOFF = 4, [5.0, 15.0, 45.0, 120.0]
"""How often what may pass is tried again, and after how many seconds each time."""

ENDS_WITHIN = 6 * GRACE
"""Seconds after which a run whose starter was killed has ended: it is asked, then killed, and so is what it started."""

POLL_SECONDS = 1.0
"""Between two looks at a lock that another run may hold for hours."""


def a_retry_can_help(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether the failure may pass: a busy workspace, a killed stage, a remote out of reach, a locked database,
    a full disk, here or where another run trains, a move of aliases that another run began."""
    try:
        state.result()
    except (Busy, RemoteFailed, registry.Unreachable, registry.Moving):
        return True
    except StageFailed as failure:
        return failure.killed
    except Exception as error:
        return "database is locked" in str(error) or "no space left" in str(error).lower()
    return False


def project_of(folder: str | None) -> Path:
    """Return the project that a flow works in: the folder it was given, or the one around the current folder.

    Raises:
        QuickstudyError: there is none, or no workspace could be made for this run (quickstudy.runs.workspaces).
    """
    if refused := os.environ.get(workspaces.REFUSED):
        raise QuickstudyError(refused)
    if folder and runtime.deployment.id:  # whose caller may be elsewhere, and names no folder of the worker's machine
        raise QuickstudyError("a run of a deployment works in its own workspace", where="project", fix="Leave it out")
    return find_project(Path(folder) if folder else None)


@contextlib.contextmanager
def only_run(root: Path) -> Iterator[None]:
    """Hold the project for one flow at a time; the lock goes with the process, however that ends.

    Raises:
        QuickstudyError: another run holds it.
    """
    if os.environ.get(workspaces.LOCKED) == str(root):  # a deployment's run: its pull step has done so
        _end_with_worker()
        yield
        return
    path = root / ".cache" / "run.lock"
    path.parent.mkdir(exist_ok=True)
    with _not_waiting_for_the_living(path, root):
        path.write_text(f"{identity()}\n{os.environ.get(STARTER, '')}\n")
        yield


def _not_waiting_for_the_living(path: Path, root: Path) -> AcquireReturnProxy:
    """Take a lock; wait for one that a dying run holds.

    Raises:
        QuickstudyError: another run holds it, that lives or does not die.
    """
    lock, told, until = FileLock(path), False, time.monotonic() + ENDS_WITHIN
    while True:
        try:
            return lock.acquire(blocking=False)
        except Timeout:
            holder, starter = _holder(path)
        dies = any(known and is_gone(known) for known in (holder, starter))
        if not dies or time.monotonic() > until:
            number = holder.split()[-2] if holder else "unknown"
            what = "the run before was killed and does not end" if dies else "another run is at work here"
            raise QuickstudyError(f"{what} (process {number})", where=root, fix="Wait until it ends, or stop it")
        if not told:  # whoever started it was killed, so it is being ended (quickstudy.system.processes)
            tell("text", step="data", text="the run before was killed; this one begins when it has ended")
            told = True
        time.sleep(0.1)


def _holder(path: Path) -> tuple[str, str]:
    """Who holds a lock, and who has started that, as `quickstudy.system.processes.identity` names them, or ""."""
    lines = [*path.read_text(encoding="utf-8").splitlines(), "", ""]
    return lines[0], lines[1]


@contextlib.contextmanager
def holding(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Hold a lock. Where another process has it, call ``busy``, which may raise, and wait."""
    lock = FileLock(path, poll_interval=POLL_SECONDS)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        busy()
        held = lock.acquire()
    with held:
        yield


def _end_with_worker() -> None:
    """End this process when the worker that started it has ended: nobody could cancel it any more."""
    worker = os.getppid()

    def watch() -> None:
        while os.getppid() == worker:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(2 * GRACE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="worker", daemon=True).start()


def call(
    root: Path, name: str, command: Sequence[str], listen: Callable[[str], None], fine: Collection[int] = (0,)
) -> int:
    """Run a verb of the command line for a step; of what it prints only its progress goes on, not what to do next.

    Returns:
        its exit code, one of ``fine``.

    Raises:
        QuickstudyError: a mistake of the user's, in its line.
        versions.StageFailed: it ended with another code than ``fine``.
    """
    last = mistake = ""

    def keep(line: str) -> None:
        nonlocal last, mistake
        event = read_event(line)
        if event is None:
            last = line if line.strip() else last
        elif event["event"] == "progress":
            listen(line)
        elif event["event"] == "error":
            mistake = event["text"]

    code = stream(command, root, keep, asking())
    last = mistake or last or f"exit code {code}"
    if code == 2:
        raise QuickstudyError(last)
    if code not in fine:
        raise StageFailed(name, last, killed=code < 0)
    return code


def main(flow: Callable[[], Any]) -> int:
    """Run a flow as a process of its own and return its exit code; a bug leaves its traceback."""
    try:
        flow()
    except KeyboardInterrupt as error:
        return fail(error)
    except Exception as error:
        code = fail(error)
        if code == 1:
            print(redacted(traceback.format_exc()), file=sys.stderr)
        return code
    return 0


def fail(error: BaseException) -> int:
    """Tell what ended a flow in one line and return the exit code of its process: 2 for a user's mistake."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, RuntimeError) and "Failed to reach API at" in str(error):
        error = QuickstudyError(
            "Prefect's server does not answer",
            where=os.environ.get("PREFECT_API_URL"),
            fix="Start it, or unset PREFECT_API_URL to run without one",
        )
    if isinstance(error, PrefectHTTPStatusError) and error.response.status_code in (401, 403):
        error = QuickstudyError(
            "Prefect's server refuses the login",
            where=os.environ.get("PREFECT_API_URL"),
            fix="Set PREFECT_API_AUTH_STRING to the server's user:password",
        )
    if isinstance(error, QuickstudyError):
        tell("error", text=str(error))
        print(f"quickstudy: {error}", file=sys.stderr)
        return 2
    what = f"{error}" if isinstance(error, StageFailed) else f"{type(error).__name__}: {error}"
    tell("crash", text=redacted(what))
    return 1
