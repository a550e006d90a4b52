import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from quickstudy.system import processes


def wait_until(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


# Writes the ids of a child of its own, to which a shell lets no interrupt come, and of itself; then waits.
FAMILY = [
    "sh",
    "-c",
    f'"{sys.executable}" -c "import time; time.sleep(100)" & echo $! >> pids; echo $$ >> pids; echo ready; wait',
]


def pids(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "pids").read_text().split()]


def test_lines_of_both_streams_and_the_exit_code(tmp_path: Path) -> None:
    lines: list[str] = []
    code = processes.stream(["sh", "-c", "echo one; echo two >&2; exit 3"], tmp_path, lines.append)
    assert (code, sorted(lines)) == (3, ["one", "two"])


def test_an_end_by_a_signal_is_seen(tmp_path: Path) -> None:
    assert processes.stream(["sh", "-c", "kill -9 $$"], tmp_path, print) == -signal.SIGKILL


def test_the_virtual_environment_is_first_on_the_path(tmp_path: Path) -> None:
    lines: list[str] = []
    processes.stream(["sh", "-c", "command -v quickstudy"], tmp_path, lines.append)
    assert lines == [str(Path(sys.executable).parent / "quickstudy")]


def test_a_keeper_that_is_killed_leaves_nobody_behind(tmp_path: Path) -> None:
    process = processes.start(FAMILY, tmp_path, stdout=subprocess.DEVNULL)
    assert wait_until(lambda: (tmp_path / "pids").exists() and len(pids(tmp_path)) == 2)
    process.kill()
    assert processes.stop(process) == -signal.SIGKILL
    assert wait_until(lambda: not any(alive(pid) for pid in pids(tmp_path)))


def test_an_exception_in_the_listener_ends_the_whole_family(tmp_path: Path) -> None:
    def refuse(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.stream(FAMILY, tmp_path, refuse)
    assert wait_until(lambda: not any(map(alive, pids(tmp_path))))


def test_the_family_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from quickstudy.system import processes; "
        f"processes.stream({FAMILY!r}, Path('.'), print)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert wait_until(lambda: (tmp_path / "pids").exists() and len(pids(tmp_path)) == 2)
    assert all(map(alive, pids(tmp_path)))
    parent.kill()
    parent.communicate()
    assert wait_until(lambda: not any(map(alive, pids(tmp_path))))


def test_who_ignores_the_interrupt_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('ready', flush=True); time.sleep(100)"
    )
    process = processes.start([sys.executable, "-c", stubborn], tmp_path, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert processes.stop(process) == -signal.SIGKILL  # after the seconds of grace


def test_the_interrupt_can_go_to_the_command_alone(tmp_path: Path) -> None:
    script = (
        "import signal, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1); print(\"helper done\")'])\n"
        "try:\n"  # before it says so: the interrupt may come at once
        "  print('ready', flush=True)\n"
        "  signal.pause()\n"
        "except KeyboardInterrupt: sys.exit(child.wait())\n"
    )
    process = processes.start([sys.executable, "-c", script], tmp_path, interrupt="command", stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert processes.stop(process) == 0
    assert process.stdout.read() == "helper done\n"
