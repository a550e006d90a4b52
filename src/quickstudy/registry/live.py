"""A training while it runs, as an MLflow run."""

import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quickstudy.registry import runs, store
from quickstudy.registry.runs import LIVE, PROCESS
from quickstudy.registry.store import NAME
from quickstudy.system.processes import identity

FOLLOW_SECONDS, FOLLOW_PATIENCE = 2.0, 20.0  # between two looks at a training; for the last of its numbers

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def following(root: Path, path: Path, kind: str) -> Iterator[None]:
    """Bring what a training writes into ``path``, a line of JSON a step, into an MLflow run while the body runs, and
    beside it the load of the machine (MLflow's system metrics). Without a line there is no run.

    The run waits for the registration, which completes it. MLflow out of reach stops nothing: what was not sent is
    sent when it answers again.

    Args:
        kind: whose part of the model is trained.
    """
    path.unlink(missing_ok=True)
    follower = _Follower(root, path, kind)
    thread = threading.Thread(target=follower.follow, name="live metrics", daemon=True)
    thread.start()
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    finally:
        follower.ended.set()
        thread.join(timeout=FOLLOW_PATIENCE)
        follower.close(status)


class _Follower:
    def __init__(self, root: Path, path: Path, kind: str):
        self.root, self.path, self.kind, self.ended = root, path, kind, threading.Event()
        self.client: Any = None
        self.run_id: str | None = None
        self.monitor: Any = None
        self.read = 0

    def follow(self) -> None:
        while True:
            last = self.ended.wait(FOLLOW_SECONDS)
            try:
                self._send()
            except Exception as error:  # MLflow's or its database's; the lines stay in the file for the next time
                _log.warning("MLflow does not take live metrics (%s)", str(error).splitlines()[0])
            if last:
                return

    def _send(self) -> None:
        from mlflow.entities import Metric

        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.read)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]  # a line that is being written waits
        if not text:
            return
        if self.run_id is None:
            self._start()
        now = int(time.time() * 1000)
        metrics = []
        for line in text.decode().splitlines():
            numbers = json.loads(line)
            step = int(numbers.pop("step"))
            metrics += [Metric(f"live/{name}", value, now, step) for name, value in numbers.items()]
        runs.log_metrics(self.client, self.run_id, metrics)
        self.read += len(text)

    def _start(self) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        with store.locked(self.root):
            self.client = store.client(self.root)
            runs.close_abandoned(self.client)
        experiment = self.client.get_experiment_by_name(NAME).experiment_id
        tags = {
            LIVE: "true",
            PROCESS: identity(),
            "mlflow.source.name": "quickstudy run",
            "mlflow.source.type": "PROJECT",
        }
        self.run_id = self.client.create_run(experiment, run_name="meta-training", tags=tags).info.run_id
        self.monitor = SystemMetricsMonitor(self.run_id, tracking_uri=store.tracking_uri(self.root))
        self.monitor.start()

    def close(self, status: str) -> None:
        if self.run_id is None:
            return
        with contextlib.suppress(Exception):
            self.monitor.finish()
            if status == "FINISHED":
                found = store.weights_of(self.root / "build/model")
                own = [path for path in found if path.parent.name == self.kind] or found
                if own:
                    self.client.set_tag(self.run_id, runs.WEIGHTS, runs.digest_of(own[0]))
            self.client.set_terminated(self.run_id, status=status)
