"""Where `quickstudy runs` reads, and what it says where there is nothing to read. The answers: tests/flows."""

import base64
import json
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.runs import Overview, open_records, overview, server
from quickstudy.runs.database import Database, path_of

Answer = Callable[[str, dict[str, str], dict], tuple[int, bytes]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """Let something answer in Prefect's place; gives the address of its API."""
    servers = []

    def start(answer: Answer) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code, content = answer(self.path, dict(self.headers), body)
                self.send_response(code)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        running = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(running)
        threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{running.server_address[1]}/api"
        monkeypatch.setenv("PREFECT_API_URL", url)
        return url

    yield start
    for running in servers:
        running.shutdown()
        running.server_close()


@pytest.mark.parametrize(
    ("code", "content", "line"),
    [
        (401, b"{}", "Prefect's server refuses (HTTP 401). Set PREFECT_API_AUTH_STRING to user:password"),
        (404, b"{}", "Prefect's server refuses (HTTP 404). PREFECT_API_URL ends in /api"),
        (500, b"{}", "Prefect's server refuses (HTTP 500)"),
        (200, b"<html>", "this is no server of Prefect's. PREFECT_API_URL is like http://127.0.0.1:4200/api"),
        (200, b"{}", "this is no server of Prefect's. PREFECT_API_URL is like http://127.0.0.1:4200/api"),
    ],
)
def test_a_server_that_cannot_be_read_is_one_line(
    serve: Callable[[Answer], str], code: int, content: bytes, line: str
) -> None:
    url = serve(lambda *_: (code, content))
    with pytest.raises(QuickstudyError) as told:
        overview(open_records())
    assert str(told.value) == f"{url}: {line}"


def test_a_server_that_does_not_answer_is_one_line(
    serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TIMEOUT_S", 0.2)
    serve(lambda *_: (time.sleep(0.6), (200, b"[]"))[1])
    with pytest.raises(QuickstudyError, match="does not answer"):
        overview(open_records())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        for url in (f"http://127.0.0.1:{free.getsockname()[1]}/api", "127.0.0.1:4200", "nonsense"):
            monkeypatch.setenv("PREFECT_API_URL", url)
            with pytest.raises(QuickstudyError) as told:
                overview(open_records())
            assert str(told.value).startswith(f"{url}: ") and "PREFECT_API_URL" in str(told.value)


def test_the_password_goes_along(serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ada:lövelace")
    serve(lambda path, headers, body: (seen.add(headers.get("Authorization")), (200, b"[]"))[1])
    assert overview(open_records()) == Overview((), (), {})
    assert seen == {f"Basic {base64.b64encode('ada:lövelace'.encode()).decode()}"}


def test_more_than_a_server_gives_at_once_comes_page_by_page(serve: Callable[[Answer], str]) -> None:
    flow = {"id": "f", "name": "retrain"}
    asked = []

    def run(number: int) -> dict:
        start = f"2026-03-03T10:{59 - number // 60:02}:{59 - number % 60:02}Z"
        row = dict.fromkeys(("deployment_id", "work_pool_name", "expected_start_time", "created_by", "state"))
        row |= {"id": f"{number:04}", "name": f"run {number}", "flow_id": "f", "state_type": "COMPLETED"}
        row |= {"start_time": start, "end_time": start, "auto_scheduled": False, "tags": [], "parameters": {}}
        return row | {"parent_task_run_id": None}

    def answer(path: str, headers: dict[str, str], body: dict) -> tuple[int, bytes]:
        rows = [flow] if "/flows/" in path else []
        if "/flow_runs/" in path and "parent_task_run_id" in body["flow_runs"]:
            asked.append((body["offset"], body["limit"]))
            rows = [run(number) for number in range(body["offset"], min(500, body["offset"] + body["limit"]))]
        return 200, json.dumps(rows).encode()

    serve(answer)
    assert [found.name for found in overview(open_records(), last=450).runs] == [f"run {n}" for n in range(450)]
    assert asked == [(0, 200), (200, 200), (400, 50)]
    assert len(overview(open_records(), last=900).runs) == 500


def test_the_file_of_a_database_url() -> None:
    assert path_of("sqlite+aiosqlite:////srv/prefect.db", "X") == Path("/srv/prefect.db")
    assert path_of("sqlite+aiosqlite:///here.db?timeout=5", "X") == Path("here.db")
    for url in ("postgresql+asyncpg://u:p@host/prefect", "sqlite+aiosqlite://", "file::memory:"):
        with pytest.raises(QuickstudyError, match="X: only Prefect's server reads this database"):
            path_of(url, "X")


def test_without_a_database_nothing_has_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "none"))
    assert overview(open_records()) == Overview((), (), {})
    assert not (tmp_path / "none").exists()
    sqlite3.connect(tmp_path / "prefect.db").close()  # as a process leaves it that is killed while it creates it
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    assert overview(open_records()) == Overview((), (), {})
    (tmp_path / "prefect.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(QuickstudyError, match=r"prefect\.db: Prefect's database cannot be read \(file is not"):
        overview(open_records())


def test_what_a_killed_writer_left_is_read(tmp_path: Path) -> None:
    """The last rows are still in the write-ahead log, and whoever kept its index is gone."""
    writer = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    writer.executescript(
        """PRAGMA journal_mode = wal; CREATE TABLE work_pool (id, name);
        CREATE TABLE worker (work_pool_id, last_heartbeat_time, heartbeat_interval_seconds);
        INSERT INTO work_pool VALUES (1, 'gpu'); INSERT INTO worker VALUES (1, '2026-03-03 10:00:00.000000', 30)"""
    )
    for name in ("a.db", "a.db-wal"):
        shutil.copy(tmp_path / name, tmp_path / name.replace("a", "b", 1))
    writer.close()
    (worker,) = Database(tmp_path / "b.db", "run").workers()["gpu"]
    assert datetime.fromisoformat(worker["last_heartbeat_time"]).replace(tzinfo=UTC).hour == 10
