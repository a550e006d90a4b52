"""Kill -9 everything that retraining consists of, at every step, and count what does not come back whole.

    .venv/bin/python benchmarks/chaos.py [--kills 100] [--seed 0] [--stacks 2] [--folder DIR]

The machines of tests/toy/stack.py (`quickstudy up` in one clone, `quickstudy worker gpu` in another, a git repository
and a DVC remote between them) with real servers, workers and flows, and stages that learn nothing. A trial: a new file
in data/, which starts a retraining by itself; while that runs, three processes get SIGKILL, each at a random moment of
a step. `up` and the worker are started again, as systemd would; everything else has to come back by itself. When a
retraining with this data has completed, all of this must hold: the registered model has the digest of an unbroken run
of the same stages, there is exactly one version of it and it is the champion, the ledger is unbroken, SQLite finds both
databases whole, every file of the DVC caches and of the remote has the content that its name says, no run is left
unfinished and no process without a parent. Each trial leaves its log in the folder.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from serving import free_port

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY))

from tests.toy.stack import Stack  # noqa: E402

RECOVERY = 300.0  # seconds from the last kill to the end of a retraining, after which it counts as stuck
SETTLE = 120.0  # seconds until everything else has ended too
KILLS = 3  # in a trial

STEPS: dict[str, tuple[tuple[str, str, str] | None, float]] = {
    "new data": (None, 9.0),
    "data": (("home", "data", "start"), 1.0),
    "tasks": (("home", "tasks", "start"), 0.8),
    "hand-over": (("home", "meta_train", "start"), 8.0),
    "inputs": (("gpu", "inputs", "start"), 2.2),
    "meta_train": (("gpu", "meta_train", "start"), 2.6),
    "outputs": (("gpu", "outputs", "start"), 0.6),
    "hand-back": (("gpu", "outputs", "done"), 3.0),
    "evaluate": (("home", "evaluate", "start"), 0.8),
    "card": (("home", "card", "start"), 0.7),
    "register": (("home", "register", "start"), 3.0),
    "gate": (("home", "gate", "start"), 0.3),
    "move": (("home", "move", "start"), 0.6),
}
"""Step → what a flow tells when it begins (machine, step, state), and about how many seconds it takes. Of the hand-over
there are two: until the other machine begins, and from its end until what it made is here."""

ORDER = list(STEPS)
WATCH = ("start", "restart", "inbox")
ON_GPU = ("inputs", "meta_train", "outputs")
WITH_DVC = [step for step in ORDER if step not in ("register", "gate", "move")]

PROCESSES: dict[str, list[str]] = {
    "flow of retrain": [step for step in ORDER if step != "new data"],
    "flow of meta-train": list(ON_GPU),
    "flow of watch": ["new data"],
    "stage": ["tasks", "meta_train", "evaluate"],
    "dvc": WITH_DVC,
    "worker of cpu": ORDER,
    "worker of gpu": ORDER,
    "keeper of that worker": ORDER,
    "Prefect's server": ORDER,
    "MLflow's server": ORDER,
    "quickstudy up": ORDER,
    "quickstudy worker": ORDER,
    "all on the gpu machine": ORDER,
    "all at home": ORDER,
    "both machines": ORDER,
}
"""What is killed → at which steps it can be."""

MACHINES = {
    "quickstudy up": ["home"],
    "quickstudy worker": ["gpu"],
    "all on the gpu machine": ["gpu"],
    "all at home": ["home"],
    "both machines": ["home", "gpu"],
}
"""What the script starts again: systemd, or a person who finds the machine off."""

TELL = """
import json as _json, os as _os, time as _time
from flows import telling as _telling
_tell = _telling.tell
def _note(event, **what):
    if event in ("start", "done"):
        with open({path!r}, "a") as file:
            machine = "gpu" if _os.environ["HOME"].endswith("gpu-home") else "home"
            told = {{"at": _time.time(), "machine": machine, "state": event, **what}}
            told["step"] = told["step"].partition("@")[0]  # the toy has one kind of task
            file.write(_json.dumps(told, default=str) + "\\n")
    _tell(event, **what)
_telling.tell = _note
"""
"""Added to the flows of the toy project: each step's begin and end into a file, to the millisecond."""


