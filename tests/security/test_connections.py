"""Connections that nobody should open: half of them, very many, and some that are never read."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from quickstudy.config import Serve
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.http.app import make_app
from quickstudy.serving.http.connections import REFUSAL, Accepted, Connections
from tests.contract.test_serve import EXAMPLES, save_small
from tests.toy.project import REPOSITORY
from tests.unit.serving.conftest import TICKETS, listening
from tests.unit.serving.test_tls import make_certificate

GET = b"GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n"


@contextmanager
def served(root: Path, *, files: int | None = None, code: str = "", **changes: Any) -> Iterator[tuple[str, Any, Path]]:
    """The address of a process that serves, the process, and its log.

    Args:
        files: that it may have open. code: what it does first. changes: to `serve` in params.yaml.
    """
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["serve"] |= changes
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    save_small(root / "build/model", 0)
    start = f"{code}\nimport sys\nfrom quickstudy.cli import main\nsys.argv[0] = 'quickstudy'\nmain()"
    command = [sys.executable, "-c", start, "serve", "--model", "build/model", "--port", "0"]

    def limited() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    log = root / "log.jsonl"
    with log.open("w") as written:
        process = subprocess.Popen(
            command, cwd=root, stdout=subprocess.PIPE, stderr=written, text=True, preexec_fn=limited
        )
    assert process.stdout is not None
    try:
        found = re.search(r"https?://\S+", process.stdout.readline())
        assert found, log.read_text()
        deadline = time.monotonic() + 60
        while True:  # it says where before it listens
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{found[0]}/health")
                break
            assert time.monotonic() < deadline and process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield found[0], process, log
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def connected(address: str, said: bytes = b"") -> socket.socket:
    parts = urlsplit(address)
    caller = socket.create_connection((parts.hostname, parts.port), timeout=30)  # type: ignore[arg-type]
    caller.sendall(said)
    return caller


def ended(caller: socket.socket, within: float = 30.0) -> bool:
    """Whether the service closes a connection."""
    caller.settimeout(within)
    try:
        while caller.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


# ---- a process with few files


@pytest.mark.parametrize("said", [b"", GET, b"GET /"], ids=["nothing", "headers without an end", "half an address"])
def test_half_open_connections_do_not_end_a_service_of_256_files(tmp_path: Path, said: bytes) -> None:
    with served(tmp_path, files=256) as (address, process, log), ExitStack() as held:
        for _ in range(400):
            with contextlib.suppress(OSError):
                held.enter_context(connected(address, said))
        began = time.monotonic()
        with httpx.Client(base_url=address, timeout=20) as client:
            made = client.post("/tasks", json={"name": "colours", "modality": "text", "examples": EXAMPLES})
            assert made.status_code == 201
            for _ in range(20):
                assert client.post(f"/tasks/{made.json()['id']}/predict", json={"queries": ["red"]}).status_code == 200
        assert time.monotonic() - began < 20 and process.poll() is None
        assert len(os.listdir(f"/proc/{process.pid}/fd")) < 256
        time.sleep(1.5)
        assert log.stat().st_size < 20_000, log.read_text()[-3000:]
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        told = [line for line in lines if line["event"] == "connections were ended"]
        assert len(told) == 1 and told[0]["for others"] > 100


def test_a_service_without_a_file_left_neither_fills_its_log_nor_dies(tmp_path: Path) -> None:
    took = "import os\nheld = [os.open(os.devnull, os.O_RDONLY) for _ in range(110)]\n"
    # What the bound on connections leaves free is taken by something else.
    with served(tmp_path, files=256, code=took) as (address, process, log), ExitStack() as held:
        for _ in range(300):
            with contextlib.suppress(OSError):
                held.enter_context(connected(address))
        time.sleep(2)
        assert process.poll() is None and log.stat().st_size < 20_000
        held.close()
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_it_asks_for_as_many_files_as_it_may_have(tmp_path: Path) -> None:
    few = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(7)[1]))\n"
    with served(tmp_path, code=few) as (_, process, _):
        time.sleep(0.2)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        found = re.search(r"Max open files\s+(\d+)\s+(\d+)", limits)
        assert found is not None and found[1] == found[2]


# ---- who is late


@pytest.fixture
def hasty(make_engine: Callable[..., Engine]) -> Iterator[str]:
    """The address of a service that waits for nobody long."""
    engine = make_engine(head=1.0, idle=1.0, unread=1.0, upload=3.0)
    with listening(make_app(engine.settings, engine), engine.settings) as address:
        yield address


@pytest.mark.parametrize(
    ("said", "then"),
    [
        (b"", b""),
        (b"", b"\r\n"),
        (b"GET /", b"a"),
        (GET, b"x: y\r\n"),
        (GET + b"x: ", b"y"),
        (GET + b"\r\n", b""),
        (GET + b"\r\n", b"\r\n"),
        (GET + b"\r\n" + GET, b"x: y\r\n"),
        (b"POST /nowhere HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n\r\n", b"a"),
        (b"POST /tasks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100000\r\n\r\n", b"a"),
        (b"POST /tasks HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ],
    ids=[
        "silent",
        "blank lines",
        "address",
        "headers",
        "header",
        "idle",
        "blank lines after",
        "second headers",
        "body that nobody reads",
        "body",
        "chunks",
    ],
)
def test_who_is_late_is_closed(hasty: str, said: bytes, then: bytes) -> None:
    with connected(hasty, said) as caller:
        caller.settimeout(0.1)
        deadline = time.monotonic() + 25
        while time.monotonic() < deadline:
            try:
                if then:
                    caller.sendall(then)
                if not caller.recv(1 << 16):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
        raise AssertionError("it is open still")


def test_who_is_slow_but_within_the_bounds_is_answered(hasty: str) -> None:
    body = json.dumps({"name": "tickets", "modality": "text", "examples": TICKETS}).encode()
    head = b"POST /tasks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body)
    with connected(hasty, head[:20]) as caller:
        for start in range(0, len(body), len(body) // 8 + 1):  # all in all longer than `head`, and than `idle`
            time.sleep(0.25)
            caller.sendall((head[20:] if start == 0 else b"") + body[start : start + len(body) // 8 + 1])
        assert caller.recv(1 << 16).startswith(b"HTTP/1.1 201 ")
        time.sleep(0.3)
        caller.sendall(GET + b"\r\n")
        assert caller.recv(1 << 16).startswith(b"HTTP/1.1 200 ")


def test_an_answer_that_nobody_reads_is_cut_off(make_engine: Callable[..., Engine], png: Callable[..., bytes]) -> None:
    engine = make_engine(unread=1.0, idle=1.0, body=64)
    with listening(make_app(engine.settings, engine), engine.settings) as address:
        many = [{"input": f"{number} " + "long " * 3900, "label": str(number % 2)} for number in range(1500)]
        made = httpx.post(f"{address}/tasks", json={"name": "n", "modality": "text", "examples": many}, timeout=120)
        assert made.status_code == 201, made.text
        ask = f"GET /tasks/{made.json()['id']}/export HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
        with connected(address, ask) as silent, connected(address) as slow:
            assert silent.recv(100)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            slow.sendall(ask)
            took, deadline = 0, time.monotonic() + 6
            while time.monotonic() < deadline:  # slower than the answer is made, and faster than the bound
                took += len(slow.recv(200_000))
                time.sleep(0.05)
            rest = b""
            while piece := slow.recv(1 << 20):
                rest = rest[-20:] + piece
                took += len(piece)
                if rest.endswith(b"0\r\n\r\n"):
                    break
            assert took > 25_000_000 and rest.endswith(b"]}\r\n0\r\n\r\n")
            got = 0
            with contextlib.suppress(ConnectionError):
                while piece := silent.recv(1 << 20):
                    got += len(piece)
            assert got < 25_000_000


def test_a_handshake_that_never_ends_is_ended(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "ours")
    engine = make_engine(certificate=str(certificate), certificate_key=str(key), head=1.0, idle=1.0)
    with listening(make_app(engine.settings, engine), engine.settings) as address:
        with connected(address) as silent, connected(address, b"\x16\x03\x01") as half:
            assert ended(silent) and ended(half)
        trusted = ssl.create_default_context(cafile=str(certificate))
        with trusted.wrap_socket(connected(address), server_hostname="127.0.0.1") as caller:
            caller.sendall(GET)
            assert ended(caller)
        assert httpx.get(f"{address}/health", verify=trusted).status_code == 200


def test_warnings_of_the_same_kind_are_one_line_a_minute(tmp_path: Path) -> None:
    with served(tmp_path) as (address, _, log):
        for _ in range(300):
            with connected(address, b"nonsense\r\n\r\n") as caller:
                assert b" 400 " in caller.recv(1000)
        half = b"POST /tasks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\n{"
        connected(address, half).close()  # who hangs up is no error of the service's
        time.sleep(1.0)
        with httpx.Client(base_url=address) as client:
            for _ in range(1500):
                client.get("/nowhere")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line["status"] for line in lines if line.get("route") == "/tasks"] == [499]
        assert not any("trace" in line for line in lines)
        assert sum("Invalid HTTP request" in line["event"] for line in lines) == 1
        assert sum(line.get("status") == 404 for line in lines) <= 600


# ---- how many


class Peer:
    """Where connections come from, one after another."""

    def __init__(self) -> None:
        self.others: list[socket.socket] = []

    def accept(self, host: str) -> Callable[[], tuple[socket.socket, Any]]:
        def one() -> tuple[socket.socket, Any]:
            ours, theirs = socket.socketpair()
            self.others.append(theirs)
            return ours, (host, len(self.others))

        return one


class Busy:
    """A connection whose caller has owed something for so many seconds, or nothing."""

    def __init__(self, owed: float = -1.0):
        self._owed, self.ended = owed, False

    def owed(self, now: float) -> float:
        return self._owed

    def is_late(self, now: float) -> bool:
        return False

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    for other in peer.others:
        other.close()


def test_an_address_has_its_share_and_no_more(peer: Peer) -> None:
    connections = Connections(most=10, each=2, free=["10.0.0.7"])
    busy: list[Accepted] = []
    for number in (7, 7, 8):
        kept, _ = connections.accept(peer.accept(f"203.0.113.{number}"))
        connections.made(kept.fileno(), Busy())
        busy.append(kept)  # type: ignore[arg-type]
    with pytest.raises(BlockingIOError):
        connections.accept(peer.accept("203.0.113.7"))
    assert peer.others[3].recv(1000) == REFUSAL
    others = [connections.accept(peer.accept(host))[0] for host in ("198.51.100.1", *["10.0.0.7"] * 3, *["::1"] * 3)]
    assert len(connections) == 10 and len(connections._of) == 5
    busy[0].close()
    assert len(connections) == 9
    connections.accept(peer.accept("203.0.113.7"))[0].close()
    for one in (*others, *busy):
        one.close()
    assert len(connections) == 0 and len(connections._of) == 0


def test_who_waits_longest_makes_room_and_who_is_answered_does_not(peer: Peer) -> None:
    connections = Connections(most=4, each=4)
    made = []
    for owed in (-1.0, 0.01, 0.5, 0.2):
        kept, _ = connections.accept(peer.accept("127.0.0.1"))
        made.append(Busy(owed))
        connections.made(kept.fileno(), made[-1])
    for count, gone in enumerate((2, 3, 1), 1):
        kept, _ = connections.accept(peer.accept("127.0.0.1"))
        connections.made(kept.fileno(), Busy())
        assert sum(one.ended for one in made) == count and made[gone].ended
    with pytest.raises(BlockingIOError):
        connections.accept(peer.accept("127.0.0.1"))
    assert not made[0].ended


def test_slow_bodies_with_a_key_leave_room_for_others(tmp_path: Path) -> None:
    with served(tmp_path, connections=40) as (address, _, _), ExitStack() as held:
        slow = b"POST /tasks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000000\r\n\r\n{"
        for _ in range(60):
            held.enter_context(connected(address, slow))
        time.sleep(1.2)
        with httpx.Client(base_url=address, timeout=20) as client:
            made = client.post("/tasks", json={"name": "colours", "modality": "text", "examples": EXAMPLES}).json()
            for _ in range(60):  # they come again and again
                with contextlib.suppress(OSError):
                    held.enter_context(connected(address, slow))
                assert client.post(f"/tasks/{made['id']}/predict", json={"queries": ["red"]}).status_code == 200


def test_all_of_this_machine_may_be_connected(settings: Serve, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(connections_each=2)
    with listening(make_app(engine.settings, engine), engine.settings) as address, ExitStack() as held:
        callers = [held.enter_context(connected(address)) for _ in range(20)]
        for caller in callers:
            caller.sendall(GET + b"\r\n")
        assert all(caller.recv(100).startswith(b"HTTP/1.1 200 ") for caller in callers)


# ---- the end

SLOW = """
import time
from quickstudy.serving.chat.conversations import Conversations
Conversations.say = lambda *arguments: time.sleep(120)
"""


def test_a_long_chat_does_not_outlive_the_grace(tmp_path: Path) -> None:
    with served(tmp_path, code=SLOW, grace=4) as (address, process, log):
        faq = [{"question": f"What is {number}?", "answer": str(number)} for number in range(3)]
        body = json.dumps({"session": "0" * 32, "faq": faq, "line": "What is 2?"}).encode()
        head = b"POST /playground/chat HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body)
        half = b"POST /tasks HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1000\r\n\r\n{"
        with connected(address, head + body) as chat, connected(address, half) as upload, connected(address) as silent:
            time.sleep(1.0)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            for caller in (chat, upload):
                said = caller.recv(1 << 16)
                assert said.startswith(b"HTTP/1.1 503 ") and b"is being stopped" in said
            assert ended(silent)
            assert process.wait(30) == 0
        assert time.monotonic() - began < 12  # of 120
        events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
        assert "the grace is over; what was still computed is left undone" in events
        assert not any("Exception in ASGI" in event for event in events)
