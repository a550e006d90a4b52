"""How long `quickstudy runs` and `quickstudy history` take where thousands of runs lie behind them.

    .venv/bin/python benchmarks/runs.py [--runs 10000] [--versions 1000] [--repeats 5]

Prefect's own migrations make a database, which gets as many runs as a project collects: looks for new data, most of
which found nothing, retrainings with steps and artifacts, trainings that they handed over, promotions, two pools with
workers, deployments with runs to come. Then the verb runs as a person calls it, Python's start and all: from the file,
and against a real `prefect server start` on the same file; beside it Prefect's own ways to list runs where no server
runs, which say why quickstudy reads the file (quickstudy/runs/database.py). `history` reads a registry of so many
versions, as benchmarks/promotion_kills.py makes it.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from serving import free_port

REPOSITORY = Path(__file__).parents[1]
LIMIT_S = 2.0

# Of a hundred runs; a look for new data comes every half minute, a retraining with every delivery and every night.
SHARES = {"watch": 78, "retrain": 12, "meta-train": 6, "promote": 2, "rollback": 1, "reproduce": 1}
STEPS = ("data", "tasks@classify", "meta_train@classify", "evaluate@classify", "card", "register", "gate")


# The last 20 runs by Prefect itself: its command line, which starts a server for a moment, and the quickest of its
# ways, its client with the server in the same process.
IN_PROCESS = """
import asyncio
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.sorting import FlowRunSort
from prefect.server.api.server import create_app
async def main():
    async with PrefectClient(create_app(ephemeral=True)) as client:
        for run in await client.read_flow_runs(limit=20, sort=FlowRunSort.START_TIME_DESC):
            print(run.name)
asyncio.run(main())
"""
BY_PREFECT = {
    "prefect flow-run ls": ["-m", "prefect", "flow-run", "ls", "--limit", "20", "--output", "json"],
    "Prefect's client and server in one process": ["-c", IN_PROCESS],
}


def text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


class Writer:
    """Rows into Prefect's tables, as Prefect writes them."""

    def __init__(self, connection: sqlite3.Connection, seed: int = 0):
        self._connection, self._random = connection, random.Random(seed)

    def add(self, table: str, **row: Any) -> str:
        id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        row = {"id": id, **{name: json.dumps(v) if isinstance(v, dict | list) else v for name, v in row.items()}}
        marks = ", ".join("?" * len(row))
        names = ", ".join(f'"{name}"' for name in row)
        self._connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))
        return id

    def run(self, flow: str, start: datetime, state: str, message: str | None = None, **more: Any) -> str:
        over, waits = start + timedelta(seconds=self._random.uniform(3, 900)), state == "SCHEDULED"
        name = f"run-{self._random.randrange(16**6):06x}"
        id = self.add(
            "flow_run",
            flow_id=flow,
            name=name,
            state_type=state,
            state_name=state.title(),
            created=text(start),
            expected_start_time=text(start),
            next_scheduled_start_time=text(start) if waits else None,
            start_time=None if waits else text(start),
            end_time=None if waits or state == "RUNNING" else text(over),
            total_run_time=text(datetime(1970, 1, 1)),
            run_count=1,
            labels={},
            state_timestamp=text(over),
            **{"parameters": {"project": None}, "tags": [], "auto_scheduled": 0, **more},
        )
        for second, type in enumerate(("SCHEDULED",) if waits else ("PENDING", "RUNNING", state)):
            at = text(start + timedelta(seconds=second) if type != state else over)
            told = message if type == state else None
            last = self.add("flow_run_state", flow_run_id=id, type=type, name=type.title(), timestamp=at, message=told)
        self._connection.execute("UPDATE flow_run SET state_id = ? WHERE id = ?", (last, id))
        return id

    def task(self, run: str, step: str, start: datetime) -> str:
        return self.add(
            "task_run",
            flow_run_id=run,
            name=step,
            task_key=step,
            dynamic_key="0",
            state_type="COMPLETED",
            state_name="Completed",
            expected_start_time=text(start),
            start_time=text(start),
            end_time=text(start + timedelta(seconds=9)),
            total_run_time=text(datetime(1970, 1, 1)),
            labels={},
        )

    def artifact(self, run: str, key: str, at: datetime, data: Any, description: str, type: str = "table") -> None:
        self.add(
            "artifact",
            flow_run_id=run,
            key=key,
            created=text(at),
            type=type,
            data=json.dumps(json.dumps(data)),
            description=description,
        )


