"""A team's machines in miniature: a clone with the servers and a worker of the pool cpu, and another clone, with a HOME
and a DVC cache of its own, with a worker of the pool gpu. Between them a git repository and a DVC remote."""

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from quickstudy.runs.api import request
from quickstudy.system import logins
from tests.toy.project import add_flows, make_project, run_git

CANARIES = {
    "AWS_SECRET_ACCESS_KEY": "canary-of-the-environment-7d1f",
    "password": "canary-of-the-dvc-remote-52ab",
    "block": "canary-of-a-prefect-block-c03e",
}
"""Secrets, by where they are: a variable of the machines, the settings of a DVC remote, a block of Prefect's."""

QUICKSTUDY = str(Path(sys.executable).parent / "quickstudy")


class Stack:
    """The machines; `start` and `stop` them.

    Attributes:
        home: the clone with the servers.
        gpu: the other one.
        api: the address of Prefect's API.
    """

    def __init__(self, folder: Path, every: float = 1.0):
        self.folder, self.home, self.gpu = folder, folder / "home", folder / "gpu"
        self.api = self.mlflow = ""
        self.processes: dict[str, subprocess.Popen[str]] = {}
        make_project(self.home)
        add_flows(self.home)
        self.settings(watch={"every": every}, runs={"schedule": None})
        with (self.home / ".dvc/config").open("a") as file:
            file.write(f"    remote = shared\n['remote \"shared\"']\n    url = {folder / 'remote'}\n")
        run_git(folder, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
        run_git(self.home, "remote", "add", "origin", str(folder / "origin.git"))
        self.commit("the machines")
        run_git(folder, "clone", "--quiet", str(folder / "origin.git"), "gpu")
        for clone in (self.home, self.gpu):
            secret = f"['remote \"other\"']\n    url = webdavs://127.0.0.1:9/x\n    password = {CANARIES['password']}\n"
            (clone / ".dvc/config.local").write_text(secret)

    def settings(self, **sections: dict[str, Any]) -> None:
        """Change params.yaml in the clone with the servers."""
        path = self.home / "params.yaml"
        values = yaml.safe_load(path.read_text())
        for name, section in sections.items():
            values[name] |= section
        path.write_text(yaml.safe_dump(values, sort_keys=False))

    def commit(self, message: str, push: bool = True) -> str:
        """Commit all that git sees in the clone with the servers."""
        run_git(self.home, "add", "--all")
        run_git(self.home, "commit", "--quiet", "--allow-empty", f"--message={message}")
        if push:
            run_git(self.home, "push", "--quiet", "origin", "main")
        return run_git(self.home, "rev-parse", "HEAD").strip()

    def environment(self, machine: str) -> dict[str, str]:
        hidden = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PREFECT_HOME", "MLFLOW_REGISTRY_URI", *logins.PREFECT)
        env = {name: value for name, value in os.environ.items() if name not in hidden}
        (self.folder / f"{machine}-home").mkdir(exist_ok=True)
        env["AWS_SECRET_ACCESS_KEY"] = CANARIES["AWS_SECRET_ACCESS_KEY"]
        return env | {"HOME": str(self.folder / f"{machine}-home"), "COLUMNS": "160"}

    def start(self, gpu: bool = True) -> None:
        """`quickstudy up` in the one clone, `quickstudy worker gpu` in the other."""
        up = self._start("home", "up", "--no-gpu", "--prefect-port", "0", "--mlflow-port", "0")
        self.wait(lambda: "Ctrl-C" in self.said("home"), 120, lambda: f"{up.poll()}: {self.said('home')}")
        served = json.loads((self.home / ".cache/up.json").read_text())
        self.api, self.mlflow = served["prefect"], served["mlflow"]
        self._keep_a_secret()
        if gpu:
            self.start_gpu()

    def _keep_a_secret(self) -> None:
        kind = self.get("/block_types/slug/secret")["id"]
        schema = self.post("/block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})[0]["id"]
        block: dict[str, Any] = {"name": "canary", "block_type_id": kind, "block_schema_id": schema}
        block["data"] = {"value": CANARIES["block"]}
        with contextlib.suppress(urllib.error.HTTPError):  # it is there since the last start
            self.post("/block_documents/", block)

    def start_gpu(self) -> None:
        servers = {"PREFECT_API_URL": self.api, "MLFLOW_TRACKING_URI": self.mlflow}
        self._start("gpu", "worker", "gpu", **servers, QUICKSTUDY_LOGIN=self.login())
        self.wait(lambda: bool(self.online("gpu")), 60, lambda: self.said("gpu"))

    def _start(self, machine: str, *arguments: str, **env: str) -> "subprocess.Popen[str]":
        with (self.folder / f"{machine}.out").open("w") as out:
            self.processes[machine] = subprocess.Popen(
                [QUICKSTUDY, *arguments],
                cwd=self.folder / machine,
                env=self.environment(machine) | env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )
        return self.processes[machine]

    def said(self, machine: str) -> str:
        """What the command of a machine has printed."""
        return (self.folder / f"{machine}.out").read_text()

    def logs(self) -> str:
        return "\n".join(path.read_text(errors="replace")[-6000:] for path in self.folder.glob("*/.cache/*.log"))

    def stop(self, *machines: str) -> None:
        """As by Ctrl-C."""
        for machine in machines or ("gpu", "home"):
            process = self.processes.pop(machine, None)
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)

    # ---- what people do

    def deploy(self) -> None:
        """As `quickstudy up` does, with the settings as they are now."""
        env = self.environment("home") | {"PREFECT_API_URL": self.api}
        subprocess.run([sys.executable, "-m", "flows.deploy"], cwd=self.home, env=env, check=True)

    def quickstudy(self, *arguments: str) -> tuple[int, str, str]:
        """The command line in the clone with the servers: exit code, stdout, stderr."""
        done = subprocess.run(
            [QUICKSTUDY, *arguments], cwd=self.home, env=self.environment("home"), capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    def run(self, deployment: str, **parameters: Any) -> str:
        """Press Run; the run's id."""
        found = self.get(f"/deployments/name/{deployment}")
        made = self.post(f"/deployments/{found['id']}/create_flow_run", {"parameters": parameters})
        return str(made["id"])

    def cancel(self, run: str) -> None:
        self.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})

    # ---- what Prefect says

    def get(self, path: str) -> Any:
        return self._ask(path, None)

    def post(self, path: str, body: Any) -> Any:
        return self._ask(path, body)

    def send(self, method: str, path: str, body: Any = None) -> int:
        """Change or delete something; the status of the answer."""
        token = self.get("/csrf-token?client=tests")["token"]
        headers = {"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests", "Content-Type": "application/json"}
        headers["Authorization"] = f"Basic {base64.b64encode(self.login().encode()).decode()}"
        data = None if body is None else json.dumps(body).encode()
        sent = urllib.request.Request(f"{self.api}{path}", data, headers, method=method)
        with urllib.request.urlopen(sent, timeout=90) as answer:
            return int(answer.status)

    def login(self) -> str:
        """What the servers ask for."""
        return (self.home / logins.LOGIN).read_text().strip()

    def _ask(self, path: str, body: Any) -> Any:
        for _ in range(3):
            try:
                return request(self.api, path, body, self.login(), timeout=90)
            except urllib.error.HTTPError as error:
                if error.code != 503:  # SQLite is busy
                    raise
                time.sleep(1)
        raise AssertionError(f"{path}: the server is busy\n{self.logs()}")

    def state(self, run: str) -> tuple[str, str]:
        """Name of a run's state, and its message."""
        state = self.get(f"/flow_runs/{run}")["state"]
        return state["name"], state["message"] or ""

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """Runs of a flow that have begun or ended, the latest first."""
        body = {
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"name": {"not_any_": ["Scheduled"]}}},
            "sort": "START_TIME_DESC",
        }
        return list(self.post("/flow_runs/filter", body))

    def online(self, pool: str) -> list[dict[str, Any]]:
        found = self.post(f"/work_pools/{pool}/workers/filter", {})
        return [worker for worker in found if worker["status"] == "ONLINE"]

    def log(self, run: str) -> str:
        lines = self.post(
            "/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"}
        )
        return "\n".join(line["message"] for line in lines)

    def summary(self, run: str) -> str:
        """The one sentence that a run leaves behind."""
        found = self.post(
            "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}, "key": {"any_": ["run"]}}}
        )
        return str(found[-1]["description"]) if found else ""

    def wait(self, what: Callable[[], Any], seconds: float = 120, why: Callable[[], str] | None = None) -> Any:
        """Wait until something is there and give it."""
        deadline = time.monotonic() + seconds
        while not (found := what()):
            if time.monotonic() > deadline:
                raise AssertionError((why() if why else "") + "\n" + self.logs())
            time.sleep(0.3)
        return found

    def ended(self, run: str, seconds: float = 180) -> tuple[str, str]:
        """Wait for the end of a run; name and message of its state."""
        ends = ("Completed", "Cached", "Failed", "Crashed", "Cancelled", "TimedOut")
        return self.wait(lambda: found if (found := self.state(run))[0] in ends else None, seconds)  # type: ignore[no-any-return]

    def trainer(self, machine: Path) -> int | None:
        """The process that trains in a clone now."""
        for path in (machine / ".cache/workspaces").glob("*/tree/started"):
            number = int(path.read_text().split()[0])
            if is_alive(number):
                return number
        return None


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
