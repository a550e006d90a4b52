"""Who may call, how much, and what becomes of bodies that nobody should send."""

import asyncio
import base64
import hashlib
import io
import json
import logging
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from quickstudy.errors import QuickstudyError
from quickstudy.serving.engine.store import Store
from quickstudy.serving.http import inputs, server
from tests.unit.serving.conftest import TICKETS
from tests.unit.serving.malformed import malformed

BODY = {"name": "tickets", "modality": "text", "examples": TICKETS}


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def refused(reply: Any, status: int, words: str) -> None:
    assert reply.status_code == status, reply.text
    assert list(reply.json()) == ["error"] and words in reply.json()["error"] and "\n" not in reply.json()["error"]


# ---- keys


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_tenant_sees_its_own_tasks_only(client: TestClient, store: Store) -> None:
    ann, bob = bearer(store.add_key("ann")), bearer(store.add_key("bob"))
    made = client.post("/tasks", json=BODY, headers=ann).json()
    address = f"/tasks/{made['id']}"
    assert client.get(address, headers=ann).status_code == 200
    more = {"examples": TICKETS[:1]}
    for reply in (
        client.get(address, headers=bob),
        client.get(f"{address}/export", headers=bob),
        client.post(f"{address}/predict", json={"queries": ["a"]}, headers=bob),
        client.post(f"{address}/examples", json=more, headers=bob),
        client.delete(f"{address}/examples/1", headers=bob),
        client.delete(address, headers=bob),
    ):
        assert reply.status_code == 404 and "no such task" in reply.json()["error"]
    assert client.get("/tasks", headers=bob).json() == {"tasks": [], "next": None}
    assert client.get(address, headers=ann).json()["revision"] == 1
    assert client.post(f"{address}/predict", json={"queries": ["a"]}, headers=ann).status_code == 200


def test_with_keys_nobody_calls_without_one(client: TestClient, store: Store) -> None:
    key = store.add_key("ann")
    for headers in ({}, bearer("qs_no"), bearer(""), bearer("x" * 9000), {"authorization": f"Basic {key}"}):
        refused(client.get("/tasks", headers=headers), 401, "Authorization: Bearer KEY")
    assert client.get("/tasks", headers=bearer(key)).status_code == 200
    assert client.get("/health").status_code == client.get("/metrics").status_code == 200


def test_a_key_is_kept_as_a_digest_and_can_be_taken_back(store: Store) -> None:
    key = store.add_key("ann")
    (row,) = store.all_keys()
    assert store.tenant_of(key) == "ann" and row.tenant == "ann" and key not in (row.id, row.created)
    assert not store.remove_key("") and not store.remove_key("%" * 12)
    assert store.remove_key(row.id) and store.tenant_of(key) is None


def test_a_key_is_written_nowhere(
    client: TestClient, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = store.add_key("ann")
    assert client.post("/tasks", json=BODY, headers=bearer(key)).status_code == 201
    assert client.post("/tasks", content=b"nonsense", headers=bearer(key)).status_code == 422
    wrong = key[:-1] + "?"  # as it is mistyped
    for headers in (bearer(wrong), {"authorization": key}, {"authorization": f"Basic {key}"}):
        assert client.get("/tasks", headers=headers).status_code == 401
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())  # SQLite has more than one file
    assert hashlib.sha256(key.encode()).hexdigest().encode() in kept
    said = "".join(f"{vars(record)}" for record in caplog.records)
    assert "'tenant': 'ann'" in said and "'status': 401" in said
    secret = key.removeprefix("qs_")[:-1]
    assert secret.encode() not in kept and secret not in said


def test_without_keys_only_this_machine_is_answered(client: TestClient) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}, {"origin": "null"}):
        refused(client.get("/tasks", headers=headers), 403, "this machine alone")
    assert client.get("/tasks", headers={"origin": "http://localhost:3000"}).status_code == 200


def test_another_host_needs_keys(store: Store) -> None:
    server.check_host("127.0.0.1", store)
    with pytest.raises(QuickstudyError, match="quickstudy serve keys add"):
        server.check_host("0.0.0.0", store)
    store.add_key("ann")
    server.check_host("0.0.0.0", store)


def test_answers_on_one_connection_are_not_held_back() -> None:
    async def work() -> int:
        bound = server.listen("127.0.0.1", 0)
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        serving = await asyncio.start_server(lambda reader, writer: accepted.put_nowait(writer), sock=bound)
        async with serving:
            _, caller = await asyncio.open_connection(*bound.getsockname())
            writer = await accepted.get()
            nagle_is_off = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            caller.close()
        return int(nagle_is_off)

    assert asyncio.run(work()) != 0


