"""Two replicas under mixed load while the alias moves twice, the database restarts and a replica is killed.

    .venv/bin/python benchmarks/serving_soak.py FOLDER [--seconds 600] [--clients 8] [--model MODEL]

FOLDER, which must be new, gets a registry of three versions (the model, and twice the model with other text weights),
the replicas' logs and what the clients (soak_clients.py) wrote down. The database is a PostgreSQL of its own. A request
that was sent and not answered as it should has failed; it is excused where it was in flight on the killed process.

Afterwards every answer is worked out again by the version that it names, from the examples that were acknowledged, and
the tasks in the service are compared with those that the clients know of.
"""

import argparse
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from bisect import bisect
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any

import serving
import soak_clients
from postgresql import postgresql

# When what happens, as shares of the time.
FIRST_MOVE, RESTART, KILL, AGAIN, SECOND_MOVE, STOP = 0.15, 0.35, 0.5, 0.55, 0.7, 0.85
AWAY = 5.0
"""Seconds that the database is away the second time."""
WINDOW = 60.0
"""Seconds after a move within which the version before may answer."""
TOLERANCE = 0.002
"""Of a probability: vectors are kept in one byte a number, and a text is read a hair differently in another batch."""

Line = dict[str, Any]


def versions(project: Path, model: str) -> dict[str, Path]:
    """A registry whose champion is the first of three versions; the folder of each."""
    import torch
    from mlflow import MlflowClient

    from quickstudy import registry
    from quickstudy.model.store import load_model, save_model
    from quickstudy.registry import store
    from quickstudy.system.digests import file_digests

    original = load_model(registry.resolve(model, serving.REPOSITORY), "classify")
    registry.prepare(project)
    uri = registry.tracking_uri(project)
    client = MlflowClient(uri, uri)
    client.create_registered_model(registry.NAME)
    experiment = client.get_experiment_by_name(registry.NAME)
    assert experiment is not None
    folders = {}
    for number in (1, 2, 3):
        folder = project / f"mlruns/artifacts/{number}/data/model"
        if number > 1:  # and no version is near another
            noise = torch.Generator().manual_seed(number)
            for weight in original.encoders["text"].parameters():
                weight.data += torch.randn(weight.shape, generator=noise) * weight.std() / 2
        save_model(original, folder, {})
        tags = {store.REGISTERED: "true", store.FILES: json.dumps(file_digests(folder))}
        run = client.create_run(experiment.experiment_id).info.run_id
        client.create_model_version(registry.NAME, folder.parents[1].as_uri(), run, tags=tags)
        folders[str(number)] = folder
    client.set_registered_model_alias(registry.NAME, "champion", "1")
    return folders


def soak(folder: Path, seconds: float, clients: int) -> tuple[list[Line], Line]:
    """What the clients wrote, and what happened when, by the clock that all processes share."""
    from quickstudy import registry

    project, ports, happened = folder / "project", [serving.free_port(), serving.free_port()], dict[str, Any]()
    with postgresql() as database, ExitStack() as stack:

        def replica(port: int) -> "subprocess.Popen[bytes]":
            command = [sys.executable, "-m", "quickstudy", "serve", "--port", str(port), "--database", database.url]
            (folder / str(port)).mkdir(exist_ok=True)
            ready = f"http://127.0.0.1:{port}/ready"
            return stack.enter_context(serving.served(command, ready, folder / str(port), project))

        def kill() -> None:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()

        first, _ = [replica(port) for port in ports]
        happened["start"] = [time.monotonic()] * 2
        command = [sys.executable, str(Path(soak_clients.__file__)), json.dumps(ports), str(clients), str(seconds)]
        load = subprocess.Popen([*command, str(folder / "requests.jsonl")])
        plan: list[tuple[float, str, Callable[[], Any]]] = [
            (FIRST_MOVE, "move to 2", lambda: registry.promote(project, 2, against=1, why="soak")),
            (RESTART, "restart", database.restart),
            (KILL, "kill", kill),
            (AGAIN, "again", lambda: replica(ports[0])),
            (SECOND_MOVE, "move to 3", lambda: registry.promote(project, 3, against=2, why="soak")),
            (STOP, "stop and start", lambda: database.restart(AWAY)),
        ]
        for share, name, act in plan:
            time.sleep(max(0.0, happened["start"][0] + share * seconds - time.monotonic()))
            begun = time.monotonic()
            act()
            happened[name] = [begun, time.monotonic()]
            print(f"{begun - happened['start'][0]:6.1f} s  {name}", file=sys.stderr, flush=True)
        assert load.wait() == 0
        lines = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
        happened["killed port"] = ports[0]
        happened["left"] = left(ports)
    logs = [(folder / str(port) / "server.log").read_text() for port in ports]
    happened["errors of the service's own"] = sum(log.count('"trace"') for log in logs)
    return lines, happened


