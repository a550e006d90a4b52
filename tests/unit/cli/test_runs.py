"""`quickstudy runs` as it looks. What it reads: tests/flows and tests/unit/test_runs.py."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from quickstudy import runs
from quickstudy.runs import FlowRun, Overview, Step, WorkPool

Tell = Callable[..., tuple[int, str, str]]
START = datetime(2026, 3, 3, 2, 0, tzinfo=UTC)
WHAT = (
    "tickets had 12 new examples; tasks, meta_train, evaluate and card ran; the gate says HOLD: +0.4 points [−0.2, 1.0]"
)


def made(name: str, state: str, minutes: float | None = 12.5, **more) -> FlowRun:
    seconds = minutes and 60 * minutes
    about = {"flow": "retrain", "deployment": "home", "pool": "cpu", "started_by": "schedule", "when": START}
    about |= {"ended": None, "seconds": seconds, "what": "", "error": "", "steps": (), "parameters": {}, "tags": ()}
    return FlowRun(id=f"id of {name}", name=name, state=state, page=None, **{**about, **more})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Overview:
    """What a team finds on a Monday."""
    found = Overview(
        (
            made("accelerated-woodpecker", "suspended", None, flow="promote", what="waits for a person's word"),
            made("gentle-boar", "running", 185.0, started_by="data of tickets"),
            made("bold-[red]-ox", "completed", what=WHAT),
            made("quiet-newt", "crashed", what="Flow run process exited with 137"),
        ),
        (WorkPool("cpu", 1, 0, 2), WorkPool("gpu", 0, 2, 0)),
        {"retrain/home": datetime.now(UTC) + timedelta(hours=5, minutes=10), "watch/home": None},
    )
    monkeypatch.setattr(runs, "overview", lambda *_: found)
    return found


@pytest.mark.parametrize("columns", [80, 120, 139, 140, 160])
def test_it_fits_and_loses_no_word(seen: Overview, run: Tell, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, out, _ = run("runs")
    table = out.partition("\n\n")[0].splitlines()
    assert code == 0 and max(map(len, table)) <= columns
    for found in seen.runs:
        assert sum(found.name in line for line in table) == 1
    for words in ("2026-03-03 02:00", "3 h 05 min", "12 min 30 s", "data of tickets", "suspended"):
        assert any(words in line for line in table), words
    assert all(word in out for word in WHAT.split())
    # One line a run where there is room, else two; the long sentence takes what it needs.
    assert len(table) == {80: 11, 120: 9, 139: 9, 140: 7, 160: 6}[columns]


def test_long_words_of_people_are_folded(run: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    by = "data of " + ", ".join(f"dataset-number-{number}" for number in range(6))
    monkeypatch.setattr(runs, "overview", lambda *_: Overview((made("gentle-boar", "running", started_by=by),), (), {}))
    for columns in ("80", "160"):
        monkeypatch.setenv("COLUMNS", columns)
        _, out, _ = run("runs")
        assert max(map(len, out.splitlines())) <= int(columns)
        assert all(word in out for word in (*by.split(), "2026-03-03 02:00", "gentle-boar", "running", "12 min 30 s"))


def test_pools_and_plans(seen: Overview, run: Tell) -> None:
    _, out, _ = run("runs")
    lines = out.splitlines()[-4:]
    assert lines[0] == "cpu: 1 running, 0 waiting, 2 workers online"
    assert lines[1] == "gpu: 0 running, 2 waiting, no worker online. Start one: quickstudy worker gpu"
    assert lines[2].startswith("next retrain/home: 2") and ", in 5 h " in lines[2]
    assert lines[3] == "next watch/home: not planned yet"


def test_one_run_in_full(run: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    child = made("small-cat", "failed", flow="meta-train", what="out of memory")
    one = made(
        "quiet-newt",
        "crashed",
        what="out of memory at step 3 of",
        error="out of memory\nat step 3 of\n  [meta_train]",
        steps=(Step("meta_train", "failed", 61.0, "on gpu"), Step("card", "up to date", None, "")),
        children=(child,),
        parameters={"data": "1a2b", "project": None},
        tags=("trigger:data",),
        parent="big-dog",
        ended=START,
    )
    monkeypatch.setattr(runs, "details", lambda *_: (one, made("quiet-newt", "completed")))
    code, out, _ = run("runs", "quiet-newt")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert code == 0 and lines[0] == "quiet-newt"
    for line in (
        "state crashed",
        "error out of memory",
        "at step 3 of",
        "[meta_train]",
        "part of big-dog",
        'parameters data: "1a2b"',
        "project: null",
        "tags trigger:data",
        "meta_train failed 1 min 01 s on gpu",
        "card up to date –",
        "started 2026-03-03 02:00:00 UTC",
        "Called so too: 2026-03-03 02:00 id of quiet-newt",
    ):
        assert line in lines, line
    assert any("small-cat" in line and "out of memory" in line for line in lines)


def test_what_cannot_be_is_one_line(run: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "empty"))
    assert run("runs") == (0, "Nothing has run yet: quickstudy run\n", "")
    assert run("runs", "--flow", "promote") == (0, "No run is so.\n", "")
    code, out, err = run("runs", "--state", "sunk")
    assert (code, out) == (2, "") and err.startswith("quickstudy: --state: 'sunk' is no state. Choose of completed, ")
    code, out, err = run("runs", "gentle-boar")
    assert (code, err) == (2, "quickstudy: gentle-boar: no run is called so. See quickstudy runs\n")
    monkeypatch.delenv("PREFECT_HOME")
    monkeypatch.chdir(tmp_path)
    code, out, err = run("runs")
    assert (code, out, err.count("\n")) == (2, "", 1) and "Run the command in the project's folder" in err
