"""What a training costs: processor seconds and energy.

Energy comes from codecarbon, where it is installed, by its tracker that never calls anyone and writes no file. It reads
the counters of NVIDIA's and AMD's GPUs, and those of the processor where the kernel shows them (RAPL); where it does
not, as on most virtual machines, it estimates the processor's power from its load and the rated power of its model.
Memory is always an estimate. All of it is of the whole machine, whoever else works on it.
"""

import logging
import resource
from collections.abc import Mapping
from types import TracebackType
from typing import Any

Cost = Mapping[str, float]
"""cpu_seconds; and where they are known gpu_seconds and cpu_wh, gpu_wh, memory_wh (watt hours)"""


class Meter:
    """Reads what this process has cost since it was entered.

    Args:
        energy: of one process a machine alone, as energy is the machine's.
        gpu: whether this process holds a GPU, whose seconds then count, idle or not.
    """

    def __init__(self, energy: bool = True, gpu: bool = False):
        self._wanted, self._gpu = energy, gpu
        self._tracker: Any = None
        self._wh: dict[str, float] = {}
        self.measured = False
        """whether the processor's energy is read from its counters; otherwise it is an estimate"""

    def __enter__(self) -> "Meter":
        if self._wanted:
            self._start()
        self._began = _cpu_seconds()
        return self

    def read(self, wall: float = 0.0) -> dict[str, float]:
        """Args:
        wall: seconds of the clock, which a GPU was held for.
        """
        cost = {"cpu_seconds": _cpu_seconds() - self._began}
        if self._gpu:
            cost["gpu_seconds"] = wall
        if self._tracker is not None:
            self._tracker.flush()
            cost |= self._wh
        return cost

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tracker is not None:
            self._tracker.stop()

    def _start(self) -> None:
        logging.getLogger("codecarbon").disabled = True  # it tells its user what it cannot know, on every start
        try:
            from codecarbon import OfflineEmissionsTracker
            from codecarbon.core.cpu import is_rapl_available
            from codecarbon.output import BaseOutput
        except ImportError:
            return
        wh = self._wh

        class Keep(BaseOutput):
            def out(self, total: Any, delta: Any) -> None:
                wh.update(cpu_wh=1000 * total.cpu_energy, memory_wh=1000 * total.ram_energy)
                if total.gpu_count:
                    wh["gpu_wh"] = 1000 * total.gpu_energy

        tracker = OfflineEmissionsTracker(
            country_iso_code="FRA",  # of no matter: it is for the carbon, which is not asked for
            save_to_file=False,
            save_to_api=False,
            allow_multiple_runs=True,
            tracking_mode="machine",
            log_level="critical",
            output_handlers=[Keep()],
        )
        tracker.start()
        self._tracker, self.measured = tracker, is_rapl_available()


def added(one: Cost, other: Cost) -> dict[str, float]:
    """The costs of two runs, or of two processes, together."""
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


def _cpu_seconds() -> float:
    """Of this process and of the children that it has waited for, in its code and in the kernel's for it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
