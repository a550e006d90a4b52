"""Kill -9 a promotion at every SQL statement and count the registries that are broken afterwards; time the ledger.

    .venv/bin/python benchmarks/promotion_kills.py [--kills 200] [--versions 1000]

A promotion (or a rollback) runs in a process of its own on a real MLflow store on SQLite and gets SIGKILL right before
its n-th statement, in the middle of a transaction as well as between two. Then another process reads the ledger, which
completes or strikes what was cut off, and, after every fourth kill, a third repeats the command. A registry counts as
broken where at any of these moments it has no champion, the champion that a reader saw is taken back, an alias stands
where neither the old nor the new state has it, the ledger's chain does not hold or contradicts the aliases, or the
command then fails.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from sqlalchemy import Engine, event

from quickstudy import registry
from quickstudy.registry import lines, promotions, store
from quickstudy.registry.ledger import Move

REPOSITORY = Path(__file__).parents[1]

BEFORE = {"champion": 1, "challenger": 3, "previous": 2}
COMMANDS = {
    "promote": (3, {"champion": 3, "previous": 1}),
    "rollback": (2, {"champion": 2, "previous": 1, "challenger": 3}),
}


def forked(body: Callable[[], Any]) -> int:
    """The exit code of a child that runs the body; minus the signal's number where one ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            body()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def make_store(root: Path, in_ledger: bool = True) -> None:
    registry.prepare(root)
    uri = registry.tracking_uri(root)
    client = MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(registry.NAME).experiment_id
    client.create_registered_model(registry.NAME)
    for number in (1, 2, 3):
        run = client.create_run(experiment).info.run_id
        folder = root / f"mlruns/artifacts/{number}/data/model"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes([number]) * 1000)
        digests = {"model.safetensors": hashlib.sha256(bytes([number]) * 1000).hexdigest()}
        tags = {store.REGISTERED: "true", store.FILES: json.dumps(digests)}
        client.create_model_version(registry.NAME, folder.parents[1].as_uri(), run, tags=tags)
    for alias, number in BEFORE.items():
        client.set_registered_model_alias(registry.NAME, alias, str(number))
    if in_ledger:
        registry.accept_breaks(root, "as they were found")


def command(root: Path, verb: str, kill_at: int | None) -> None:
    """The promotion; SIGKILL right before its n-th statement or commit."""
    left = kill_at or -1

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    registry.promote(root, COMMANDS[verb][0], against=1, why="a test", verb=verb)


def faults(root: Path, verb: str, saved: bytes, kill_at: int) -> tuple[list[str], str]:
    """What is broken after one kill, and how it ended: "undone", "completed" or "not killed"."""
    after = COMMANDS[verb][1]
    (root / "mlruns/mlflow.db-journal").unlink(missing_ok=True)  # of the kill before
    (root / "mlruns/mlflow.db").write_bytes(saved)
    found = []
    code = forked(lambda: command(root, verb, kill_at))
    if code not in (0, -signal.SIGKILL):
        found.append(f"ended with {code}")
    seen = registry.aliases(root).get("champion")
    if seen not in (1, after["champion"]):
        found.append(f"champion {seen} after the kill")
    if forked(lambda: registry.read_ledger(root)) != 0:
        found.append("the ledger was not settled")
    aliases, ledger = registry.aliases(root), promotions.ledger_now(root)
    if aliases not in (BEFORE, after):
        found.append(f"aliases {aliases}")
    if aliases.get("champion") != seen:
        found.append("the champion that a reader saw was taken back")
    if ledger.breaks or ledger.open:
        found.append("the ledger is broken or open")
    if any(aliases.get(alias) != number for alias, number in ledger.standing().items()):
        found.append("the ledger contradicts the aliases")
    if kill_at % 4:  # repeated after every fourth kill
        return found, "not killed" if code == 0 else "undone" if aliases == BEFORE else "completed"
    repeat = lambda: registry.promote(root, COMMANDS[verb][0], against=1, why="again", verb=verb)  # noqa: E731
    again = forked(repeat) if aliases == BEFORE else 0
    if again != 0 or registry.aliases(root) != after:
        found.append("the command does not work afterwards")
    return found, "not killed" if code == 0 else "undone" if aliases == BEFORE else "completed"


