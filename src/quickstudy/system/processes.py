"""Child processes that never outlive the one that started them.

Killing a flow must not leave a trainer alive that goes on writing. A command runs under a small keeper (this file, as a
script) in a session of its own. The keeper's standard input is a pipe that nobody writes to: when the parent ends, for
whatever reason, kill -9 included, the pipe closes, and the keeper interrupts everything in its session, waits a little
for files to be closed and kills what is left. Unlike PR_SET_PDEATHSIG this reaches grandchildren, and macOS has it too.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

GRACE = 5.0  # seconds between the interrupt and the kill

STARTER = "QUICKSTUDY_STARTER"
"""The variable in which `start` tells a process which one has started it, as `identity` does."""


def start(
    command: Sequence[str],
    cwd: Path,
    env: Mapping[str, str] | None = None,
    interrupt: Literal["all", "command"] = "all",
    **popen: object,
) -> "subprocess.Popen[str]":
    """Start a command that ends when this process ends or ``stop`` is called. The virtual environment is first on PATH.

    Args:
        env: variables beside those of this process.
        interrupt: who gets it. "all", as from Ctrl-C on a terminal: DVC counts on the stage to get it as well.
            "command": it alone, so that it can still use its own helpers, as a flow does its temporary server.
        popen: where the output goes, as for subprocess.Popen.
    """
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {}), STARTER: identity()}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", os.defpath)))
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-I", "-S", __file__, interrupt, *command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        **popen,
    )


def identity(process: int | None = None) -> str:
    """Return what names a process, by default this one, for `is_gone` to ask about later, wherever that runs. Its
    number alone is given to another one after its end."""
    number = os.getpid() if process is None else process
    return " ".join((_machine(), _boot(), _numbering(), str(number), _started(number) or "-"))


def is_gone(identity: str) -> bool:
    """Return whether a process has certainly ended: it was one of this machine's, and its number now stands for another
    one or none. False where that cannot be known from here: another machine or container, or the name of no process."""
    try:
        machine, boot, numbering, number, started = identity.split()
        process = int(number)
    except ValueError:
        return False
    if boot != _boot():
        return "-" not in (boot, machine) and machine == _machine()  # the machine has started again
    if numbering != _numbering() or started == "-" or (boot == "-" and machine != _machine()):
        return False
    return _started(process) != started


def stop(process: "subprocess.Popen[str]") -> int:
    """Interrupt what ``start`` started, wait until all of it is gone and return its exit code."""
    assert process.stdin is not None
    process.stdin.close()
    code = process.wait()
    if code == -signal.SIGKILL:  # perhaps the keeper itself was killed, so that nobody has ended the rest
        _end_session(process.pid)
    return code


def stream(
    command: Sequence[str], cwd: Path, on_line: Callable[[str], None], env: Mapping[str, str] | None = None
) -> int:
    """Run a command to its end and hand over each line that it prints, stdout and stderr together.

    However this function is left (an exception in ``on_line``, Ctrl-C, a cancelled flow), the command is then gone.

    Returns:
        its exit code; minus the signal's number where a signal ended it.
    """
    process = start(command, cwd, env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            on_line(line.rstrip("\r\n"))
        return process.wait()
    finally:
        stop(process)
        process.stdout and process.stdout.close()


def _machine() -> str:
    import hashlib
    import socket

    try:
        number = Path("/etc/machine-id").read_text().strip()
    except OSError:
        number = ""
    # Its digest: it may be read by others, in MLflow.
    return hashlib.sha256(f"{socket.gethostname()}/{number}".encode()).hexdigest()[:16] if number else "-"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "-"


def _numbering() -> str:
    """The namespace that gives processes their numbers: each container has its own."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "-"


def _started(process: int) -> str | None:
    """When a process has begun, as text without blanks; None where there is none of this number, or it is a zombie."""
    if sys.platform != "linux":
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True).stdout
        return "-".join(found.split()) or None
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


def _end_session(session: int) -> None:
    found = [path.name for path in Path("/proc").glob("[0-9]*")]  # Linux; a container may have no ps
    if not found:
        found = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True).stdout.split()
    for process in map(int, found):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(process) == session:
                os.kill(process, signal.SIGKILL)


def die_with_parent() -> None:
    """Linux: end this process when the one that started it is killed, even where nobody is left to see that."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _keep(interrupt: str, command: Sequence[str]) -> int:
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=die_with_parent)

    def watch() -> None:
        while os.read(0, 1024):
            pass
        with contextlib.suppress(ProcessLookupError):
            os.kill(-child.pid if interrupt == "all" else child.pid, signal.SIGINT)
        deadline = time.monotonic() + GRACE
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        child.kill()

    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: no permission for a group without members
        os.killpg(child.pid, signal.SIGKILL)  # what it left behind
    return code


if __name__ == "__main__":
    code = _keep(sys.argv[1], sys.argv[2:])
    if code < 0:  # end the way the command ended, so that the parent sees it
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code)
