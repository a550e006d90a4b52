"""The service under load, beside `mlflow models serve` with the same model and the bare encoder.

    .venv/bin/python benchmarks/serving.py [--model models:/quickstudy@champion] [--clients 32] [--seconds 10]
        [--peers FOLDER/setfit/bin/python]

Adapting: a 5-way 5-shot task of each modality, from POST /tasks to the answer of its first query; of images also the
worst that there are of 105 × 105 pixels, noise. SetFit trains on three of the same tasks of texts, where the Python of
its environment is given (see intents.py). Predicting: one text a request, as many clients as asked for, each with
a connection of its own, from a second process on loopback. MLflow's server is stateless, so that each of its requests
carries the support set too. The bare encoder reads the same texts in full batches, with nothing else at work, in
float32 and in what the service computes in. And how many bytes a task of 20 ways and 5 shots costs in the database.

Machines are not equally fast from one minute to the next: encoder, service and adapting take turns, five times, and the
median of the turns' ratios is reported beside all of them.
"""

import argparse
import asyncio
import base64
import contextlib
import http.client
import io
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

REPOSITORY = Path(__file__).parents[1]
WAY, SHOT, REPEATS, TURNS = 5, 5, 6, 5
TARGET_MS = {"text": 60, "image": 15, "noise": 15, "audio": 30}
WORDS = """card parcel invoice order password refund account late charged twice broken again please where when today my
the a was is not sent paid change address phone number delivery shop screen light battery box new old want cancel"""


def texts(count: int, seed: int) -> list[str]:
    """Sentences of 6 to 14 words, as people write to a support desk in length."""
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(WORDS.split(), k=drawn.randint(6, 14))) for _ in range(count)]


def image(seed: int) -> str:
    """A character in black on white, of a few strokes, as those of Omniglot."""
    from PIL import Image, ImageDraw

    drawn, buffer = random.Random(seed), io.BytesIO()
    page = Image.new("L", (105, 105), 255)
    for _ in range(drawn.randint(2, 5)):
        ImageDraw.Draw(page).line([(drawn.randint(5, 100), drawn.randint(5, 100)) for _ in range(4)], 0, 3)
    page.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def noise(seed: int) -> str:
    """The worst that an image of this size can be: nothing of it can be compressed."""
    import numpy as np
    from PIL import Image

    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (105, 105), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def recording(seed: int) -> str:
    import numpy as np
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(seed).normal(0, 0.1, 8000), 8000, format="WAV")
    return base64.b64encode(buffer.getvalue()).decode()


BARE = """
import json, sys, time
from pathlib import Path
import torch
from quickstudy.system.environment import apply_environment
apply_environment()
from quickstudy.model.store import load_model
from quickstudy.adaptation.adapted import encode

model, texts = load_model(Path(sys.argv[1]), "classify"), json.load(sys.stdin)
model.encoder("text").front_dtype = getattr(torch, sys.argv[3])
encode(model, "text", texts[:64])
start, done = time.perf_counter(), 0
while (elapsed := time.perf_counter() - start) < float(sys.argv[2]):
    place = done % len(texts)
    done += len(encode(model, "text", texts[place : place + 64]))
print(done / elapsed)
"""

MAKE: dict[str, Callable[[int], str]] = {
    "text": lambda seed: texts(1, seed)[0],
    "image": image,
    "noise": noise,
    "audio": recording,
}
MODALITY = {name: "image" if name == "noise" else name for name in MAKE}


def support(kind: str, way: int, shot: int, seed: int) -> list[dict[str, str]]:
    return [{"input": MAKE[kind](1000 * seed + i), "label": f"class {i % way}"} for i in range(way * shot)]


# ---- the second process


