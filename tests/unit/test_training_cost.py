"""Processor seconds and energy: what is counted, what stays silent where codecarbon is absent, what a resume keeps."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest

from quickstudy.training.cost import Meter, added


class Tracker:
    """Stands for codecarbon's: what it was asked for, and a watt hour each time that it is read."""

    asked: ClassVar[dict] = {}
    running = 0

    def __init__(self, **asked):
        Tracker.asked = asked
        self.read = 0

    def start(self) -> None:
        Tracker.running += 1

    def flush(self) -> None:
        self.read += 1
        told = SimpleNamespace(
            cpu_energy=0.001 * self.read,
            ram_energy=0.0005 * self.read,
            gpu_energy=0.004 * self.read,
            gpu_count=self.gpus,
        )
        for handler in self.asked["output_handlers"]:
            handler.out(told, told)

    def stop(self) -> None:
        Tracker.running -= 1

    gpus = 0


@pytest.fixture
def codecarbon(monkeypatch: pytest.MonkeyPatch) -> type[Tracker]:
    package, core, cpu, output = (ModuleType(f"codecarbon{name}") for name in ("", ".core", ".core.cpu", ".output"))
    package.OfflineEmissionsTracker = Tracker  # type: ignore[attr-defined]
    cpu.is_rapl_available = lambda: True  # type: ignore[attr-defined]
    output.BaseOutput = object  # type: ignore[attr-defined]
    for module in (package, core, cpu, output):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(Tracker, "gpus", 0)
    return Tracker


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_processor_seconds_count_work_and_not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "codecarbon", None)  # as where it is not installed
    with Meter() as meter:
        time.sleep(0.3)
        burn(0.2)
        subprocess.run([sys.executable, "-c", "sum(i * i for i in range(2_000_000))"], check=True)
        cost = meter.read()
    assert set(cost) == {"cpu_seconds"} and cost["cpu_seconds"] > 0.22
    with Meter() as meter:
        time.sleep(0.3)
        idle = meter.read()["cpu_seconds"]
    assert idle < 0.2 < cost["cpu_seconds"]


def test_energy_is_asked_for_offline_and_without_files(codecarbon: type[Tracker]) -> None:
    with Meter() as meter:
        assert codecarbon.running == 1
        first, second = meter.read(), meter.read()
    assert codecarbon.running == 0 and meter.measured
    assert codecarbon.asked["save_to_file"] is codecarbon.asked["save_to_api"] is False
    assert (first["cpu_wh"], first["memory_wh"]) == (1.0, 0.5) and second["cpu_wh"] == 2.0 and "gpu_wh" not in second


def test_a_gpu_counts_while_it_is_held(codecarbon: type[Tracker]) -> None:
    codecarbon.gpus = 1
    with Meter(gpu=True) as meter:
        cost = meter.read(12.5)
    assert (cost["gpu_seconds"], cost["gpu_wh"]) == (12.5, 4.0)


def test_one_process_a_machine_reads_its_energy(codecarbon: type[Tracker]) -> None:
    with Meter(energy=False) as meter:
        assert codecarbon.running == 0 and set(meter.read()) == {"cpu_seconds"}


def test_an_error_in_between_stops_the_tracker(codecarbon: type[Tracker]) -> None:
    with pytest.raises(RuntimeError), Meter():
        raise RuntimeError
    assert codecarbon.running == 0


def test_costs_add_up_by_name() -> None:
    assert added({"a": 1, "b": 2}, {"b": 3, "c": 4}) == {"a": 1, "b": 5, "c": 4}


def test_the_real_codecarbon_calls_nobody_and_leaves_no_file(tmp_path: Path) -> None:
    pytest.importorskip("codecarbon")
    code = textwrap.dedent(
        """
        import json, socket, sys, tempfile, os
        calls = []
        socket.socket.connect = lambda self, address: calls.append(str(address))
        from quickstudy.training.cost import Meter
        with Meter() as meter:
            sum(i * i for i in range(3_000_000))
            cost = meter.read()
        print(json.dumps([calls, cost, meter.measured]))
        """
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": ":".join(sys.path),
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    calls, cost, _ = json.loads(done.stdout)
    assert calls == [] and cost["cpu_wh"] > 0 and done.stderr == ""
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
