"""Nothing of the project's listens beyond this machine, or asks for no password there, unless a person says so."""

import copy
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.golden.test_tiny_run import lay_out, run, start


def session_of(process: int) -> set[int]:
    """The processes that a process has started, and what those have."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, before = {process}, 0
    while len(found) > before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def listening(processes: set[int]) -> set[str]:
    """The addresses, in hex, at which processes listen."""
    sockets = set()
    for process in processes:
        for path in Path(f"/proc/{process}/fd").glob("*"):
            try:
                sockets.add(os.readlink(path))
            except OSError:
                continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found


LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_training_in_two_processes_listens_on_loopback_alone(tmp_path: Path, tiny_params: dict[str, Any]) -> None:
    params = copy.deepcopy(tiny_params)
    params["train"] |= {"steps": 60, "processes": 2, "tasks": {"image": 2, "audio": 2, "text": 0}}
    root = lay_out(tmp_path / "two", params)
    run(root, "tasks")
    training = start(root, "meta_train", "--kind", "classify")
    seen: set[str] = set()
    most = 0
    while training.poll() is None:
        processes = session_of(training.pid)
        most = max(most, len(processes))
        seen |= listening(processes)
        time.sleep(0.05)
    out, err = training.communicate()
    assert training.returncode == 0, (out, err)
    assert most > 3  # torchrun and its two, at least
    assert seen and seen <= LOOPBACK


def test_a_listener_of_any_address_would_be_seen() -> None:
    code = (
        "import socket, sys; s = socket.create_server(('0.0.0.0', 0)); print('listens', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "listens\n"
    try:
        assert listening({child.pid}) - LOOPBACK
    finally:
        child.communicate("")
