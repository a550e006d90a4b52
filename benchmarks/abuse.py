"""What one caller's abuse costs another: the latency of a tenant who asks one query after another while others attack.

    .venv/bin/python benchmarks/abuse.py --model models:/quickstudy@champion [--attacks NAME ...] [--seconds 10]
        [--files 256] [--project OTHER]

The attacks are those of `abuse_connections.py` and `abuse_work.py`; each is bounded, and goes to this machine alone. A
service is started for each, on a database of its own, with a key for the attacker and one for the victim; the attack
runs in a process of its own. The victim makes a task before, and then asks it on one connection, which it opens anew
where it was closed. Of each attack: the victim's p50 and p99 in ms, how many of its requests were refused or failed,
the bytes of log a second, and the most memory that the service had. `none` is the victim alone. With --project the
service is that of another clone (its src and params.yaml), as of before; its numbers stand beside ours.
"""

import argparse
import asyncio
import contextlib
import http.client
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]

import serving  # noqa: E402

Attack = Callable[[str, dict[str, str], asyncio.Event], Awaitable[None]]
"""Base URL, headers with the attacker's key, and what is set when it has to stop."""

WAIT = 30.0
"""Seconds after which the victim takes a request for lost."""
RESULT = REPOSITORY / "benchmarks/results/abuse.json"


def attacks() -> dict[str, Attack]:
    """All attacks by their names."""
    found: dict[str, Attack] = {}
    for name in ("abuse_connections", "abuse_work"):
        if importlib.util.find_spec(name) is not None:
            found |= importlib.import_module(name).ATTACKS
    return found


async def attack(name: str, base: str, key: str) -> None:
    """What the second process does, until it is told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await attacks()[name](base, {"authorization": f"Bearer {key}"}, stop)


@contextlib.contextmanager
def attacked(name: str, base: str, key: str) -> Iterator[None]:
    """An attack at work; the service has felt it for two seconds already."""
    command = [sys.executable, __file__, "--attack", name, base, key]
    process = subprocess.Popen(command)
    try:
        time.sleep(2)
        if process.poll() not in (None, 0):
            raise SystemExit(f"{name}: the attack has failed")
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


class Victim:
    """A tenant who minds its own business."""

    def __init__(self, port: int, key: str):
        self._port, self._headers = port, {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._connection: http.client.HTTPConnection | None = None
        self.times: list[float] = []
        self.lost: dict[str, int] = {}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request; a connection that was closed is opened anew once."""
        for again in (False, True):
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT)
            try:
                self._connection.request(method, path, json.dumps(body) if body else None, self._headers)
                reply = self._connection.getresponse()
                return reply.status, json.loads(reply.read() or b"null")
            except (OSError, http.client.HTTPException, ValueError):
                self._connection.close()
                self._connection = None
                if again:
                    raise
        raise AssertionError("unreachable")

    def teach(self) -> str:
        """Return the path of the task's queries."""
        body = {"name": "victim", "modality": "text", "examples": serving.support("text", 5, 5, 4)}
        return f"/tasks/{self.ask('POST', '/tasks', body)[1]['id']}/predict"

    def live(self, path: str, seconds: float) -> None:
        """Ask one query after another."""
        queries, until = serving.texts(200, seed=9), time.monotonic() + seconds
        while time.monotonic() < until:
            started = time.perf_counter()
            try:
                status, _ = self.ask("POST", path, {"queries": [queries[len(self.times) % len(queries)]]})
                why = "" if status == 200 else str(status)
            except (OSError, http.client.HTTPException, ValueError) as error:
                why = type(error).__name__
                time.sleep(0.05)
            self.times.append(time.perf_counter() - started)
            if why:
                self.lost[why] = self.lost.get(why, 0) + 1


class Memory(threading.Thread):
    """Looks at the memory of a process until it is told to stop; `most` is in MB."""

    def __init__(self, process: int):
        super().__init__(daemon=True)
        self._status, self.most, self.done = Path(f"/proc/{process}/status"), 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.2):
            with contextlib.suppress(OSError, IndexError):
                held = int(self._status.read_text().split("VmRSS:")[1].split()[0]) // 1000
                self.most = max(self.most, held)


def measured(name: str, chosen: argparse.Namespace, project: Path) -> dict[str, Any]:
    """What an attack does to the victim of a project's service."""
    port = serving.free_port()
    base, tools = f"http://127.0.0.1:{port}", [sys.executable, "-m", "quickstudy", "serve"]
    os.environ["PYTHONPATH"] = str(project / "src")
    with tempfile.TemporaryDirectory() as folder:
        where = ["--database", f"sqlite:///{folder}/serve.db"]
        key, own = (
            subprocess.run(
                [*tools, "keys", "add", tenant, *where], cwd=project, check=True, capture_output=True, text=True
            ).stdout.strip()
            for tenant in ("attacker", "victim")
        )
        command = [*tools, "--model", str(chosen.model), "--port", str(port), *where]
        if chosen.files:  # it may not ask for more
            limited = f"import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({chosen.files},) * 2)"
            command = [sys.executable, "-c", f"{limited}; os.execv(sys.argv[1], sys.argv[1:])", *command]
        log = Path(folder) / "server.log"
        with serving.served(command, f"{base}/ready", Path(folder), project) as process:
            victim, memory = Victim(port, own), Memory(process.pid)
            path = victim.teach()
            victim.live(path, 1.0)  # it warms up
            victim.times.clear()
            memory.start()
            with attacked(name, base, key) if name != "none" else contextlib.nullcontext():
                written = log.stat().st_size
                victim.live(path, chosen.seconds)
                written = log.stat().st_size - written
            memory.done.set()
    times = sorted(victim.times)
    return {
        "requests": len(times),
        "p50 ms": round(1000 * times[len(times) // 2], 1),
        "p99 ms": round(1000 * times[int(len(times) * 0.99)], 1),
        "not answered": victim.lost,
        "log bytes/s": round(written / chosen.seconds),
        "most memory MB": memory.most,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models:/quickstudy@champion")
    parser.add_argument("--attacks", nargs="+", choices=["none", *attacks()], default=["none", *attacks()])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each attack")
    parser.add_argument("--files", type=int, help="that the service may have open")
    parser.add_argument("--project", type=Path, help="another clone, whose service is attacked too")
    parser.add_argument("--attack", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.attack:
        asyncio.run(attack(*chosen.attack))
        return

    from quickstudy.system.environment import apply_environment

    apply_environment(REPOSITORY)
    from quickstudy import registry

    chosen.model = registry.resolve(chosen.model, REPOSITORY)
    result: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for name in chosen.attacks:
        found = {"now": measured(name, chosen, REPOSITORY)}
        if chosen.project:
            found["before"] = measured(name, chosen, chosen.project.resolve())
        result[name] = {**result.get(name, {}), **found}
        print(json.dumps({name: found}), flush=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