async def client(address: str, bodies: list[bytes], until: float, times: list[float]) -> None:
    """One connection that asks as soon as it is answered."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    place = 0
    while time.perf_counter() < until:
        body = bodies[place % len(bodies)]
        place += 1
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        started = time.perf_counter()
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer.lower())
        assert length is not None, answer
        await reader.readexactly(int(length[1]))
        times.append(time.perf_counter() - started)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{address}: {answer!r}")
    writer.close()


async def load(address: str, clients: int, seconds: float, bodies: list[bytes]) -> dict[str, Any]:
    times: list[float] = []
    started = time.perf_counter()
    await asyncio.gather(*(client(address, bodies[i::clients], started + seconds, times) for i in range(clients)))
    elapsed = time.perf_counter() - started
    times.sort()
    return {
        "requests": len(times),
        "requests/s": round(len(times) / elapsed, 1),
        "p50 ms": round(1000 * times[len(times) // 2], 1),
        "p99 ms": round(1000 * times[int(len(times) * 0.99)], 1),
    }


def loaded(address: str, clients: int, seconds: float, bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """What a second process measures."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(bodies, file)
        file.flush()
        command = [sys.executable, __file__, "--load", address, file.name]
        command += ["--clients", str(clients), "--seconds", str(seconds)]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


# ---- servers


@contextlib.contextmanager
def served(
    command: list[str], health: str, folder: Path, project: Path = REPOSITORY
) -> Iterator["subprocess.Popen[bytes]"]:
    """A server once it answers; its log goes into the folder."""
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(command, cwd=project, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(health, timeout=2):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "server.log").read_text()[-2000:])
            time.sleep(0.3)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(60)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def post(address: str, body: Any) -> Any:
    data = json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return json.load(reply)


# ---- what is measured