def kill(kills: int, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Sweeps over all statements of both commands, until there were so many kills; ``keep`` gets each state."""
    counts: Counter[str] = Counter()
    broken: list[str] = []
    statements: dict[str, int] = {}
    result: dict[str, Any] = {}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "mlruns").mkdir()
        assert forked(lambda: make_store(root)) == 0
        saved = (root / "mlruns/mlflow.db").read_bytes()
        while counts["undone"] + counts["completed"] < kills or len(statements) < len(COMMANDS):
            kill_at, alive = 0, list(COMMANDS)
            while alive:  # every statement, however many there are
                kill_at += 1
                for verb in list(alive):
                    found, outcome = faults(root, verb, saved, kill_at)
                    counts[outcome] += 1
                    broken += [f"{verb}, statement {kill_at}: {line}" for line in found]
                    if outcome == "not killed":
                        alive.remove(verb)
                        statements[verb] = kill_at - 1
                    result = {
                        "kills": counts["undone"] + counts["completed"],
                        "undone": counts["undone"],
                        "completed": counts["completed"],
                        "broken": broken,
                        "statements": statements,
                        "swept to statement": kill_at,
                        "seconds": round(time.monotonic() - start, 1),
                    }
                    keep(result)
    return result


def fill(root: Path, versions: int) -> None:
    """A store with many versions, each registered, every third promoted, written as MLflow writes them."""
    import sqlite3

    from quickstudy.registry import ledger

    make_store(root, in_ledger=False)
    with sqlite3.connect(root / "mlruns/mlflow.db") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(model_versions)")]
        (first,) = database.execute("SELECT * FROM model_versions WHERE version = 1").fetchall()
        template = dict(zip(columns, first, strict=True))
        run_columns = [row[1] for row in database.execute("PRAGMA table_info(runs)")]
        run_row = dict(zip(run_columns, database.execute("SELECT * FROM runs LIMIT 1").fetchone(), strict=True))

        def insert(table: str, row: dict[str, Any]) -> None:
            marks = ", ".join("?" * len(row))
            database.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))

        for number in range(4, versions + 1):
            run = f"{number:032x}"
            insert("runs", {**run_row, "run_uuid": run, "name": run})
            insert("model_versions", {**template, "version": number, "run_id": run})
            for key, value in ((store.REGISTERED, "true"), ("data_hash", run), ("git_commit", run)):
                tag = {"name": registry.NAME, "version": number, "key": key, "value": value}
                insert("model_version_tags", {**tag, "workspace": template["workspace"]})
            for index in range(60):
                insert("params", {"key": f"p{index}", "value": str(number + index), "run_uuid": run})
            for index in range(150):
                metric = {"key": f"evaluate/suite{index}.1-shot.accuracy", "value": index / number, "timestamp": 0}
                insert("latest_metrics", {**metric, "step": 0, "is_nan": 0, "run_uuid": run})
        insert("registered_models", {"name": promotions.LEDGER, "creation_time": 0, "last_updated_time": 0})
        last, line, champion, standing = ledger.START, 0, 1, dict[str, int | None]()
        evidence = {"answer": "PROMOTE", "rules": [{"name": f"rule {i}", "gain": 0.01 * i} for i in range(20)]}
        for number in range(4, versions + 1):
            verbs = [("register", [Move("challenger", number - 1, number)])]
            if number % 3 == 0:
                verbs.append(("promote", [Move("champion", champion, number), Move("previous", None, champion)]))
                champion = number
            for verb, moves in verbs:
                standing |= {move.alias: move.target for move in moves}
                who = {"when": "2026-03-03T10:00:00+00:00", "who": "ada@lab"}
                proof = evidence if verb == "promote" else None
                intent = ledger.entry("intent", verb, before=last, why="x", moves=moves, evidence=proof, **who)
                done = ledger.entry("done", verb, before=intent.digest, of=intent.digest, **who)
                last = done.digest
                for entry in (intent, done):
                    line += 1
                    insert("model_versions", {**template, "name": promotions.LEDGER, "version": line, "run_id": None})
                    tag = {"name": promotions.LEDGER, "version": line, "key": lines.ENTRY, "value": entry.line}
                    insert("model_version_tags", {**tag, "workspace": template["workspace"]})
        for alias, number in standing.items():
            database.execute("UPDATE registered_model_aliases SET version = ? WHERE alias = ?", (number, alias))


def look_up(versions: int, repeats: int = 3) -> dict[str, Any]:
    """Seconds of `quickstudy history` and `diff` as a person calls them, the best of a few."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "mlruns").mkdir()
        for name in ("params.yaml", "dvc.yaml"):
            shutil.copy(REPOSITORY / name, root / name)
        assert forked(lambda: fill(root, versions)) == 0
        for words in (["history"], ["history", "--json"], ["diff", "7", str(versions)]):
            times = []
            for _ in range(repeats):
                start = time.monotonic()
                done = subprocess.run(
                    [sys.executable, "-m", "quickstudy", *words], cwd=root, capture_output=True, text=True
                )
                times.append(time.monotonic() - start)
                assert done.returncode == 0, done.stderr
            seconds[" ".join(words[:1] + words[1:] * (words[0] == "history"))] = round(min(times), 2)
    return {"versions": versions, "seconds": seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--versions", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks/results/promotion_kills.json")
    asked = parser.parse_args()
    result = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    if asked.versions:
        result["look-up"] = look_up(asked.versions)
        for verb, seconds in result["look-up"]["seconds"].items():
            print(f"quickstudy {verb:<16} {seconds:6.2f} s on {asked.versions} versions")
    if asked.kills:

        def keep(so_far: dict[str, Any]) -> None:
            result["kill"] = so_far
            asked.out.write_text(json.dumps(result, indent=1) + "\n")

        kill(asked.kills, keep)
        shown = result["kill"]
        print(
            f"{shown['kills']} kills at every statement of {shown['statements']}: {shown['undone']} undone, "
            f"{shown['completed']} completed, {len(shown['broken'])} broken"
        )
        print(*shown["broken"], sep="\n")
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    return bool(asked.kills and result["kill"]["broken"])


if __name__ == "__main__":
    sys.exit(main())
