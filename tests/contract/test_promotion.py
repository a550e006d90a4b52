"""Aliases and their ledger in registry.py, against the real MLflow on SQLite: kills, races, bad input."""

import contextlib
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from quickstudy import registry
from quickstudy.config import load_settings
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.gate import Contender, Evidence, judge_kinds
from quickstudy.evaluation.rules import Rule
from quickstudy.registry import promotions
from quickstudy.registry.ledger import Move
from tests.toy.project import REPOSITORY


def client(root: Path) -> Any:
    from mlflow import MlflowClient

    uri = registry.tracking_uri(root)
    return MlflowClient(uri, uri)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with three versions as registration leaves them, their runs, their files, and one line in the ledger: a
    person lets the aliases stand where they were found."""
    from mlflow.entities import Metric, Param

    root = tmp_path_factory.mktemp("three versions")
    registry.prepare(root)
    mlflow = client(root)
    experiment = mlflow.get_experiment_by_name("quickstudy").experiment_id
    mlflow.create_registered_model("quickstudy")
    for number in (1, 2, 3):
        run = mlflow.create_run(experiment).info.run_id
        mlflow.log_batch(
            run, [Metric("evaluate/digits.1-shot.accuracy", 0.5 + number / 10, 0, 0)], [Param("seed", str(number))]
        )
        folder = root / f"mlruns/artifacts/version{number}/data/model"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(bytes([number]) * 1000)
        (folder / "config.yaml").write_text("dimension: 8\n")
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
        mlflow.create_model_version(
            "quickstudy",
            folder.parents[1].as_uri(),
            run,
            tags={"registered": "true", "model_files": json.dumps(digests), "data_hash": f"data {number}"},
        )
    for alias, version in {"champion": 1, "challenger": 3, "previous": 2}.items():
        mlflow.set_registered_model_alias("quickstudy", alias, str(version))
    registry.accept_breaks(root, "as they were found")
    return root


@pytest.fixture
def three(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "mlruns", tmp_path / "mlruns")
    return tmp_path


BEFORE = {"champion": 1, "challenger": 3, "previous": 2}
AFTER = {"champion": 3, "previous": 1}


def test_a_promotion_moves_the_aliases_and_says_who_when_and_why(three: Path) -> None:
    evidence = {"answer": "PROMOTE", "gain": [0.1, None]}
    registry.promote(three, 3, against=1, why="it hears children", evidence=evidence)
    assert registry.aliases(three) == AFTER
    found = registry.read_ledger(three)
    assert found.states() == {2: "done"} and found.standing() == {**AFTER, "challenger": None}
    line = found.entries[2]
    assert (line.verb, line.why, line.evidence) == ("promote", "it hears children", evidence)
    assert line.moves[0] == Move("champion", 1, 3) and "@" in line.who and line.when.startswith("20")
    assert client(three).get_registered_model("quickstudy").tags["ledger_end"] == found.last

    registry.promote(three, 1, against=3, why="it is slow", verb="rollback")
    assert registry.aliases(three) == {"champion": 1, "previous": 3}
    assert [line.verb for line in registry.read_ledger(three).entries.values()] == [
        "accept",
        *["promote"] * 2,
        *["rollback"] * 2,
    ]


def answered(kind: str, score: float) -> pd.DataFrame:
    """Episodes of eight datasets of a kind."""
    places = [(f"{kind} {d}", i) for d in range(8) for i in range(20)]
    frame = pd.DataFrame(places, columns=["dataset", "episode"]).assign(method="quickstudy", shot=5, way=5, query=5)
    spread = np.random.default_rng(0).normal(0, 0.01, len(frame))
    return frame.assign(suite=frame["dataset"], score=score + spread, nll=1 - score, adapt_ms=10.0)


def test_a_verdict_on_many_kinds_is_kept_whole_with_the_move(three: Path, tmp_path: Path) -> None:
    evidence = []
    for kind, gain in {"tag": 0.05, **{f"kind {i}": 0.0 for i in range(7)}}.items():
        sides = [
            Contender(f"version {n}", answered(kind, score), {}, ["text"], 2, 6.0, "data", kind)
            for n, score in ((1, 0.8), (3, 0.8 + gain))
        ]
        baseline = answered(kind, 0.5).assign(method="logreg_raw")
        evidence.append(Evidence(sides[1], sides[0], baseline, {}, "data", kind, kind, "micro F1"))
    verdict = judge_kinds(evidence, load_settings(REPOSITORY / "params.yaml").gate)
    record = json.loads(json.dumps(verdict.record()))
    assert verdict.answer == "PROMOTE" and "in tag +5.0 points of micro F1 over version 1" in verdict.sentence
    folder = tmp_path / "gate"
    folder.mkdir()
    (folder / "verdict.json").write_text(json.dumps(record))
    registry.log_gate(three, 3, 1, verdict.answer, folder)
    registry.promote(three, 3, against=1, why=verdict.sentence, evidence=record)
    entry = registry.read_ledger(three).at("champion", "9999")
    assert entry is not None and entry.evidence == record and entry.why == verdict.sentence
    assert entry.evidence["kinds"] == {"tag": "PROMOTE", **{f"kind {i}": "HOLD" for i in range(7)}}
    assert tuple(Rule.of(rule) for rule in entry.evidence["rules"]) == verdict.rules
    found = registry.version(three, "3")
    assert found.tags["gate"] == "PROMOTE"
    kept = client(three).download_artifacts(found.run_id, "gate/verdict.json", str(tmp_path))
    assert json.loads(Path(kept).read_text()) == record


def test_whoever_asks_again_is_told_what_is_done(three: Path) -> None:
    plan = registry.Plan("promote", 3, 1)
    assert registry.moved(three, plan) is None
    with pytest.MonkeyPatch.context() as patch:  # killed after the first alias
        patch.setattr("mlflow.MlflowClient.delete_registered_model_alias", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            registry.promote(three, 3, against=1, why="better")
    entry = registry.moved(three, plan)
    assert entry is not None and entry.why == "better" and registry.aliases(three) == AFTER
    assert registry.moved(three, registry.Plan("promote", 2, 1)) is None
    registry.promote(three, 1, against=3, why="slow", verb="rollback")
    assert registry.moved(three, plan) is None  # it was, and is no more


# Forks a process for every step of a promotion; it ends before its n-th write. Another one then reads the ledger.
KILLED = """
import json, os, sys
from pathlib import Path
from mlflow import MlflowClient
from quickstudy import registry
from quickstudy.registry import promotions