def adapting(base: str, turn: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of POST /tasks, and with the answer to the task's first query, on one connection."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=120)

    def send(path: str, body: Any) -> Any:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return json.load(connection.getresponse())

    found: dict[str, list[tuple[float, float]]] = {}
    for kind in TARGET_MS:
        times = []
        for repeat in range(100 * turn, 100 * turn + REPEATS + 2):
            body = {"name": "t", "modality": MODALITY[kind], "examples": support(kind, WAY, SHOT, repeat)}
            query = {"queries": [MAKE[kind](10**6 + repeat)]}
            started = time.perf_counter()
            id = send("/tasks", body)["id"]
            created = time.perf_counter()
            send(f"/tasks/{id}/predict", query)
            times.append((1000 * (created - started), 1000 * (time.perf_counter() - started)))
        found[kind] = times[2:]  # the first ones warm up
    return found


def told(kind: str, times: list[tuple[float, float]]) -> dict[str, Any]:
    """The fastest says what it takes where nothing else runs."""
    create, whole = zip(*times, strict=True)
    return {
        "POST /tasks ms": round(statistics.median(create), 1),
        "fastest": round(min(create), 1),
        "and the first answer ms": round(statistics.median(whole), 1),
        "target ms": TARGET_MS[kind],
    }


def beside_setfit(python: Path, scratch: Path) -> float:
    """Seconds that SetFit trains on a task of texts, the median of three, on all cores, after one that warms up."""
    tasks, answers = scratch / "tasks.jsonl", scratch / "answers.jsonl"
    rows = []
    for repeat in range(4):
        examples = support("text", WAY, SHOT, repeat)
        labels = [int(example["label"].split()[1]) for example in examples]
        rows.append({"name": str(repeat), "support": [e["input"] for e in examples], "labels": labels, "query": ["?"]})
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [python, Path(__file__).with_name("intents_setfit.py"), tasks, answers, "--threads", str(os.cpu_count())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return statistics.median(json.loads(line)["wall"] for line in answers.read_text().splitlines()[1:])


def bare(folder: Path, queries: list[str], seconds: float, precision: str) -> float:
    """Texts a second that the encoder reads in full batches."""
    command = [sys.executable, "-c", BARE, str(folder), str(seconds), precision]
    done = subprocess.run(command, input=json.dumps(queries), capture_output=True, text=True, check=True)
    return float(done.stdout)


def task_bytes(base: str, database: Path) -> int:
    """Of a 20-way 5-shot task in the database, the mean of twenty."""

    def size() -> int:
        import sqlite3

        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            return int(pages * connection.execute("PRAGMA page_size").fetchone()[0])

    count, before = 20, size()
    for repeat in range(count):
        post(f"{base}/tasks", {"name": "t", "modality": "text", "examples": support("text", 20, 5, 500 + repeat)})
    return (size() - before) // count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models:/quickstudy@champion")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a turn")
    parser.add_argument("--peers", type=Path, help="the Python that has SetFit")
    parser.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.load:
        bodies = [json.dumps(body).encode() for body in json.loads(Path(chosen.load[1]).read_text())]
        print(json.dumps(asyncio.run(load(chosen.load[0], chosen.clients, chosen.seconds, bodies))))
        return

    from quickstudy.system.environment import apply_environment

    apply_environment(REPOSITORY)
    from quickstudy import registry
    from quickstudy.serving.engine.loaded import fast_dtype

    folder = registry.resolve(chosen.model, REPOSITORY)
    queries = texts(640, seed=7)
    result: dict[str, Any] = {"clients": chosen.clients, "seconds": chosen.seconds, "cores": os.cpu_count()}
    precision = str(fast_dtype()).removeprefix("torch.")
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in TARGET_MS}
    alone: list[float] = []
    turns: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        port, database = free_port(), scratch / "serve.db"
        base = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "quickstudy", "serve", "--model", str(folder), "--port", str(port)]
        with served([*command, "--database", f"sqlite:///{database}"], f"{base}/ready", scratch):
            result["bytes of a 20-way 5-shot task"] = task_bytes(base, database)
            body = {"name": "t", "modality": "text", "examples": support("text", WAY, SHOT, 99)}
            address = f"{base}/tasks/{post(f'{base}/tasks', body)['id']}/predict"
            bodies = [{"queries": [query]} for query in queries]
            for turn in range(TURNS):
                for kind, measured in adapting(base, turn).items():
                    times[kind] += measured
                loaded(address, chosen.clients, 2, bodies)
                turns.append(loaded(address, chosen.clients, chosen.seconds, bodies))
                alone.append(bare(folder, queries, chosen.seconds, precision))
        result["mlflow models serve"] = beside_mlflow(folder, queries, scratch, chosen)
        result["adapt"] = {kind: told(kind, measured) for kind, measured in times.items()}
        if chosen.peers:
            seconds = beside_setfit(chosen.peers, scratch)
            ratio = 1000 * seconds / result["adapt"]["text"]["POST /tasks ms"]
            result["SetFit's training"] = {"seconds": round(seconds, 1), "times POST /tasks": round(ratio)}
        alone_in_float32 = bare(folder, queries, chosen.seconds, "float32")
    requests = [turn["requests/s"] for turn in turns]
    shares = [round(ours / theirs, 2) for ours, theirs in zip(requests, alone, strict=True)]
    result |= {
        "quickstudy serve": turns,
        "bare encoder texts/s": {"precision": precision, "turns": [round(one, 1) for one in alone]},
        "bare encoder texts/s in float32": round(alone_in_float32, 1),
        "requests/s": statistics.median(requests),
        "share of the bare encoder": {"median": statistics.median(shares), "turns": shares},
        "times mlflow": round(statistics.median(requests) / result["mlflow models serve"]["requests/s"], 1),
        "p99 / p50": max(round(turn["p99 ms"] / turn["p50 ms"], 1) for turn in turns),
    }
    print(json.dumps(result, indent=1))
    (REPOSITORY / "benchmarks/results/serving.json").write_text(json.dumps(result, indent=1) + "\n")


def beside_mlflow(folder: Path, queries: list[str], scratch: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    import mlflow.pyfunc

    saved, port = scratch / "mlflow", free_port()
    mlflow.pyfunc.save_model(saved, loader_module="quickstudy.adaptation.pyfunc", data_path=str(folder))
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(saved), "--port", str(port)]
    with served([*command, "--env-manager", "local"], f"{base}/ping", scratch):
        task = support("text", WAY, SHOT, 99)
        bodies = [
            {"dataframe_records": [{"modality": "text", "support": task, "queries": [query]}]} for query in queries
        ]
        loaded(f"{base}/invocations", chosen.clients, 2, bodies)
        return loaded(f"{base}/invocations", chosen.clients, chosen.seconds, bodies)


if __name__ == "__main__":
    main()
