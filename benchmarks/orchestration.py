"""What servers, workers, workspaces and the hand-over to another machine cost, beside the same stages called by hand.

    .venv/bin/python benchmarks/orchestration.py [--repeats 3] [--training 20]

Two clones on this machine as in the tests (tests/toy/stack.py): servers and a worker of the pool cpu in one, a worker
of gpu in the other, a DVC remote between them. The stages are those of tests/toy, which only write their files; the
training sleeps. By hand: `dvc repro` and the registration, in one process each, in a clone of its own. Every time is
from the command (or the press of Run on Prefect's page) to the end; medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.toy.project import TOY, add_flows, make_project
from tests.toy.stack import Stack

RESULT = Path(__file__).parent / "results/orchestration.json"
REGISTER = "import flows; from pathlib import Path; from quickstudy import registry; registry.register(Path.cwd())"


def by_hand(folder: Path, number: int, training: float) -> float:
    root = add_flows(make_project(folder / f"by-hand-{number}"))
    (root / "data/slow").write_text(str(training / 3))
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "data"], cwd=root, check=True)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=root, check=True, capture_output=True)
    subprocess.run([sys.executable, "-c", REGISTER], cwd=root, check=True, capture_output=True)
    return time.monotonic() - start


def deployed(stack: Stack, **parameters: str) -> float:
    start = time.monotonic()
    run = stack.run("retrain/retrain", **parameters)
    state, message = stack.ended(run, 600)
    assert state == "Completed", f"{state}: {message}\n{stack.log(run)}"
    return time.monotonic() - start


def with_new_data(stack: Stack, number: int, training: float, train_on: str) -> float:
    """A run whose every stage is stale, started by hand: the watch is slow on purpose."""
    (stack.home / "data/number.txt").write_text(f"{train_on} {number}\n")
    (stack.home / "data/slow").write_text(str(training / 3))
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "data"], cwd=stack.home, check=True)
    return deployed(stack, train_on=train_on)


def noticed(stack: Stack, number: int) -> float:
    """From a change of data/ to the begin of the run that it starts."""
    seen = {run["id"] for run in stack.runs("retrain")}
    start = time.monotonic()
    (stack.home / "data/noticed.txt").write_text(f"{number}\n")

    def begun() -> bool:
        return any(run["id"] not in seen and run["state"]["name"] == "Running" for run in stack.runs("retrain"))

    stack.wait(begun, 120)
    took = time.monotonic() - start
    for run in stack.runs("retrain"):
        if run["id"] not in seen:
            stack.ended(run["id"], 600)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--training", type=float, default=20, help="seconds of the training that does nothing")
    asked = parser.parse_args()
    assert TOY.is_dir()

    def median(what: Callable[[int], float]) -> list[float]:
        return [round(what(number), 1) for number in range(asked.repeats)]

    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="orchestration-") as scratch:
        folder = Path(scratch)
        found["by hand"] = median(lambda number: by_hand(folder, number, asked.training))
        stack = Stack(folder / "machines", every=600)
        try:
            stack.start()
            stack.wait(lambda: stack.runs("retrain"), 120)
            stack.ended(stack.runs("retrain")[0]["id"], 600)
            found["deployed"] = median(lambda number: with_new_data(stack, number, asked.training, "here"))
            found["trained elsewhere"] = median(lambda number: with_new_data(stack, number, asked.training, "gpu"))
            found["nothing to do"] = median(lambda number: deployed(stack))
            stack.settings(watch={"every": 5})  # as params.yaml has it
            stack.stop("home")
            stack.start(gpu=False)
            found["change to begin"] = median(lambda number: noticed(stack, number))
        finally:
            stack.stop()
    base = statistics.median(found["by hand"])
    print(f"{'':<20}{'median s':>10}{'more than by hand':>20}   each")
    for name, times in found.items():
        middle = statistics.median(times)
        more = f"{middle - base:+.1f} s" if name in ("deployed", "trained elsewhere") else ""
        print(f"{name:<20}{middle:>10.1f}{more:>20}   {', '.join(map(str, times))}")
    RESULT.write_text(json.dumps({"training": asked.training, "seconds": found}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