root, number, verb = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
database = root / "mlruns/mlflow.db"
saved = database.read_bytes()

def killed_at(n):
    left = n
    def dying(method):
        def call(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                os._exit(9)
            return method(*args, **kwargs)
        return call
    for name in ("create_registered_model", "create_model_version", "set_registered_model_alias",
                 "delete_registered_model_alias", "set_registered_model_tag"):
        setattr(MlflowClient, name, dying(getattr(MlflowClient, name)))

def forked(body):
    pid = os.fork()
    if pid == 0:
        try:
            body()
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def promote(n):
    killed_at(n)
    registry.promote(root, number, against=1, why="a test", verb=verb)

rows, n, code = [], 1, 9
while code:
    database.write_bytes(saved)
    code = forked(lambda: promote(n))
    between = registry.aliases(root)
    assert code in (0, 9), n
    assert forked(lambda: registry.read_ledger(root)) == 0, n
    found = promotions.ledger_now(root)
    rows.append({"step": n, "code": code, "between": between, "after": registry.aliases(root),
                 "open": found.open is not None, "breaks": len(found.breaks), "states": list(found.states().values())})
    again = forked(lambda: registry.promote(root, number, against=1, why="again", verb=verb)) if n % 3 == 0 else None
    rows[-1]["again"] = again
    rows[-1]["end"] = registry.aliases(root)
    n += 1
print(json.dumps(rows))
"""


@pytest.mark.parametrize(
    ("number", "verb", "after"), [(3, "promote", AFTER), (2, "rollback", {**BEFORE, "champion": 2, "previous": 1})]
)
def test_killed_before_any_step_all_or_nothing_has_moved(
    three: Path, number: int, verb: str, after: dict[str, int]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(three), str(number), verb], capture_output=True, text=True, cwd=three
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["code"] for row in rows] == [9] * (len(rows) - 1) + [0] and len(rows) >= 6
    for row in rows:
        assert row["after"] in (BEFORE, after), row
        assert row["between"]["champion"] == row["after"]["champion"], row  # what a reader has seen stays true
        assert not row["open"] and row["breaks"] == 0, row
        assert row["states"] == (["done"] if row["after"] == after else ["struck"] * len(row["states"])), row
        if row["again"] is not None:  # the same command once more
            assert row["again"] == (1 if row["after"] == after else 0) and row["end"] == after, row
    outcomes = [row["after"] == after for row in rows]
    assert not outcomes[0] and outcomes[-1] and outcomes == sorted(outcomes)


def test_a_process_killed_while_sqlite_wrote_blocks_nobody(three: Path) -> None:
    code = (
        "import os, signal, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1])\n"
        "database.execute('PRAGMA cache_size = 1')\n"  # pages go to the file long before the commit
        "database.execute('DELETE FROM registered_model_aliases')\n"
        "database.executemany('INSERT INTO params VALUES (?, ?, ?)', [(str(i), 'x' * 500, '') for i in range(2000)])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(three / "mlruns/mlflow.db")])
    assert (three / "mlruns/mlflow.db-journal").stat().st_size > 0
    assert registry.aliases(three) == BEFORE


def test_of_two_promotions_at_once_one_wins_and_the_other_says_so(three: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom mlflow import MlflowClient\nfrom quickstudy import registry\n"
        "from quickstudy.errors import QuickstudyError\n"
        "print('ready', flush=True)\nsys.stdin.readline()\n"
        "try: registry.promote(Path('.'), int(sys.argv[1]), against=1, why='a race')\n"
        "except QuickstudyError as error: print(error)\n"
        "else: print('won')\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number)],
            cwd=three,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in (2, 3)
    ]
    for process in running:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {number: process.communicate()[0].strip() for number, process in zip((2, 3), running, strict=True)}
    (winner,) = [number for number, line in said.items() if line == "won"]
    loser = said[5 - winner]
    assert "the champion has changed meanwhile, from version 1 to version" in loser and "(promote of version" in loser
    assert registry.aliases(three)["champion"] == winner
    assert list(registry.read_ledger(three).states().values()) == ["done"]


# A store of many, where no lock of one machine holds.


@pytest.fixture
def shared(three: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two projects, on two machines as it were, with one store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{three}/mlruns/mlflow.db")
    return [tmp_path_factory.mktemp("machine") for _ in range(2)]


@contextlib.contextmanager
def just_before(method: str, action: Callable[[], None]) -> Iterator[None]:
    """Do something before the first call of a method of MLflow's client."""
    import mlflow

    real, todo = getattr(mlflow.MlflowClient, method), [action]

    def call(*args: Any, **kwargs: Any) -> Any:
        if todo:
            todo.pop()()
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, method, call)
        yield