@dataclass
class Kill:
    """One: what was asked for, and what happened."""

    step: str
    process: str
    found: int = 0
    during: str = ""
    """the step that was under way"""
    at: float = 0.0


@dataclass
class Process:
    pid: int
    parent: int
    machine: str
    command: list[str]
    folder: str


@dataclass
class Trial:
    number: int
    kills: list[Kill]
    problems: list[str] = field(default_factory=list)
    recovery: float = 0.0
    runs: list[str] = field(default_factory=list)


class Machines(Stack):
    """The stack, and what the chaos does to it and asks of it."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        super().__init__(folder)
        MADE.append(self)
        self.events = folder / "events.jsonl"
        self.events.touch()
        with (self.home / "flows/__init__.py").open("a") as file:
            file.write(TELL.format(path=str(self.events)))
        (self.home / "answer").write_text("PROMOTE")
        self.commit("steps are told, the gate says yes")
        (self.home / "data/slow").write_text("0.7")
        self.ports = [free_port(), free_port()]
        self.digests: dict[str, str] = {}
        """version of the data → the model's digest that an unbroken run gives"""

    def environment(self, machine: str) -> dict[str, str]:
        own = self.folder / f"{machine}-tmp"  # with the lock of its GPU
        own.mkdir(exist_ok=True)
        return super().environment(machine) | {"TMPDIR": str(own)}

    # ---- as systemd does

    def start(self, gpu: bool = True) -> None:
        up = self._start(
            "home", "up", "--no-gpu", "--prefect-port", str(self.ports[0]), "--mlflow-port", str(self.ports[1])
        )
        self.wait(lambda: "Ctrl-C" in self.said("home") or up.poll() is not None, 180)
        if up.poll() is not None:
            raise AssertionError(f"up ended: {self.said('home')}")
        served = json.loads((self.home / ".cache/up.json").read_text())
        if self.api not in ("", served["prefect"]):
            raise AssertionError(f"up came back at {served['prefect']}, not at {self.api}")
        self.api, self.mlflow = served["prefect"], served["mlflow"]
        if gpu:
            self.start_gpu()

    def start_gpu(self) -> None:
        servers = {"PREFECT_API_URL": self.api, "MLFLOW_TRACKING_URI": self.mlflow}
        self._start("gpu", "worker", "gpu", **servers, QUICKSTUDY_LOGIN=self.login())

    def begin(self) -> None:
        """Start all, and let the first model be made."""
        self.start()
        first = self.new_data(0)
        self.wait(lambda: any(run["state"]["type"] == "COMPLETED" for run in self.retrainings(first)), 2 * RECOVERY)

    def end(self) -> None:
        while found := self.alive():
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        for started in self.processes.values():
            started.wait()

    def revive(self) -> None:
        """Start again what has ended."""
        for machine, again in (("home", lambda: self.start(gpu=False)), ("gpu", self.start_gpu)):
            if self.processes[machine].poll() is not None:
                again()

    # ---- processes

    def alive(self) -> list[Process]:
        """All processes of both machines, told by the HOME in their environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "environ").read_bytes().split(b"\0")
                home = next((word[5:].decode() for word in words if word.startswith(b"HOME=")), "")
                if not home.startswith(f"{self.folder}/"):
                    continue
                state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (path / "cmdline").read_text(errors="replace").split("\0")[:-1]
                folder = os.readlink(path / "cwd")
            except OSError:
                continue
            if state != "Z":
                machine = home.removeprefix(f"{self.folder}/").removesuffix("-home")
                found.append(Process(int(path.name), int(parent), machine, command, folder))
        return found

    def is_off(self, machine: str) -> bool:
        return not any(process.machine == machine for process in self.alive())

    def find(self, kind: str) -> list[Process]:
        found = self.alive()
        if kind in ("all on the gpu machine", "all at home", "both machines"):
            return [process for process in found if process.machine in MACHINES[kind]]
        home = str(self.home)

        def is_it(process: Process) -> bool:
            text, keeper = " ".join(process.command), any(w.endswith("processes.py") for w in process.command)
            engine = "prefect.engine" in text or "prefect.flow_engine" in text
            match kind:
                case "flow of retrain":
                    return engine and process.folder.startswith(f"{home}/.cache/workspaces/retrain")
                case "flow of watch":
                    return engine and process.machine == "home" and "/workspaces/" not in process.folder
                case "flow of meta-train":
                    return engine and process.machine == "gpu"
                case "stage":
                    return process.command[1:2] == ["stage.py"]
                case "dvc":
                    return "-m dvc" in text and not keeper
                case "worker of cpu" | "worker of gpu":
                    return f"worker start --pool {kind[-3:]}" in text and not keeper
                case "keeper of that worker":
                    return keeper and "worker start --pool gpu" in text
                case "Prefect's server":
                    return not keeper and "flows.guarded" in text
                case "MLflow's server":
                    return not keeper and "quickstudy.registry.guarded" in text
                case "quickstudy up":
                    return "quickstudy up" in text
                case "quickstudy worker":
                    return "quickstudy worker" in text
            raise AssertionError(kind)

        return [process for process in found if is_it(process)]

    def kill(self, kind: str, rng: random.Random) -> int:
        """SIGKILL; how many processes got it. What has to be started again is, when the rest of it is gone."""
        found: list[Process] = []
        deadline = time.monotonic() + (12 if kind == "flow of watch" else 2.5)
        while not (found := self.find(kind)) and time.monotonic() < deadline:
            time.sleep(0.04)
        if kind not in ("all on the gpu machine", "all at home", "both machines"):
            found = [rng.choice(found)] if found else []
        killed = 0
        for _ in range(20 if len(found) > 1 else 1):  # what is being born at this moment dies too
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                    killed += 1
            found = self.find(kind) if kind in MACHINES and "quickstudy" not in kind else []
        return killed

    def start_again(self, kind: str) -> list[str]:
        """What systemd does after that kill; what is wrong about it."""
        wrong = []
        for machine in MACHINES.get(kind, []):
            self.processes[machine].wait()
            if not until(partial(self.is_off, machine), 30):
                wrong.append(f"left over at {machine}: {[p.command for p in self.alive() if p.machine == machine]}")
        if MACHINES.get(kind):
            self.revive()
        return wrong

    # ---- what is told

    def told(self, since: int = 0) -> list[dict[str, Any]]:
        with self.events.open() as file:
            file.seek(since)
            lines = file.read().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]  # not one cut off

    def under_way(self, since: int) -> str:
        """The step that is under way, by what was told last."""
        step = "new data"
        for event in self.told(since):
            if event["step"] in WATCH:
                continue
            if event["machine"] == "gpu":
                after = {"inputs": "meta_train", "meta_train": "outputs", "outputs": "hand-back"}
                step = event["step"] if event["state"] == "start" else after[event["step"]]
            elif event["step"] == "meta_train":
                step = "hand-over" if event["state"] == "start" else "evaluate"
            elif event["state"] == "start" or event["step"] == "move":
                step = event["step"]
            else:
                following = ORDER.index(event["step"]) + 1
                step = ORDER[following]
        return step

    def ask(self, path: str, body: Any) -> Any:
        """As `post`; None where the server does not answer now."""
        try:
            return self.post(path, body)
        except (OSError, ValueError, AssertionError):
            return None

    def retrainings(self, version: str) -> list[dict[str, Any]]:
        body = {"flows": {"name": {"any_": ["retrain"]}}, "flow_runs": {"tags": {"all_": [f"data:{version[:12]}"]}}}
        return list(self.ask("/flow_runs/filter", body) or [])

    def unfinished(self) -> list[str] | None:
        states = {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]}}
        found = self.ask("/flow_runs/filter", {"flow_runs": {"state": states}})
        if found is None:
            return None
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 5))
        return [
            f"{run['name']} {run['state']['name']} {run['tags']}"
            for run in found
            if not (run["state"]["name"] == "Scheduled" and run["expected_start_time"] > now)
        ]

    # ---- data

    def new_data(self, number: int) -> str:
        """A new file in data/; the version that data/ has with it, and what comes out is in `digests`."""
        made = self.folder / "new.txt"
        made.write_text(f"{self.folder.name} {number}\n")
        made.rename(self.home / f"data/new-{number:03d}.txt")
        files = [{"md5": md5(path), "relpath": path.name} for path in sorted((self.home / "data").iterdir())]
        version = hashlib.md5(json.dumps(files, sort_keys=True).encode()).hexdigest() + ".dir"
        with tempfile.TemporaryDirectory() as folder:
            for name in ("stage.py", "params.yaml"):
                shutil.copy(self.home / name, folder)
            shutil.copytree(self.home / "data", f"{folder}/data")
            for stage in ("tasks", "meta_train"):
                subprocess.run([sys.executable, "stage.py", stage], cwd=folder, check=True, capture_output=True)
            self.digests[version] = sha256(Path(folder, "build/model/classify/model.safetensors"))
        return version

    # ---- what must hold

    def faults(self, version: str) -> list[str]:
        """What is broken, after a retraining with this data has completed."""
        found: list[str] = []
        if not until(lambda: self.unfinished() == [], SETTLE):
            found.append(f"unfinished runs: {self.unfinished()}")
        orphans = lambda: without_parent(self.alive(), {p.pid for p in self.processes.values()})  # noqa: E731
        if not until(lambda: not orphans(), 30):
            found.append(f"processes without a parent: {[p.command for p in orphans()]}")
        found += self.registry_faults(version)
        code, out, err = self.quickstudy("history")
        if code != 0 or "broken" in out.lower() or "@champion" not in out:
            found.append(f"history: {code} {out} {err}")
        for database in (self.home / "mlruns/mlflow.db", self.home / ".prefect/prefect.db"):
            with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60) as connection:
                if (said := connection.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
                    found.append(f"{database.name}: {said}")
        for cache in (self.home / ".dvc/cache", self.gpu / ".dvc/cache", self.folder / "remote"):
            for path in (cache / "files/md5").rglob("*"):
                name = path.parent.name + path.name.removesuffix(".dir")
                if path.is_file() and re.fullmatch(r"[0-9a-f]{32}", name) and md5(path) != name:
                    found.append(f"{path} has another content")
        return found

    def registry_faults(self, version: str) -> list[str]:
        found = []
        versions = self.versions()
        for data, digest in self.digests.items():
            same = [v for v in versions if v["digest"] == digest]
            if len(same) != 1:
                found.append(f"{len(same)} versions of the model of data {data[:8]}")
            found += [f"version {v['version']} names data {v['data']}" for v in same if v["data"] != data]
        found += [
            f"version {v['version']} has a digest that no unbroken run gives"
            for v in versions
            if v["digest"] not in self.digests.values()
        ]
        champion = [v for v in versions if v["digest"] == self.digests[version] and "champion" in v["aliases"]]
        if not champion:
            found.append(f"the new model is not the champion: {[(v['version'], v['aliases']) for v in versions[-3:]]}")
        return found

    def versions(self) -> list[dict[str, Any]]:
        """Versions in MLflow, each with the digest of the file that is really there."""
        with sqlite3.connect(f"file:{self.home / 'mlruns/mlflow.db'}?mode=ro", uri=True, timeout=60) as connection:
            rows = connection.execute(
                "SELECT v.version, v.storage_location, t.value FROM model_versions v LEFT JOIN model_version_tags t "
                "ON t.name = v.name AND t.version = v.version AND t.key = 'data_hash' "
                "WHERE v.name = 'quickstudy' AND v.current_stage != 'Deleted_Internal' ORDER BY v.version"
            ).fetchall()
            aliases = connection.execute(
                "SELECT version, alias FROM registered_model_aliases WHERE name = 'quickstudy'"
            ).fetchall()
        found = []
        for number, where, data in rows:
            place = re.sub(r"^(mlflow-artifacts:|file:)/*", "/", str(where))
            folder = Path(place) if Path(place).exists() else self.home / "mlruns/artifacts" / place.lstrip("/")
            files = sorted(folder.rglob("model.safetensors"))
            found.append(
                {
                    "version": number,
                    "data": data,
                    "digest": sha256(files[0]) if len(files) == 1 else f"{len(files)} files in {folder}",
                    "aliases": [alias for version, alias in aliases if int(version) == number],
                }
            )
        return found


MADE: list[Machines] = []


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def until(what: Callable[[], Any], seconds: float, pause: float = 1.0) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True


def without_parent(processes: list[Process], roots: set[int]) -> list[Process]:
    """Those that do not descend from what was started."""
    parents = {process.pid: process.parent for process in processes}

    def belongs(pid: int) -> bool:
        while pid in parents and pid not in roots:
            pid = parents[pid]
        return pid in roots

    return [process for process in processes if not belongs(process.pid)]


def plan(seed: int) -> Iterator[list[Kill]]:
    """The kills of each trial: every process in turn, at the step that had the fewest so far."""
    rng, had = random.Random(seed), Counter[str]()
    turn: list[str] = []
    while True:
        chosen: list[Kill] = []
        while len(chosen) < KILLS:
            taken = {kill.step for kill in chosen}
            if not any(set(PROCESSES[process]) - taken for process in turn):
                turn = rng.sample(list(PROCESSES), len(PROCESSES)) + turn
            process = next(process for process in reversed(turn) if set(PROCESSES[process]) - taken)
            turn.remove(process)
            free = [step for step in PROCESSES[process] if step not in taken]
            step = min(free, key=lambda step: (had[step], rng.random()))
            had[step] += 1
            chosen.append(Kill(step, process))
        yield sorted(chosen, key=lambda kill: ORDER.index(kill.step))


def run_trial(machines: Machines, trial: Trial, rng: random.Random, log: Callable[[str], None]) -> None:
    """New data, the kills, the end of the retraining, and what then holds."""
    start = mark = machines.events.stat().st_size
    version = machines.new_data(trial.number)
    log(f"data version {version}, model {machines.digests[version][:12]}")

    def completed() -> bool:
        machines.revive()
        return any(run["state"]["type"] == "COMPLETED" for run in machines.retrainings(version))

    for kill in trial.kills:
        begins, seconds = STEPS[kill.step]
        delay = rng.uniform(0, seconds)
        deadline, looked = time.monotonic() + RECOVERY, time.monotonic()
        reached = begins is None
        while not reached and time.monotonic() < deadline:
            reached = any((e["machine"], e["step"], e["state"]) == begins for e in machines.told(mark))
            if not reached and time.monotonic() - looked > 3:
                looked = time.monotonic()
                if completed():
                    break
            time.sleep(0.05)
        if not reached:
            log(f"{kill.step} was not reached for {kill.process}")
            continue
        time.sleep(delay)
        kill.during, kill.at = machines.under_way(start), time.time()
        mark = machines.events.stat().st_size
        kill.found = machines.kill(kill.process, rng)
        log(f"killed {kill.found} of {kill.process} during {kill.during} ({delay:.2f} s into {kill.step})")
        trial.problems += machines.start_again(kill.process) if kill.found else []
    last = time.monotonic()
    if until(completed, RECOVERY, 2):
        trial.recovery = time.monotonic() - last
        log(f"completed {trial.recovery:.0f} s after the last kill")
        trial.problems += machines.faults(version)
    else:
        trial.problems.append("stuck: no retraining with this data has completed")
    for run in sorted(machines.retrainings(version), key=lambda run: run["created"]):
        trial.runs.append(f"{run['name']} {run['state']['name']}: {(run['state']['message'] or '')[:300]}")


class Log:
    def __init__(self, path: Path):
        self.path, self.start = path, time.monotonic()

    def __call__(self, line: str) -> None:
        with self.path.open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S', time.gmtime())} {time.monotonic() - self.start:6.1f} {line}\n")


def campaign(folder: Path, seed: int, share: int, keep: Callable[[Trial], None], stop: threading.Event) -> None:
    """Trials on machines of their own until there were so many kills. Machines on which one failed are replaced."""
    rng, plans, number, killed, machines = random.Random(seed), plan(seed), 0, 0, None
    try:
        while killed < share and not stop.is_set():
            number += 1
            log = Log(folder / f"trial-{seed}-{number:03d}.log")
            trial = Trial(number, next(plans))
            log(", ".join(f"{kill.process} at {kill.step}" for kill in trial.kills))
            try:
                if machines is None:
                    machines = Machines(folder / f"machines-{seed}-{number:03d}")
                    machines.begin()
                run_trial(machines, trial, rng, log)
            except Exception as error:  # whatever it is, it counts
                trial.problems.append(f"{type(error).__name__}: {error}"[:3000])
                log(traceback.format_exc())
            killed += sum(bool(kill.found) for kill in trial.kills)
            for line in (*trial.runs, *(f"PROBLEM {problem}" for problem in trial.problems)):
                log(line)
            keep(trial)
            if trial.problems and machines is not None:
                log(machines.logs())
                machines.end()
                machines = None
    finally:
        if machines is not None:
            machines.end()


def result(trials: list[Trial], seed: int, seconds: float) -> dict[str, Any]:
    kills = [(kill, trial) for trial in trials for kill in trial.kills if kill.found]
    table: dict[str, dict[str, list[int]]] = {}
    for kill, trial in kills:
        cell = table.setdefault(kill.process, {}).setdefault(kill.during, [0, 0])
        cell[0] += 1
        cell[1] += not trial.problems
    recovery = sorted(trial.recovery for trial in trials if trial.recovery)
    return {
        "kills": len(kills),
        "recovered": sum(not trial.problems for _, trial in kills),
        "trials": len(trials),
        "broken": [f"trial {trial.number}: {problem}"[:600] for trial in trials for problem in trial.problems],
        "aimed at a process that was not there": sum(not kill.found for trial in trials for kill in trial.kills),
        "seconds from the last kill to the end, median": round(recovery[len(recovery) // 2]) if recovery else None,
        "seconds from the last kill to the end, longest": round(recovery[-1]) if recovery else None,
        "seed": seed,
        "seconds": round(seconds),
        "process -> step -> [kills, recovered]": table,
    }


def print_table(shown: dict[str, Any]) -> None:
    table = shown["process -> step -> [kills, recovered]"]
    print("| killed | " + " | ".join(ORDER) + " | all | recovered |")
    print("|---|" + "--:|" * (len(ORDER) + 2))
    for process in PROCESSES:
        cells = table.get(process, {})
        row = [str(cells[step][0]) if step in cells else "" for step in ORDER]
        sums = [sum(cell[i] for cell in cells.values()) for i in (0, 1)]
        print(f"| {process} | {' | '.join(row)} | {sums[0]} | {sums[1]} |")
    of_steps = [sum(cells.get(step, [0])[0] for cells in table.values()) for step in ORDER]
    print(f"| all | {' | '.join(map(str, of_steps))} | {shown['kills']} | {shown['recovered']} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stacks", type=int, default=2, help="sets of machines side by side, as they mostly wait")
    parser.add_argument("--folder", type=Path, help="for the machines and the logs, kept; by default a temporary one")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/chaos.json")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    trials: list[Trial] = []

    def leave(*_: object) -> None:
        for machines in MADE:
            machines.end()
        os._exit(130)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    start, lock, stop = time.monotonic(), threading.Lock(), threading.Event()

    def keep(trial: Trial) -> None:
        with lock:
            trials.append(trial)
            shown = result(trials, asked.seed, time.monotonic() - start)
            asked.out.write_text(json.dumps(shown, indent=1) + "\n")
            kills = ", ".join(f"{k.process} during {k.during}" if k.found else f"({k.process})" for k in trial.kills)
            state = "; ".join(trial.problems)[:200] or f"whole after {trial.recovery:.0f} s"
            print(f"{shown['kills']:4} {kills}: {state}", flush=True)

    with ThreadPoolExecutor(asked.stacks) as pool:
        share = -(-asked.kills // asked.stacks)
        seeds = [asked.seed + 1000 * number for number in range(asked.stacks)]
        going = [pool.submit(campaign, folder, seed, share, keep, stop) for seed in seeds]
        try:
            for one in going:
                one.result()
        except BaseException:
            stop.set()
            raise
    shown = json.loads(asked.out.read_text())
    print_table(shown)
    print(f"{shown['recovered']} of {shown['kills']} kills recovered, {len(shown['broken'])} faults; logs in {folder}")
    print(*shown["broken"], sep="\n")
    return bool(shown["broken"])


if __name__ == "__main__":
    sys.exit(main())