def test_a_port_that_is_taken_is_told_at_once() -> None:
    bound = server.listen("127.0.0.1", 0)
    with bound, pytest.raises(QuickstudyError, match="Say another --port"):
        bound.listen()
        server.listen("127.0.0.1", bound.getsockname()[1])


def test_a_key_that_calls_too_often_waits(open_client: Callable[..., TestClient], store: Store) -> None:
    client = open_client(rate=0.001, burst=3)
    ann, bob = bearer(store.add_key("ann")), bearer(store.add_key("bob"))
    assert [client.get("/tasks", headers=ann).status_code for _ in range(4)] == [200, 200, 200, 429]
    assert int(client.get("/tasks", headers=ann).headers["retry-after"]) > 500
    assert client.get("/tasks", headers=bob).status_code == 200  # whom it does not concern


def test_pages_elsewhere_call_where_they_may(open_client: Callable[..., TestClient]) -> None:
    client = open_client(cors=("https://app.example.org",))
    ours, theirs = ({"origin": origin} for origin in ("https://app.example.org", "https://evil.example"))
    assert client.get("/tasks", headers=ours).headers["access-control-allow-origin"] == "https://app.example.org"
    assert "access-control-allow-origin" not in client.get("/health", headers=theirs).headers
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = client.options("/tasks", headers=ours | asks)  # a browser asks so before it sends a key
    assert allowed.status_code == 200 and "authorization" in allowed.headers["access-control-allow-headers"]
    assert "access-control-allow-origin" not in client.options("/tasks", headers=theirs | asks).headers
    assert "access-control-allow-origin" not in open_client().get("/health", headers=ours).headers


# ---- sizes


def test_a_body_is_bounded_whatever_its_headers_say(open_client: Callable[..., TestClient]) -> None:
    client = open_client(body=1)
    large = json.dumps(BODY | {"name": "n" * 1_100_000}).encode()

    def pieces() -> Iterator[bytes]:  # no content-length
        for start in range(0, len(large), 50_000):
            yield large[start : start + 50_000]

    refused(client.post("/tasks", content=large), 413, "1 MB")
    refused(client.post("/tasks", content=pieces()), 413, "1 MB")
    form = {"name": "n", "modality": "image", "label": "a"}
    refused(client.post("/tasks", data=form, files=[("file", bytes(1_100_000))]), 413, "1 MB")
    assert client.post("/tasks", json=BODY).status_code == 201


def test_texts_examples_classes_and_queries_are_bounded(open_client: Callable[..., TestClient]) -> None:
    client = open_client(characters=100, examples=4, classes=2, queries=2)
    refused(client.post("/tasks", json=BODY | {"examples": [*TICKETS, TICKETS[0]]}), 422, "more than the 4 allowed")
    many = [{"input": "a", "label": label} for label in "abc"]
    refused(client.post("/tasks", json=BODY | {"examples": many}), 422, "3 classes")
    long = [{"input": "a" * 101, "label": "a"}]
    refused(client.post("/tasks", json=BODY | {"examples": long}), 422, "examples.0.input: 101 characters")
    address = f"/tasks/{client.post('/tasks', json=BODY).json()['id']}"
    refused(client.post(f"{address}/examples", json={"examples": TICKETS[:1]}), 422, "5 examples")
    refused(client.post(f"{address}/predict", json={"queries": ["a"] * 3}), 422, "3 queries")
    assert client.get(address).json()["revision"] == 1  # what was refused changed nothing


def test_a_text_of_a_million_characters_is_refused_in_one_line(client: TestClient, tickets: dict[str, Any]) -> None:
    reply = client.post(f"/tasks/{tickets['id']}/predict", json={"queries": ["ä" * 10**6]})
    refused(reply, 422, "1000000 characters")
    assert len(reply.content) < 200