def test_a_shared_store_keeps_its_own_ledger(shared: list[Path]) -> None:
    one, other = shared
    registry.promote(one, 3, against=1, why="better")
    assert registry.aliases(other) == AFTER and registry.read_ledger(other).states() == {2: "done"}
    assert registry.version(other, "champion").metrics == {"evaluate/digits.1-shot.accuracy": 0.8}
    with pytest.raises(QuickstudyError, match="changed meanwhile"):
        registry.promote(other, 2, against=1, why="better")
    with pytest.raises(QuickstudyError, match="no such version"):
        registry.promote(other, 9, against=3, why="better")


def test_the_order_of_the_ledger_decides_between_machines(shared: list[Path]) -> None:
    one, other = shared
    with (
        just_before("create_model_version", lambda: registry.promote(other, 2, against=1, why="quicker") and None),
        pytest.raises(QuickstudyError, match=r"another promotion came first \(promote of version 2"),
    ):
        registry.promote(one, 3, against=1, why="better")
    assert registry.aliases(one) == {"champion": 2, "previous": 1, "challenger": 3}
    found = registry.read_ledger(one)
    assert list(found.states().values()) == ["done"] and found.breaks == ()


def test_a_move_under_way_elsewhere_is_left_alone_and_one_taken_for_dead_yields(
    shared: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = shared
    refused: list[str] = []

    def early() -> None:
        with pytest.raises(registry.Moving, match="has been moving aliases for") as error:
            registry.promote(other, 2, against=1, why="quicker")
        refused.append(str(error.value))

    with just_before("set_registered_model_alias", early):
        registry.promote(one, 3, against=1, why="better")
    assert refused and registry.aliases(one) == AFTER

    monkeypatch.setattr(promotions, "MOVE_SECONDS", -1.0)
    with (
        just_before(
            "set_registered_model_alias", lambda: registry.promote(other, 2, against=3, why="quicker") and None
        ),
        pytest.raises(QuickstudyError, match=r"another promotion came first \(promote of version 2"),
    ):
        registry.promote(one, 1, against=3, why="slow", verb="rollback")
    assert registry.aliases(one) == {"champion": 2, "previous": 3}
    assert list(registry.read_ledger(one).states().values()) == ["done", "struck", "done"]


# Bad input


def edit_line(root: Path, number: int) -> None:
    with contextlib.closing(sqlite3.connect(root / "mlruns/mlflow.db")) as connection, connection:
        connection.execute(
            "UPDATE model_version_tags SET value = replace(value, 'better', 'worse!') WHERE name = ? AND version = ?",
            ("quickstudy-ledger", number),
        )


def refused(root: Path, match: str, number: int = 3, against: int | None = 1) -> None:
    """One clear line, and nothing moved."""
    before = registry.aliases(root), promotions.ledger_now(root)
    with pytest.raises(QuickstudyError, match=match) as error:
        registry.promote(root, number, against=against, why="a try")
    assert "\n" not in str(error.value) and (registry.aliases(root), promotions.ledger_now(root)) == before


def test_what_cannot_serve_is_not_promoted(three: Path) -> None:
    refused(three, "models:/quickstudy/7: there is no such version. Known models: models:/quickstudy@challenger", 7)
    refused(three, "models:/quickstudy/1: is the champion already", 1)
    refused(three, "has changed meanwhile, from version 2 to version 1", 3, against=2)
    refused(three, "has changed meanwhile, from none to version 1", 3, against=None)
    weights = three / "mlruns/artifacts/version3/data/model/model.safetensors"
    flipped = bytearray(weights.read_bytes())
    flipped[500] ^= 1
    weights.write_bytes(flipped)
    refused(three, "models:/quickstudy/3: model.safetensors was changed since the model was registered")
    client(three).delete_run(client(three).get_model_version("quickstudy", "2").run_id)
    refused(three, r"models:/quickstudy/2: its run \w+ was deleted. Restore it", 2)
    client(three).delete_model_version("quickstudy", "2")
    refused(three, "@previous was taken away by another tool: the ledger says version 2, which was deleted", 2)
    registry.accept_breaks(three, "we do not need it")
    refused(three, "models:/quickstudy/2: there is no such version", 2)
    client(three).delete_model_version_tag("quickstudy", "3", "registered")
    refused(three, "models:/quickstudy/3: its registration was cut off")


def test_every_load_looks_at_every_file(three: Path) -> None:
    folder = registry.resolve("models:/quickstudy@champion", three)
    (folder / "config.yaml").write_text("dimension: 9\n")
    for uri in ("models:/quickstudy@champion", "models:/quickstudy/1"):
        with pytest.raises(QuickstudyError, match=f"{uri}: config.yaml was changed since"):
            registry.resolve(uri, three)
    (folder / "config.yaml").unlink()
    with pytest.raises(QuickstudyError, match=r"config.yaml is missing since"):
        registry.resolve("models:/quickstudy/1", three)
    (folder / "config.yaml").write_text("dimension: 8\n")
    assert registry.resolve("models:/quickstudy/1", three) == folder
    (folder / "more.yaml").touch()
    with pytest.raises(QuickstudyError, match=r"more.yaml was added since"):
        registry.resolve("models:/quickstudy/1", three)


def test_with_an_edited_ledger_nothing_moves_until_a_person_lets_it_stand(three: Path) -> None:
    registry.promote(three, 3, against=1, why="better")
    edit_line(three, 2)
    refused(three, "line 2 was edited.*quickstudy history --accept", 2, against=3)
    assert [broken.number for broken in registry.accept_breaks(three, "a test of ours")] == [2]
    registry.promote(three, 2, against=3, why="better")
    found = registry.read_ledger(three)
    assert registry.aliases(three) == {"champion": 2, "previous": 3}
    assert found.broken == () and [broken.number for broken in found.breaks] == [2]
    with pytest.raises(QuickstudyError, match="the ledger is whole"):
        registry.accept_breaks(three, "again")
    client(three).delete_registered_model("quickstudy-ledger")
    refused(three, "line 1 is missing: the ledger once went on", 3, against=2)


def test_a_version_is_found_by_its_number_its_alias_or_its_uri(three: Path) -> None:
    found = registry.version(three, "2")
    assert (found.number, found.aliases, found.parameters) == (2, ("previous",), {"seed": "2"})
    assert found.metrics == {"evaluate/digits.1-shot.accuracy": 0.7} and found.tags["data_hash"] == "data 2"
    for name in ("previous", "@previous", "models:/quickstudy@previous", "models:/quickstudy/2"):
        assert registry.version(three, name) == found
    with pytest.raises(QuickstudyError, match="@best: no version has this alias"):
        registry.version(three, "best")