def fill(path: Path, count: int, now: datetime) -> None:
    """A database of so many past runs, with what belongs to them; 100 more are planned."""
    chance = random.Random(0)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        writer = Writer(connection)
        flows = {name: writer.add("flow", name=name, labels={}) for name in SHARES}
        queues, deployments = {}, {}
        for pool in ("cpu", "gpu"):
            pool_id = writer.add("work_pool", name=pool, type="process", status="READY")
            queues[pool] = writer.add("work_queue", name="default", work_pool_id=pool_id, status="READY")
            connection.execute("UPDATE work_pool SET default_queue_id = ? WHERE id = ?", (queues[pool], pool_id))
            worker = {"name": f"worker-{pool}", "work_pool_id": pool_id, "status": "ONLINE"}
            writer.add("worker", last_heartbeat_time=text(now), heartbeat_interval_seconds=30, **worker)
        for name, flow in flows.items():
            queue = queues["gpu" if name == "meta-train" else "cpu"]
            deployments[name] = writer.add(
                "deployment", flow_id=flow, name="home", work_queue_id=queue, work_queue_name="default", labels={}
            )
            if name in ("watch", "retrain"):
                seconds = 30.0 if name == "watch" else 86_400.0
                schedule = {"interval": seconds, "anchor_date": "2026-01-01T00:00:00Z", "timezone": "UTC"}
                writer.add("deployment_schedule", deployment_id=deployments[name], schedule=schedule, active=1)
        kinds = chance.choices(list(SHARES), list(SHARES.values()), k=count)
        parent = None
        for index, kind in enumerate(kinds):
            start = now - timedelta(seconds=30 * (count - index))
            state = chance.choices(["COMPLETED", "FAILED", "CRASHED", "CANCELLED"], [95, 2, 1, 2])[0]
            message = "Flow run encountered an exception: QuickstudyError: data/tickets: no column named 'label'"
            of = {"deployment_id": deployments[kind], "work_queue_id": queues["gpu" if kind == "meta-train" else "cpu"]}
            if kind == "watch":
                run = writer.run(flows[kind], start, state, message, **of, auto_scheduled=1)
                if state == "COMPLETED" and chance.random() < 0.05:
                    rows = [{"step": "tickets", "outcome": "ran", "seconds": 2.1, "note": "12 new examples"}]
                    writer.artifact(run, "run", start, rows, "tickets: 12 new examples; data is version 1a2b3c4d now")
                continue
            task = writer.task(parent, "hand over", start) if kind == "meta-train" and parent else None
            run = writer.run(flows[kind], start, state, message, **of, tags=["trigger:data"], parent_task_run_id=task)
            parent = run if kind == "retrain" else None
            for step in STEPS:
                writer.task(run, step, start)
                writer.artifact(run, step.replace("_", "-"), start, "x" * 3000, f"{step}: a page", "markdown")
            rows = [{"step": step, "outcome": "ran", "seconds": 12.5, "note": "version 1a2b3c4d"} for step in STEPS]
            writer.artifact(run, "run", start, rows, "The data was new; all four stages ran; the gate says HOLD")
        for index in range(100):
            start = now + timedelta(seconds=30 * (index + 1))
            writer.run(flows["watch"], start, "SCHEDULED", deployment_id=deployments["watch"], auto_scheduled=1)
        writer.run(flows["retrain"], now + timedelta(hours=8), "SCHEDULED", deployment_id=deployments["retrain"])


def timed(words: list[str], root: Path, environment: dict[str, str], repeats: int) -> dict[str, Any]:
    """Seconds of Python with these words, as a person calls it: median, fastest and slowest."""
    times, said = [], ""
    for _ in range(repeats):
        start = time.monotonic()
        done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)
        times.append(time.monotonic() - start)
        assert done.returncode == 0, done.stderr
        said = done.stdout
    seconds = {"median": statistics.median(times), "fastest": min(times), "slowest": max(times)}
    return {"seconds": {name: round(value, 2) for name, value in seconds.items()}, "said": said}


def past(said: str) -> list[dict[str, Any]]:
    """The runs of `quickstudy runs --json` without what only a server knows, the address of the page."""
    return [{**run, "page": None} for run in json.loads(said)["runs"] if run["state"] != "waiting"]


@contextlib.contextmanager
def server(environment: dict[str, str]) -> Iterator[str]:
    """Prefect's server on a free port; gives the address of its API."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{url}/health", timeout=5)
                break
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--versions", type=int, default=1000, help="of the registry that history reads; 0: not timed")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/runs.json")
    asked = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(REPOSITORY / name, root / name)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        environment |= {"PREFECT_HOME": str(root / ".prefect"), "DO_NOT_TRACK": "true"}
        environment |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "COLUMNS": "160"}
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        fill(root / ".prefect/prefect.db", asked.runs, datetime.now(UTC).replace(tzinfo=None))
        verbs = (["runs"], ["runs", "--all"], ["runs", "--state", "crashed"], ["runs", "--json", "--last", "200"])
        for words in verbs:
            rows[f"quickstudy {' '.join(words)}, from the file"] = timed(
                ["-m", "quickstudy", *words], root, environment, asked.repeats
            )
        for name, words in BY_PREFECT.items():
            rows[name] = timed(words, root, environment, asked.repeats)
        with server(environment) as url:
            for words in verbs:
                known = {**environment, "PREFECT_API_URL": url}
                rows[f"quickstudy {' '.join(words)}, by the server"] = timed(
                    ["-m", "quickstudy", *words], root, known, asked.repeats
                )
    by_file, by_server = (past(row["said"]) for name, row in rows.items() if "--json" in name)
    if asked.versions:
        from promotion_kills import fill as fill_registry
        from promotion_kills import forked

        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "mlruns").mkdir()
            for name in ("params.yaml", "dvc.yaml"):
                shutil.copy(REPOSITORY / name, root / name)
            assert forked(lambda: fill_registry(root, asked.versions)) == 0
            rows["quickstudy history"] = timed(["-m", "quickstudy", "history"], root, dict(os.environ), asked.repeats)
    result = {
        "runs": asked.runs,
        "versions": asked.versions,
        "repeats": asked.repeats,
        "limit": LIMIT_S,
        "the same by both": by_file == by_server,
        "seconds": {name: row["seconds"] for name, row in rows.items()},
    }
    for name, row in rows.items():
        met = "met" if row["seconds"]["median"] <= LIMIT_S else "missed"
        print(f"{name:<52} {row['seconds']['median']:6.2f} s (≤ {LIMIT_S:.0f} s {met})")
    print(f"both say the same: {by_file == by_server}; medians of {asked.repeats}")
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(by_file != by_server)


if __name__ == "__main__":
    sys.exit(main())