def png_bomb(side: int) -> bytes:
    """An image of side² pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((min(side, 20_000) // 8 + 1) * 64), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [4096, 20_000, 2**31 - 1])
def test_a_decompression_bomb_is_refused_by_its_header(client: TestClient, side: int) -> None:
    examples = [{"input": coded(png_bomb(side)), "label": "a"}]
    body = {"name": "n", "modality": "image", "examples": examples}
    refused(client.post("/tasks", json=body), 422, "more than the 16,000,000 allowed")


def test_a_recording_is_bounded_by_what_can_be_read(open_client: Callable[..., TestClient]) -> None:
    client = open_client(seconds=2.0)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(192_000 * 3, dtype=np.int16), 192_000, format="FLAC")  # small, as it is silent
    assert len(buffer.getvalue()) < 50_000
    body = {"name": "n", "modality": "audio", "examples": [{"input": coded(buffer.getvalue()), "label": "a"}]}
    refused(client.post("/tasks", json=body), 422, "longer than the 2 seconds allowed")


# ---- bodies that nobody should send


def test_others_are_answered_while_files_are_read(
    client: TestClient, png: Callable[..., bytes], tickets: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = []

    def seen(*arguments: Any) -> Any:
        try:
            asyncio.get_running_loop()
            beside.append(False)
        except RuntimeError:
            beside.append(True)
        return checked(*arguments)

    checked = inputs.checked
    monkeypatch.setattr(inputs, "checked", seen)
    examples = [{"input": coded(png(i)), "label": str(i % 2)} for i in range(4)]
    assert len(json.dumps(examples)) < inputs.LARGE
    assert client.post("/tasks", json={"name": "t", "modality": "image", "examples": examples}).status_code == 201
    assert beside == [True] * 4
    client.post(f"/tasks/{tickets['id']}/predict", json={"queries": ["no need to here"]})
    assert beside[4:] == [False]


def test_mistakes_say_where_they_are(client: TestClient, tickets: dict[str, Any]) -> None:
    for body, words in (
        (b"", "the body: invalid JSON"),
        (b"[]", "the body: "),
        (b'{"name": NaN}', "name"),
        (json.dumps(BODY | {"modality": "video"}).encode(), "modality: input should be 'text', 'image' or 'audio'"),
        (json.dumps(BODY | {"nmae": "x"}).encode(), "nmae: "),
        (json.dumps(BODY | {"examples": [{"input": "a", "label": 7}]}).encode(), "examples.0.label: "),
        (json.dumps(BODY | {"examples": [{"input": "a", "label": "\0"}]}).encode(), "control characters"),
        (json.dumps(BODY | {"examples": []}).encode(), "examples: "),
        (json.dumps(BODY | {"modality": "image"}).encode(), "examples.0.input: is not base64"),
        (b"[" * 100_000, "the body: "),
        (b'{"name": "\xff"}', "the body: "),
        (b'{"name": "\\ud800"}', "the body: "),
    ):
        refused(client.post("/tasks", content=body), 422, words)


def test_one_unreadable_input_harms_no_other_request(client: TestClient, png) -> None:
    examples = [{"input": coded(png(i)), "label": "ab"[i]} for i in range(2)]
    made = client.post("/tasks", json={"name": "n", "modality": "image", "examples": examples}).json()
    address = f"/tasks/{made['id']}/predict"
    refused(client.post(address, json={"queries": [coded(png(0)), coded(b"no image")]}), 422, "not an image but text")
    assert client.post(address, json={"queries": [coded(png(0))]}).status_code == 200


def test_forms_are_checked_like_json(client: TestClient, png) -> None:
    good = {"name": "n", "modality": "image", "label": ["a", "b"]}
    two = [("file", png(0)), ("file", png(1))]
    assert client.post("/tasks", data=good, files=two).status_code == 201
    refused(client.post("/tasks", data=good | {"label": ["a"]}, files=two), 422, "1 labels and 2 files")
    refused(client.post("/tasks", data=good | {"modality": ["image", "text"]}, files=two), 422, "more than once")
    refused(client.post("/tasks", data=good | {"extra": "x"}, files=two), 422, "extra: is no field of this form")
    refused(client.post("/tasks", data={"label": ["a", "b"]}, files=two), 422, "name")
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=x"):
        reply = client.post("/tasks", content=b"--x\r\nnonsense", headers={"content-type": kind})
        assert 400 <= reply.status_code < 500 and list(reply.json()) == ["error"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of damaged metadata
def test_a_thousand_malformed_bodies_are_each_one_line(open_client: Callable[..., TestClient], png, wav) -> None:
    client = open_client(rate=None)
    tasks = {}
    for modality, make in (
        ("text", lambda i: str(i)),
        ("image", lambda i: coded(png(i))),
        ("audio", lambda i: coded(wav(i))),
    ):
        examples = [{"input": make(i), "label": "ab"[i]} for i in range(2)]
        tasks[modality] = client.post("/tasks", json={"name": "n", "modality": modality, "examples": examples}).json()[
            "id"
        ]
    files = [png(i, form=form) for i, form in enumerate(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"))]
    files += [wav(i, form=form) for i, form in enumerate(("WAV", "FLAC", "OGG"))]
    seen: dict[int, int] = {}
    for place, (modality, body, kind) in enumerate(malformed(files, 1200)):
        own = f"/tasks/{tasks[modality]}"
        address = ("/tasks", f"{own}/examples", f"{own}/predict", "/tasks/import")[place % 4]
        reply = client.post(address, content=body, headers={"content-type": kind})
        seen[reply.status_code] = seen.get(reply.status_code, 0) + 1
        assert reply.status_code < 500, (place, address, body[:200], reply.text)
        if reply.status_code >= 400:
            refused(reply, reply.status_code, "")
    assert seen[422] > 700
    for id in tasks.values():
        assert client.get(f"/tasks/{id}").status_code == 200
