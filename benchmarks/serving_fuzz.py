"""Ten thousand bodies that nobody should send, against a real service: no 5xx, no hang, memory that stays flat.

    .venv/bin/python benchmarks/serving_fuzz.py --model models:/quickstudy@champion [--bodies 10000]
        [--schemathesis PATH] [--seeds 0 1] [--examples 680]

First the bodies and files of tests/unit/serving/malformed.py: truncated, changed, two formats in one, NaN, other
alphabets, 10^6-character texts. Then schemathesis (`pip install schemathesis`, in an environment of its own) draws
requests from the OpenAPI schema, once with each seed, goes on with the ids of the tasks that it was given, and checks
that no answer is a 5xx. What is not asked for (--bodies 0, another seed, no --schemathesis) keeps its last result.
"""

import argparse
import base64
import collections
import http.client
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]

import serving  # noqa: E402

from tests.unit.serving.malformed import malformed  # noqa: E402

BATCH = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models:/quickstudy@champion")
    parser.add_argument("--bodies", type=int, default=10_000)
    parser.add_argument("--schemathesis", default=None, help="the command; left out: not run")
    parser.add_argument("--examples", type=int, default=680, help="that schemathesis draws of each operation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of schemathesis; 5 minutes each")
    chosen = parser.parse_args()
    written = REPOSITORY / "benchmarks/results/serving_fuzz.json"
    result: dict[str, Any] = json.loads(written.read_text())
    with tempfile.TemporaryDirectory() as name:
        port = serving.free_port()
        base = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "quickstudy", "serve", "--model", chosen.model, "--port", str(port)]
        command += ["--database", f"sqlite:///{name}/serve.db"]
        log = Path(name) / "server.log"
        with serving.served(command, f"{base}/ready", Path(name)):
            if chosen.bodies:
                result["bodies"] = bodies(port, base, chosen.bodies)
            for seed in chosen.seeds if chosen.schemathesis else ():
                before = logged(log)
                run = schemathesis(chosen.schemathesis, base, chosen.examples, seed)
                statuses = logged(log) - before
                run["statuses"] = {str(status): count for status, count in sorted(statuses.items())}
                result.setdefault("schemathesis", {})[f"seed {seed}"] = run
            result["alive afterwards"] = serving.post(f"{base}/tasks", task("text"))["revision"] == 1
        result["errors of the service's own"] = log.read_text().count('"trace"')
    print(json.dumps(result, indent=1))
    written.write_text(json.dumps(result, indent=1) + "\n")


def logged(log: Path) -> collections.Counter[int]:
    """How often the service gave each status, by its own log."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return collections.Counter(line["status"] for line in lines if line["event"] == "request")


def task(kind: str) -> dict[str, Any]:
    return {"name": "t", "modality": serving.MODALITY[kind], "examples": serving.support(kind, 2, 1, 1)}


def bodies(port: int, base: str, count: int) -> dict[str, Any]:
    ids = {kind: serving.post(f"{base}/tasks", task(kind))["id"] for kind in serving.MAKE}
    files = [base64.b64decode(make(i)) for i in range(3) for name, make in serving.MAKE.items() if name != "text"]
    statuses: collections.Counter[int] = collections.Counter()
    slowest, memory = 0.0, []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for place, (modality, body, kind) in enumerate(malformed(files, count)):
        if place % BATCH == 0:
            memory.append(resident(port))
        if place % 500 == 7:
            modality, body, kind = "text", json.dumps({"queries": ["ж" * 10**6]}).encode(), "application/json"
        own = f"/tasks/{ids[modality]}"
        address = ("/tasks", f"{own}/examples", f"{own}/predict", "/tasks/import")[place % 4]
        started = time.perf_counter()
        try:
            connection.request("POST", address, body, {"content-type": kind})
            reply = connection.getresponse()
            said = reply.read()
        except (http.client.HTTPException, OSError):
            statuses[0] += 1
            connection.close()
            continue
        slowest = max(slowest, time.perf_counter() - started)
        statuses[reply.status] += 1
        if reply.status >= 400:
            assert list(json.loads(said)) == ["error"], said
    memory.append(resident(port))
    return {
        "sent": sum(statuses.values()),
        "statuses": {str(k): v for k, v in sorted(statuses.items())},
        "slowest s": round(slowest, 2),
        f"MB, every {BATCH}": memory,
    }


def resident(port: int) -> int:
    """MB of the service's memory."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "serve" in words and str(port) in words:
            return int(process.memory_info().rss / 1_000_000)
    raise SystemExit("the service has ended")


def schemathesis(command: str, base: str, examples: int, seed: int) -> dict[str, Any]:
    words = [command, "run", f"{base}/openapi.json", "--checks", "not_a_server_error"]
    with tempfile.TemporaryDirectory() as folder:  # it leaves a cache where it runs
        words += ["--max-examples", str(examples), "--seed", str(seed)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        return {"exit code": done.returncode, "says": done.stdout[-2000:]}
    return {"exit code": 0, "cases": next(line.strip() for line in done.stdout.splitlines() if " generated, " in line)}


if __name__ == "__main__":
    main()