def left(ports: list[int]) -> dict[str, list[Any]]:
    """Name, revision and examples of every task that is there, as the replicas tell in turn."""
    sentences = serving.texts(soak_clients.POOL, soak_clients.SEED)
    place = {sentence: i for i, sentence in enumerate(sentences)}
    get = lambda port, path: json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60))  # noqa: E731
    found: dict[str, list[Any]] = {}
    after = ""
    while after is not None:
        page = get(ports[0], f"/tasks?limit=100{after and '&after=' + after}")
        for task in page["tasks"]:
            shown = get(ports[len(found) % 2], f"/tasks/{task['id']}")
            examples = [[one["id"], [one["label"], place[one["input"]]]] for one in shown["examples"]]
            found[task["id"]] = [shown["name"], shown["revision"], examples]
        after = page["next"]
    return found


def failures(requests: list[Line], happened: Line) -> Line:
    """Requests that were not answered as they should be: in flight on the killed process, or not."""
    killed, gone = happened["kill"]
    failed = [line for line in requests if line["status"] != soak_clients.STATUS[line["kind"]]]
    excused = [
        line
        for line in failed
        if not line["status"] and line["port"] == happened["killed port"]
        if line["start"] <= gone and line["end"] >= killed
    ]
    others = [line for line in failed if line not in excused]
    first = [{name: line[name] for name in ("kind", "port", "status", "reply")} for line in others[:5]]
    return {"in flight on the killed process": len(excused), "beyond those": len(others), "the first": first}


def lost(lines: list[Line], happened: Line) -> Line:
    """What the clients know of and the service does not, or otherwise, or the other way round."""
    known: dict[str, Any] = {}
    deleted: set[str] = set()
    for line in lines:
        if line["kind"] == "known":
            known |= line["tasks"]
            deleted |= set(line["deleted"])
    unsure = {line["name"] for line in lines if line["kind"] == "create" and line["status"] != 201}
    there = happened["left"]
    return {
        "acknowledged tasks at the end": len(known),
        "lost tasks": len(known.keys() - there.keys()),
        "tasks with other examples": sum(known[id] != there[id] for id in known.keys() & there.keys()),
        "deleted tasks that are there": len(deleted & there.keys()),
        "tasks that nobody made": sum(id not in known and task[0] not in unsure for id, task in there.items()),
        "surprises on the way": sum(line["kind"] == "surprise" for line in lines),
    }


def stale(answers: list[Line], happened: Line) -> Line:
    """Answers of a version that was not the champion, and how long the one before went on answering."""
    moves = [happened["start"], happened["move to 2"], happened["move to 3"], [float("inf")] * 2]
    wrong, after = 0, {"move to 2": 0.0, "move to 3": 0.0}
    for line in answers:
        version = int(line["reply"]["model"]["version"])
        ended = moves[version][1]
        wrong += line["end"] < moves[version - 1][0] or line["start"] > ended + WINDOW
        if version < 3:
            name = f"move to {version + 1}"
            after[name] = max(after[name], line["start"] - ended)
    back = 0  # a replica that has gone on to a version does not go back
    for port in {line["port"] for line in answers}:
        own = sorted((line for line in answers if line["port"] == port), key=lambda line: line["end"])
        ends = [line["end"] for line in own]
        newest = list(accumulate((int(line["reply"]["model"]["version"]) for line in own), max, initial=0))
        back += sum(newest[bisect(ends, one["start"])] > int(one["reply"]["model"]["version"]) for one in own)
    seconds = {name: round(value, 1) for name, value in after.items()}
    return {"outside the window": wrong, "older than the replica's last": back, "s until the last old answer": seconds}


