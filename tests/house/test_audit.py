"""No package that is installed is known to be vulnerable; and that one which is would be told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.house.audit import KNOWN, LOCK, NotReached, ask, complaints

pytest.importorskip("pip_audit", reason="pip-audit of requirements.lock is not installed: make install")


def test_no_package_is_known_to_be_vulnerable() -> None:
    try:
        report = ask(LOCK)
    except NotReached as error:
        pytest.skip(f"the database of vulnerabilities cannot be reached from here: {error}")
    assert complaints(report) == []


def advisory(name: str, alias: str, fixed: str) -> dict[str, Any]:
    """One of the database, in the format of OSV (https://ossf.github.io/osv-schema)."""
    package = {"name": name, "ecosystem": "PyPI"}
    events = [{"introduced": "0"}, {"fixed": fixed}]
    return {
        "id": f"PYSEC-{name}",
        "aliases": [alias],
        "details": "Two\nlines.",
        "modified": "2026-01-01T00:00:00Z",
        "affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}],
    }


class Database(BaseHTTPRequestHandler):
    known: dict[str, list[dict[str, Any]]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        found = self.known.get(asked["package"]["name"])
        body = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def database() -> Iterator[tuple[str, ...]]:
    """Options by which pip-audit asks a database of our own on this machine."""
    Database.known = {KNOWN[0]: [advisory(KNOWN[0], "CVE-1-1", "3.1")]}
    server = HTTPServer(("127.0.0.1", 0), Database)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "--vulnerability-service=osv", f"--osv-url=http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.lock"
    path.write_text("# a lock\ngood==1.0\nbad==2.0\nworse==3.0\n")
    return path


def test_what_is_known_is_told_unless_it_is_accepted(database: tuple[str, ...], lock: Path) -> None:
    assert complaints(ask(lock, *database), {}) == []
    Database.known["bad"] = [advisory("bad", "CVE-2-2", "2.1")]
    Database.known["worse"] = [advisory("worse", "CVE-3-3", "9")]
    report = ask(lock, *database)
    lines = ["bad 2.0: PYSEC-bad = CVE-2-2, mended by 2.1", "worse 3.0: PYSEC-worse = CVE-3-3, mended by 9"]
    assert complaints(report, {}) == lines
    assert complaints(report, {"CVE-2-2": "never called", "PYSEC-worse": "only on Windows"}) == []
    assert complaints(report, {"CVE-2-2": "never called", "CVE-9-9": "long ago"}) == [
        lines[1],
        "CVE-9-9 is accepted and not found: take it out",
    ]


def test_a_version_that_the_database_does_not_know_is_no_complaint() -> None:
    assert complaints({"dependencies": [{"name": "ours", "skip_reason": "not found on PyPI"}]}, {}) == []


def test_who_says_nothing_of_what_is_vulnerable_was_not_asked(database: tuple[str, ...], lock: Path) -> None:
    Database.known.clear()  # as a mirror answers that leaves vulnerabilities out
    with pytest.raises(NotReached, match="nothing is said of django"):
        ask(lock, *database)
    with pytest.raises(NotReached, match="ConnectionError"):
        ask(lock, database[0], "--osv-url=http://127.0.0.1:9/v1/query")
