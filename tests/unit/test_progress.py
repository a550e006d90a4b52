import io
import json
import subprocess
import sys

import pytest

from quickstudy.system import progress

TOLD = {"event": "progress", "what": "meta-train", "done": 1051, "total": 6400}
MISTAKE = {"event": "error", "text": "data/wörter: one class only"}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (TOLD, "meta-train: 1,051 of 6,400"),
        ({**TOLD, "total": 0}, "meta-train: 1,051"),
        ({"event": "summary", "text": "500 steps in 61 s"}, "500 steps in 61 s"),
        (MISTAKE, "quickstudy: data/wörter: one class only"),
        ({"event": "stopped", "text": "stopped"}, "quickstudy: stopped"),
    ],
)
def test_an_event_is_a_line_for_people_or_json_for_who_asks(
    event: progress.Event, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(progress.EVENTS, raising=False)
    told = io.StringIO()
    progress.say(event, told)
    assert told.getvalue() == f"{words}\n"
    assert progress.read_event(told.getvalue()) is None
    monkeypatch.setenv(*progress.asking().popitem())
    told = io.StringIO()
    progress.say(event, told)
    assert told.getvalue().count("\n") == 1 and told.getvalue().isascii()
    assert progress.read_event(told.getvalue()) == event


@pytest.mark.parametrize(
    "line",
    [
        "",
        "meta-train: 51 of 500",
        "{",
        '{"loss": 0.5}',
        '["event"]',
        "12",
        '{"event": 3}',
        '{"event": ["progress"]}',
        '{"event": "progress", "what": "an upload"}',
        '{"event": "user logged in", "level": "info"}',
    ],
)
def test_what_is_no_event_is_text(line: str) -> None:
    assert progress.read_event(line) is None


def test_who_was_asked_asks_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(progress.EVENTS, raising=False)
    assert progress.asking() == {progress.EVENTS: "10"} and not progress.asked()
    monkeypatch.setenv(progress.EVENTS, "0.5")
    assert progress.asking() == {progress.EVENTS: "0.5"} and progress.asked()
    assert progress.asking(1) == {progress.EVENTS: "1"}


def test_progress_is_told_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def work(steps: int) -> list[str]:
        with progress.showing_progress() as tell:
            for step in range(steps):
                tell("count", step + 1, steps)
        return capsys.readouterr().err.splitlines()

    monkeypatch.delenv(progress.EVENTS, raising=False)
    assert work(3) == []  # it is done before anybody asks
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    assert work(2) == ["count: 1 of 2", "count: 2 of 2"]
    monkeypatch.setenv(progress.EVENTS, "100")
    assert work(3) == []
    monkeypatch.setenv(progress.EVENTS, "1e-9")
    assert [json.loads(line)["done"] for line in work(2)] == [1, 2]


def test_lines_of_several_processes_stay_whole() -> None:
    code = (
        "import sys; from quickstudy.system.progress import say\n"
        "for n in range(300): say({'event': 'progress', 'what': 'x' * 200, 'done': n, 'total': 300}, sys.stderr)"
    )
    command = f'for i in 1 2 3; do "{sys.executable}" -u -c "$CODE" & done; wait'
    env = {"CODE": code, "PYTHONPATH": ":".join(sys.path), **progress.asking()}
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, env=env, check=True)
    read = [progress.read_event(line) for line in done.stderr.splitlines()]
    assert len(read) == 900 and None not in read