def wrong(answers: list[Line], folders: dict[str, Path], false_alarm: float) -> Line:
    """Answers that are not what the version they name makes of the acknowledged examples."""
    from quickstudy.adaptation.adapted import Answers, Task, adapt, answer, encode
    from quickstudy.model.store import load_model, weights_digest
    from quickstudy.serving.engine.packing import pack, unpack

    sentences = serving.texts(soak_clients.POOL, soak_clients.SEED)
    models = {version: load_model(folder, "classify") for version, folder in folders.items()}
    digests = {version: weights_digest(folder, "classify") for version, folder in folders.items()}
    vectors = {version: encode(model, "text", sentences) for version, model in models.items()}
    kept = {version: unpack(pack(rows)) for version, rows in vectors.items()}

    @functools.lru_cache(4096)
    def adapted(version: str, examples: tuple[tuple[str, int], ...]) -> Any:
        labels, places = zip(*examples, strict=True)
        task = Task("classify", "text", labels, kept[version][list(places)], digests[version])
        return adapt(models[version], task, false_alarm)

    def expected(version: str, line: Line) -> Answers:
        task = adapted(version, tuple((label, place) for _, label, place in line["examples"]))
        return answer(models[version], task, vectors[version][line["queries"]])

    def apart(line: Line, version: str) -> float:
        """The largest difference of a probability."""
        own = expected(version, line)
        rows = [[one["probabilities"].get(name, -1.0) for name in own.names] for one in line["reply"]["answers"]]
        return float(abs(own.probabilities - rows).max())

    found, far, blind = Counter[str](), 0.0, 0
    for line in answers:
        reply = line["reply"]
        version = reply["model"]["version"]
        distance = apart(line, version)
        far = max(far, distance)
        told = [max(one["probabilities"], key=one["probabilities"].get) for one in reply["answers"]]
        found["another digest"] += reply["model"]["digest"] != digests[version]
        found["another revision"] += reply["revision"] != line["revision"]
        found["other probabilities"] += distance > TOLERANCE
        found["a label that is not the likeliest"] += told != [one["label"] for one in reply["answers"]]
        blind += any(apart(line, other) <= TOLERANCE for other in folders if other != version)
    faults = {name: found[name] for name in sorted(found)}
    return {**faults, "largest difference": round(far, 4), "another version would have passed": blind}


def summary(requests: list[Line], happened: Line) -> Line:
    took = sorted(line["end"] - line["start"] for line in requests)
    found = {
        "requests": len(requests),
        "of each": dict(Counter(line["kind"] for line in requests).most_common()),
        "p50 ms": round(1000 * took[len(took) // 2]),
        "p99 ms": round(1000 * took[int(len(took) * 0.99)]),
        "refused by the killed replica and sent to the other": sum(line["refused"] > 0 for line in requests),
    }
    for name in ("restart", "stop and start"):
        begun, ended = happened[name]
        during = [line["end"] - line["start"] for line in requests if line["end"] > begun and line["start"] < ended]
        found[f"database: {name}"] = {
            "took s": round(ended - begun, 1),
            "requests meanwhile": len(during),
            "slowest s": round(max(during), 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--model", default="models:/quickstudy@champion")
    chosen = parser.parse_args()

    from quickstudy.system.environment import apply_environment

    project = chosen.folder.resolve() / "project"
    project.mkdir(parents=True)
    shutil.copy(serving.REPOSITORY / "dvc.yaml", project)
    # In bfloat16 an answer depends more on what shares its batch, and could not be worked out again so closely.
    exact = (serving.REPOSITORY / "params.yaml").read_text().replace("precision: auto", "precision: float32")
    (project / "params.yaml").write_text(exact)
    apply_environment(project)
    from quickstudy.config import load_settings

    folders = versions(project, chosen.model)
    lines, happened = soak(chosen.folder.resolve(), chosen.seconds, chosen.clients)
    requests = [line for line in lines if "status" in line]
    answers = [line for line in requests if line["kind"] == "predict" and line["status"] == 200]
    false_alarm = load_settings(project / "params.yaml").serve.false_alarm
    result = {
        "seconds": chosen.seconds,
        "clients": chosen.clients,
        **summary(requests, happened),
        "failed requests": failures(requests, happened),
        "tasks": lost(lines, happened),
        "answers": {
            "checked": len(answers),
            "of each version": dict(sorted(Counter(one["reply"]["model"]["version"] for one in answers).items())),
            **stale(answers, happened),
            **wrong(answers, folders, false_alarm),
        },
        "errors of the service's own": happened["errors of the service's own"],
    }
    print(json.dumps(result, indent=1))
    (serving.REPOSITORY / "benchmarks/results/serving_soak.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
