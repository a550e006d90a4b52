"""When `quickstudy up` starts a look for new data."""

import io
from pathlib import Path

import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.runs import servers, watching, workspaces

PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(servers.time, "monotonic", lambda: clock[0])
    return clock


def test_a_look_is_started_once_for_each_reason(
    tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    reasons: dict[str, str] = {}
    started: list[str] = []
    refuses = False

    def start(api: str, deployment: str, tags: list[str]) -> None:
        if refuses:
            raise servers.ServerBusy("busy")
        started.append(" ".join(tags))

    monkeypatch.setattr(watching, "reasons", lambda *_: dict(reasons))
    monkeypatch.setattr(servers, "_start_run", start)
    watcher = servers.Watcher(tmp_path, {"PREFECT_API_URL": "http://127.0.0.1:1/api"}, io.StringIO())
    dead = [False]
    monkeypatch.setattr(watcher, "bury", lambda: dead[0])

    def after(seconds: float) -> list[str]:
        started.clear()
        now[0] += seconds
        watcher()
        return started

    every = watcher.settings.every
    assert after(0) == ["trigger:start"]
    assert after(every) == []
    dead[0] = True
    refuses = True
    assert after(every) == []
    dead[0] = refuses = False
    assert after(servers.SOON) == ["trigger:runs"]  # the refusal has not made it forget
    assert after(every) == []
    reasons["data"] = "a digest"
    assert after(every) == ["trigger:data"]
    assert after(every) == []  # it is being looked into
    reasons["data"] = "another digest"
    assert after(every) == ["trigger:data"]
    assert after(servers.AGAIN) == ["trigger:data"]  # and still is not done


def test_dead_runs_are_marked_by_a_process_that_is_not_started_in_vain(
    tmp_path: Path, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    left: dict[str, str] = {}
    said = {"1": "run a has crashed\n", "2": ""}
    asked: list[list[str]] = []

    class Done:
        def __init__(self) -> None:
            self.stdout = said["1" if "1" in left else "2"]

    def run(command: list[str], **_: object) -> Done:
        asked.append(command[1:])
        return Done()

    monkeypatch.setattr(workspaces, "abandoned", lambda _: list(left))
    monkeypatch.setattr(servers.subprocess, "run", run)
    log = io.StringIO()
    bury = servers.Undertaker(tmp_path, {}, log)
    assert not bury() and not asked
    left["2"] = "in order"
    assert not bury() and asked == [["-m", "flows.recovery"]]
    assert not bury() and len(asked) == 1  # the same, a moment later: Prefect's server is away
    left["1"] = "killed"
    assert bury() and log.getvalue() == "run a has crashed\n"
    now[0] += servers.AGAIN
    assert bury() and len(asked) == 3


def test_a_worker_waits_for_a_server_that_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[object] = [servers.ServerBusy("busy"), servers.ServerBusy("busy"), {"name": "gpu"}]

    def ask(api: str, path: str) -> object:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(servers, "_ask", ask)
    monkeypatch.setattr(servers.time, "sleep", lambda _: None)
    servers.check_pool("http://127.0.0.1:1/api", "gpu")
    assert answers == []
    answers[:] = [None]
    with pytest.raises(QuickstudyError, match="there is no pool gpu"):
        servers.check_pool("http://127.0.0.1:1/api", "gpu")
    answers[:] = [servers.ServerBusy("busy")] * servers.PATIENCE
    with pytest.raises(servers.ServerBusy):
        servers.check_pool("http://127.0.0.1:1/api", "gpu")
    assert answers == []


def test_workers_are_patient_with_mlflow_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    monkeypatch.setattr(servers, "_ask", lambda *_: [])
    for own, handed in ((None, "7"), ("2", "7"), ("4", None)):  # "2" is what this process sets for itself
        monkeypatch.delenv(name, raising=False)
        if own is not None:
            monkeypatch.setenv(name, own)
        assert (
            servers.start_worker(tmp_path, "cpu", {"PREFECT_API_URL": "http://127.0.0.1:1/api"}).env.get(name) == handed
        )
