"""Who is answered: without keys the user of this machine alone, and with them whoever has one, for good."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from starlette.exceptions import HTTPException
from starlette.requests import Request
from typer.testing import CliRunner

from quickstudy.cli import serve
from quickstudy.config import Serve
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.names import hidden
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.store import LOCAL, Store, key_digest
from quickstudy.serving.http import access, peers, server
from quickstudy.serving.http.access import Access, address_of, is_loopback, network_of
from quickstudy.serving.http.app import make_app
from tests.unit.serving.conftest import TICKETS, listening

BODY = {"name": "tickets", "modality": "text", "examples": TICKETS}
ELSEWHERE = ("203.0.113.7", 4711)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def asked(own: Access, *, client: tuple[str, int] | None, **headers: str) -> str | int:
    """The tenant of a request, or the status with which it is refused."""
    said = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/tasks", "headers": said, "client": client, "state": {}}
    try:
        return asyncio.run(own.tenant(Request(scope)))
    except HTTPException as error:
        return error.status_code


@pytest.fixture
def open_access(settings: Serve, store: Store) -> Access:
    return Access(settings, store)


# ---- open and closed


def test_who_removes_the_last_key_does_not_open_the_door(
    make_engine: Callable[..., Engine], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "TRUSTED", 0.0)
    engine = make_engine()
    key = store.add_key("ann")
    app = make_app(engine.settings, engine, open=server.check_host("127.0.0.1", store))
    with listening(app, engine.settings) as address:
        made = httpx.post(f"{address}/tasks", json=BODY, headers=bearer(key))
        assert made.status_code == 201
        store.remove_key(store.all_keys()[0].id)
        for headers in ({}, bearer(key), {"host": "localhost"}):
            assert httpx.get(f"{address}/tasks", headers=headers).status_code == 401
            assert httpx.post(f"{address}/tasks", json=BODY, headers=headers).status_code == 401
    with store._engine.connect() as connection:  # nor does a replica of before know the key, to which rows are all
        rows = connection.execute(sa.text("SELECT digest FROM keys")).scalars().all()
    assert len(rows) == 1 and key_digest(key) not in rows
    # Nor is it open when it starts again, by whatever is left in the database.
    assert store.all_keys() == [] and not server.check_host("127.0.0.1", store)
    with pytest.raises(QuickstudyError, match="keys add"):
        server.check_host("0.0.0.0", store)


def test_an_open_service_is_closed_by_the_first_key_and_stays_so(
    settings: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "TRUSTED", -1.0)
    own, here = Access(settings, store), {"client": ("127.0.0.1", 5), "host": "127.0.0.1:8000"}
    assert asked(own, **here) == LOCAL
    key = store.add_key("ann")
    assert asked(own, **here) == 401
    assert asked(own, **here, authorization=f"Bearer {key}") == "ann"
    with store._engine.begin() as connection:  # as whoever deletes the database's rows would
        connection.execute(sa.text("DELETE FROM keys"))
    assert asked(own, **here) == 401


def test_a_service_that_is_reached_from_elsewhere_is_never_open(settings: Serve, store: Store) -> None:
    store.add_key("ann")
    own = Access(settings, store, server.check_host("0.0.0.0", store))
    store.remove_key(store.all_keys()[0].id)
    assert asked(own, client=("127.0.0.1", 5), host="localhost") == 401


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:203.0.113.7", False),
        ("203.0.113.7", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_what_is_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here


def test_an_open_service_answers_loopback_peers_alone(open_access: Access) -> None:
    for peer in ("127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"):
        assert asked(open_access, client=(peer, 5), host="localhost:8000") == LOCAL
    for peer in ("203.0.113.7", "10.0.0.1", "fe80::1", "::ffff:203.0.113.7", "testclient"):
        assert asked(open_access, client=(peer, 5), host="localhost") == 403
    assert asked(open_access, client=None, host="localhost") == 403  # a proxy at a UNIX socket


@pytest.mark.parametrize(
    "header",
    ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via", "x-real-ip", "cf-connecting-ip"],
)
def test_an_open_service_refuses_what_a_proxy_forwards(open_access: Access, header: str) -> None:
    said = {header: "203.0.113.7", "host": "localhost"}
    assert asked(open_access, client=("127.0.0.1", 5), **said) == 403


def test_an_open_service_refuses_other_pages_and_other_hosts(open_access: Access) -> None:
    here = {"client": ("127.0.0.1", 5)}
    for said in (
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": ""},
        {"host": "localhost", "origin": "https://evil.example"},
        {"host": "localhost", "origin": "null"},
        {"host": "localhost", "sec_fetch_site": "cross-site"},
    ):
        assert asked(open_access, **here, **said) == 403, said
    assert asked(open_access, **here, host="localhost", origin="http://127.0.0.1:3000") == LOCAL


@pytest.fixture
def open_address(make_engine: Callable[..., Engine]) -> Any:
    engine = make_engine()
    with listening(make_app(engine.settings, engine), engine.settings) as address:
        yield address


def test_a_proxy_that_says_nothing_is_known_by_its_version(open_address: str) -> None:
    parts = urlsplit(open_address)
    for version, status in (("1.1", b"200"), ("1.0", b"403")):
        with socket.create_connection((parts.hostname, parts.port)) as caller:  # type: ignore[arg-type]
            caller.sendall(f"GET /tasks HTTP/{version}\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n".encode())
            assert caller.recv(100).split()[1] == status


CALL = """
import os, socket, sys
"x".encode("idna")
os.setuid(65534)
caller = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
caller.sendall(b"GET /tasks HTTP/1.1\\r\\nhost: 127.0.0.1\\r\\nconnection: close\\r\\n\\r\\n")
print(caller.recv(100).split()[1].decode())
"""


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="only root can be another user, on Linux")
def test_another_user_of_this_machine_is_not_answered(open_address: str) -> None:
    command = [sys.executable, "-c", CALL, str(urlsplit(open_address).port)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "403\n"
    assert httpx.get(f"{open_address}/tasks").status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells whose a connection is")
@pytest.mark.parametrize("ask", [peers.asked, peers.listed])
def test_the_system_tells_whose_a_connection_is(ask: Callable[..., int | None]) -> None:
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        with (
            socket.create_server((host, 0), family=family) as listener,
            socket.create_connection(listener.getsockname()[:2]) as caller,
            listener.accept()[0] as taken,
        ):
            assert ask(caller.getsockname()[:2], taken.getsockname()[:2]) == os.geteuid()
            assert ask((host, 1), taken.getsockname()[:2]) == peers.NOBODY


# ---- keys on the command line


def test_removing_the_last_key_asks(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'serve.db'}"
    params = Path(__file__).parents[2] / "params.yaml"
    (tmp_path / "params.yaml").write_bytes(params.read_bytes())
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")

    def said(*words: str) -> tuple[int, str]:
        before = os.getcwd()
        os.chdir(tmp_path)
        try:
            done = CliRunner().invoke(serve.app, ["keys", *words, "--database", database])
        finally:
            os.chdir(before)
        return done.exit_code, done.output + str(done.exception or "")

    assert "this machine alone" in said("list")[1]
    said("add", "ann")
    said("add", "bob")
    store = Store(database)
    one, two = (key.id for key in store.all_keys())
    assert said("remove", one)[0] == 0
    code, told = said("remove", two)
    assert code != 0 and "is the last key" in told and "--yes" in told and len(store.all_keys()) == 1
    assert said("remove", two, "--yes")[0] == 0 and store.all_keys() == []
    assert "answers nobody" in said("list")[1]
    store.close()


# ---- wrong keys


def test_who_tries_keys_has_to_wait_before_the_database_is_asked(
    open_client: Callable[..., TestClient], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "TRUSTED", -1.0)
    client = open_client(tries=5)
    key = store.add_key("ann")
    assert client.get("/tasks", headers=bearer(key)).status_code == 200
    tried: list[str] = []
    monkeypatch.setattr(store, "tenant_of", lambda one, of=store.tenant_of: tried.append(one) or of(one))
    replies = [client.get("/tasks", headers=bearer(f"qs_guess-{number}")) for number in range(12)]
    assert [reply.status_code for reply in replies] == [401] * 5 + [429] * 7 and len(tried) == 5
    assert int(replies[-1].headers["retry-after"]) >= 1 and "unknown keys" in replies[-1].json()["error"]
    # Whoever has called before goes on, from the same address too; so does everybody elsewhere.
    assert client.get("/tasks", headers=bearer(key)).status_code == 200
    other = TestClient(client.app, base_url="http://127.0.0.1", client=ELSEWHERE)
    assert other.get("/tasks", headers=bearer(store.add_key("bob"))).status_code == 200
    # To say none is no guess.
    assert {client.get("/tasks").status_code for _ in range(9)} == {401}


def test_guesses_at_once_count_before_they_are_answered(settings: Serve, store: Store) -> None:
    store.add_key("ann")
    own = Access(settings.model_copy(update={"tries": 5}), store)

    async def guess(number: int) -> int:
        said = [(b"authorization", f"Bearer qs_{number}".encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": said, "client": ELSEWHERE, "state": {}}
        with pytest.raises(HTTPException) as refused:
            await own.tenant(Request(scope))
        return refused.value.status_code

    async def work() -> list[int]:
        return await asyncio.gather(*map(guess, range(40)))

    assert sorted(asyncio.run(work())) == [401] * 5 + [429] * 35


def test_what_guesses_leave_in_memory_is_bounded(
    settings: Serve, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "REMEMBERED", 20)
    store.add_key("ann")
    own = Access(settings, store)
    for number in range(60):
        assert asked(own, client=(f"198.51.100.{number}", 5), authorization=f"Bearer qs_{number}") == 401
    assert len(own._tries) <= 20 and len(own._known) == 0


def test_an_address_is_a_caller_and_a_proxy_of_ours_is_not() -> None:
    assert network_of("2001:db8:1:2:3::4") == network_of("2001:db8:1:2:ffff::1") != network_of("2001:db8:1:3::1")
    assert network_of("::ffff:203.0.113.7") == "203.0.113.7"

    def of(peer: str, said: str, proxies: tuple[str, ...]) -> str:
        headers = [(b"x-forwarded-for", said.encode())]
        return address_of(Request({"type": "http", "headers": headers, "client": (peer, 5)}), proxies)

    assert of("203.0.113.7", "198.51.100.1", ()) == "203.0.113.7"  # anybody can say so
    assert of("::1", "198.51.100.1", ("::1",)) == "198.51.100.1"
    assert of("10.0.0.7", "6.6.6.6, 198.51.100.1", ("10.0.0.7",)) == "198.51.100.1"
    assert of("10.0.0.7", "198.51.100.1, 10.0.0.8", ("10.0.0.7", "10.0.0.8")) == "198.51.100.1"


# ---- what callers are told


def test_a_database_that_is_away_is_not_named_to_callers(
    client: TestClient, store: Store, tickets: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    away = sa.create_engine("postgresql+psycopg://service:secret@127.0.0.1:1/customers")
    store._engine, store._sqlite, store.patience = away, False, 0.0
    for reply in (client.get("/ready"), client.get(f"/tasks/{tickets['id']}"), client.get("/tasks")):
        assert reply.status_code == 503 and "retry-after" in reply.headers
        assert not any(word in reply.text for word in ("127.0.0.1", "customers", "service", "port", "psycopg"))
    assert "127.0.0.1" in caplog.text  # whoever runs it is told


def test_answers_are_kept_framed_and_run_by_nobody(client: TestClient, tickets: dict[str, Any]) -> None:
    for path in ("/tasks", f"/tasks/{tickets['id']}", "/metrics", "/nowhere", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
    page = client.get("/docs").headers
    assert page.get_list("content-security-policy") == [page["content-security-policy"]]
    assert (
        "script-src 'self'" in page["content-security-policy"]
        and "frame-ancestors 'none'" in page["content-security-policy"]
    )


# ---- names


@pytest.mark.parametrize(
    "name",
    [
        "bil\u200bling",
        "\u202egnillib",
        "bil\u2066ling",
        "bil\u00adling",
        "bil\u2060ling",
        "\ufeffbilling",
        "bil\u200dling",
        "billing\u200f",
        "billing\ufe0f",
        "\u3164",
        "\u2800",
        "bil\u2028ling",
        "bil\U000e0041ling",
        "\u061cbilling",
        "a\x85b",
    ],
)
def test_what_is_not_seen_is_no_part_of_a_name(client: TestClient, tickets: dict[str, Any], name: str) -> None:
    examples = [*TICKETS, {"input": "Once more.", "label": name}]
    replies = [
        client.post("/tasks", json={**BODY, "name": name}),
        client.post("/tasks", json={**BODY, "examples": examples}),
        client.post("/tasks/import", json={**BODY, "format": 1, "examples": examples}),
        client.post(f"/tasks/{tickets['id']}/examples", json={"examples": examples[-1:]}),
        client.post(
            f"/tasks/{tickets['id']}/examples", data={"label": name}, files=[("file", ("a.txt", b"Once more."))]
        ),
        client.post(
            "/tasks",
            json={"name": "t", "kind": "tag", "modality": "text", "examples": [{"input": "a", "labels": ["b", name]}]},
        ),
    ]
    for reply in replies:
        assert reply.status_code == 422 and "\n" not in reply.json()["error"]
        said = reply.json()["error"]
        assert "cannot be seen" in said or "control characters" in said


@pytest.mark.parametrize(
    "name",
    ["می‌خواهم", "क्‍ष", "ශ්‍රී", "👩🏽‍🚀", "❤️", "1️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🏳️‍🌈", "葛󠄀", "naïve", "日本語", "العربية", "C++", "അവന്‍"],
)
def test_honest_scripts_and_emoji_are_names(name: str) -> None:
    assert hidden(name) is None


def test_names_that_look_alike_are_one(client: TestClient) -> None:
    examples = [*TICKETS, {"input": "Café?", "label": "cafe\u0301"}, {"input": "Du café.", "label": "café"}]
    made = client.post("/tasks", json={**BODY, "examples": examples}).json()
    assert made["classes"] == {"billing": 2, "café": 2, "delivery": 2}
    assert json.loads(client.get(f"/tasks/{made['id']}").text)["classes"] == made["classes"]
