"""How much a request may have of the service: in its answer, in its memory, and in its database."""

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient
from PIL import Image

from quickstudy.client import Quickstudy
from quickstudy.client.remote import RemoteQuickstudy
from quickstudy.serving.chat import conversations
from quickstudy.serving.engine import store as engine_store
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.store import LOCAL, Example, Store
from quickstudy.serving.http.app import make_app
from quickstudy.serving.http.trimmed import trimmed
from tests.unit.serving.conftest import TICKETS, listening

MEGABYTE = 1_000_000
LONG = "x" * 190
MODEL = "m" * 64


def wide(classes: int) -> dict[str, Any]:
    """A task of many classes with long names."""
    examples = [{"input": f"number {number}", "label": f"{LONG}{number:03d}"} for number in range(classes)]
    return {"name": "wide", "modality": "text", "examples": examples}


# ---- answers


def test_a_small_request_has_no_large_answer(client: TestClient) -> None:
    made = client.post("/tasks", json=wide(400)).json()
    path, queries = f"/tasks/{made['id']}/predict", ["a"] * 1000
    refused = client.post(path, json={"queries": queries})
    assert refused.status_code == 413 and len(refused.content) < 500
    assert "serve.answer" in refused.json()["error"] and "?top=" in refused.json()["error"]
    few = client.post(f"{path}?top=3", json={"queries": queries})
    assert few.status_code == 200 and len(few.content) < 8 * MEGABYTE and len(few.json()["answers"]) == 1000
    assert client.post(path, json={"queries": queries[:5]}).status_code == 200


def test_the_likeliest_come_first_and_say_what_they_say_among_all(client: TestClient) -> None:
    made = client.post("/tasks", json=wide(40)).json()
    path, body = f"/tasks/{made['id']}/predict", {"queries": ["number 7", "number 12"]}
    every, few = (client.post(f"{path}{top}", json=body).json()["answers"] for top in ("", "?top=4"))
    for whole, part in zip(every, few, strict=True):
        assert len(whole["probabilities"]) == 40 and part["label"] == whole["label"]
        ranked = sorted(whole["probabilities"].values(), reverse=True)[:4]
        assert list(part["probabilities"].values()) == pytest.approx(ranked, abs=1e-4)
        assert next(iter(part["probabilities"])) == part["label"]
        assert {**part, "probabilities": 0, "nearest": 0}.keys() == whole.keys()
    assert (
        client.post(f"{path}?top=4000", json=body).json()["answers"][0]["probabilities"].keys()
        == whole["probabilities"].keys()
    )
    for top in ("0", "-1", "many"):
        assert client.post(f"{path}?top={top}", json=body).status_code == 422


def test_a_client_asks_in_smaller_parts_where_an_answer_would_be_too_large(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine(answer=1)
    with listening(make_app(engine.settings, engine), engine.settings) as address:
        service = Quickstudy.connect(address)
        assert isinstance(service, RemoteQuickstudy)
        labels = [f"{LONG}{number:03d}" for number in range(150)]
        task = service.adapt([f"number {number}" for number in range(150)], labels)
        answers = task.answer([f"number {number}" for number in range(60)])
        assert len(answers) == 60 and all(len(one.probabilities) == 150 for one in answers)
        refused = httpx.post(f"{address}/tasks/{task.id}/predict", json={"queries": ["a"] * 60})
        assert refused.status_code == 413


def test_a_page_of_wide_tasks_ends_early_and_says_where_to_go_on(client: TestClient, store: Store) -> None:
    names = [f"{LONG}{number:03d}" for number in range(400)]
    ids = [store.create(LOCAL, "n", "classify", "text", names, [b"a"] * 400, [b""] * 400, MODEL).id for _ in range(170)]
    found: list[str] = []
    after = ""
    while True:
        reply = client.get(f"/tasks?limit=1000{after}")
        page = reply.json()
        assert len(reply.content) < 13 * MEGABYTE and page["tasks"]
        found += [task["id"] for task in page["tasks"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert found == ids


# ---- a task as a whole


def photos(client: TestClient, png: Callable[..., bytes], count: int) -> tuple[str, list[dict[str, str]]]:
    """A task of incompressible images of about 120 KB, and its examples."""
    examples = []
    for number in range(count):
        pixels, file = np.random.default_rng(number).integers(0, 256, (200, 200, 3), dtype=np.uint8), io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        examples.append({"input": base64.b64encode(file.getvalue()).decode(), "label": "ab"[number % 2]})
    made = client.post("/tasks", json={"name": "photos", "modality": "image", "examples": examples})
    assert made.status_code == 201, made.text
    return made.json()["id"], examples


def test_an_export_is_read_from_the_database_piece_by_piece(
    client: TestClient, store: Store, png: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    id, examples = photos(client, png, 30)
    held: list[int] = []

    def seen(*arguments: Any) -> list[Example]:
        found = some(*arguments)
        held.append(sum(len(one.content) for one in found))
        return found

    some = store.some
    monkeypatch.setattr(store, "some", seen)
    reply = client.get(f"/tasks/{id}/export")
    assert reply.json() == {
        "format": 1,
        "name": "photos",
        "kind": "classify",
        "modality": "image",
        "examples": examples,
    }
    assert len(held) >= 4 and max(held) <= engine_store.PIECE and sum(held) > 3 * MEGABYTE
    assert client.post("/tasks/import", json=reply.json()).status_code == 201
    held.clear()
    shown = client.get(f"/tasks/{id}").json()
    assert [one["id"] for one in shown["examples"]] == list(range(1, 31)) and sum(held) == 0


def test_files_that_the_model_has_seen_are_not_read_to_adapt(
    client: TestClient, store: Store, png: Callable[..., bytes]
) -> None:
    id, examples = photos(client, png, 4)
    digest = client.get("/ready").json()["digest"]
    found = store.contents(id, digest)
    assert found is not None and [one.content for one in found.examples] == [b""] * 4 and len(found.packed) == 4
    unseen = store.contents(id, MODEL)
    assert unseen is not None and all(one.content for one in unseen.examples)
    assert client.post(f"/tasks/{id}/predict", json={"queries": [examples[0]["input"]]}).json()["answers"][0][
        "nearest"
    ][0]["example"] in (1, 3)


def test_an_export_of_a_task_that_changes_meanwhile_is_no_whole_answer(
    make_engine: Callable[..., Engine], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    texts = [b"long " * 4000] * 200
    made = store.create(LOCAL, "n", "classify", "text", ["a", "b"] * 100, texts, [b""] * 200, MODEL)
    begun, removed = threading.Event(), threading.Event()

    def waits(*arguments: Any) -> list[Example]:
        if begun.is_set():
            removed.wait(20)
        begun.set()
        return some(*arguments)

    some = store.some
    monkeypatch.setattr(store, "some", waits)
    with listening(make_app(engine.settings, engine), engine.settings) as address:
        threading.Thread(target=lambda: (begun.wait(20), store.remove(LOCAL, made.id, 190), removed.set())).start()
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{address}/tasks/{made.id}/export", timeout=60)
        whole = httpx.get(f"{address}/tasks/{made.id}/export", timeout=60).json()
    assert len(whole["examples"]) == 199


# ---- what is brought at once


def test_large_bodies_together_are_bounded_and_small_ones_pass(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine(bodies=2)
    with listening(make_app(engine.settings, engine), engine.settings) as address, contextlib.ExitStack() as held:
        parts = urlsplit(address)
        head = f"POST /tasks HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-length: 1500000\r\n\r\n".encode()
        half = []
        for _ in range(2):
            half.append(held.enter_context(socket.create_connection((parts.hostname, parts.port), timeout=30)))
            half[-1].sendall(head + b" " * 900_000)
        body = {"name": "n", "modality": "text", "examples": TICKETS}
        deadline = time.monotonic() + 30
        while True:  # until what they sent is there
            large = httpx.post(f"{address}/tasks", json=body, headers={"x": "y"}, timeout=60)
            assert large.status_code == 201  # a small one
            large = httpx.post(f"{address}/tasks", content=json.dumps(body).encode() + b" " * 700_000, timeout=60)
            if large.status_code == 503:
                break
            assert time.monotonic() < deadline
        assert "retry-after" in large.headers and "come again later" in large.json()["error"]
        held.close()
        while httpx.post(f"{address}/tasks", content=json.dumps(body).encode() + b" " * 700_000).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)


# ---- quotas


def test_a_task_has_no_more_than_its_bytes(open_client: Callable[..., TestClient]) -> None:
    client = open_client(task=1, characters=20_000)
    long = [{"input": f"{number} " + "a" * 19_000, "label": str(number % 2)} for number in range(60)]
    refused = client.post("/tasks", json={"name": "n", "modality": "text", "examples": long})
    assert refused.status_code == 413 and "serve.task" in refused.json()["error"]
    made = client.post("/tasks", json={"name": "n", "modality": "text", "examples": long[:40]}).json()
    refused = client.post(f"/tasks/{made['id']}/examples", json={"examples": long[40:]})
    assert refused.status_code == 413 and "1 MB" in refused.json()["error"]
    assert client.get(f"/tasks/{made['id']}").json()["revision"] == 1
    for number in range(1, 21):
        assert client.delete(f"/tasks/{made['id']}/examples/{number}").status_code == 200
    assert client.post(f"/tasks/{made['id']}/examples", json={"examples": long[40:]}).status_code == 201


def test_a_tenant_has_no_more_than_its_bytes(open_client: Callable[..., TestClient], store: Store) -> None:
    client = open_client(tenant=1)
    ann, bob = ({"authorization": f"Bearer {store.add_key(name)}"} for name in ("ann", "bob"))
    body = {"name": "n", "modality": "text"}
    body["examples"] = [{"input": f"{number} " + "a" * 19_000, "label": str(number % 2)} for number in range(20)]  # type: ignore[assignment]
    replies = [client.post("/tasks", json=body, headers=ann) for _ in range(4)]
    assert [reply.status_code for reply in replies] == [201, 201, 507, 507]
    assert "serve.tenant" in replies[-1].json()["error"] and "\n" not in replies[-1].json()["error"]
    assert len(client.get("/tasks", headers=ann).json()["tasks"]) == 2
    assert client.post("/tasks", json=body, headers=bob).status_code == 201
    small = {"examples": TICKETS[:1]}
    first = replies[0].json()["id"]
    assert client.post(f"/tasks/{first}/examples", json=small, headers=ann).status_code == 201
    assert client.delete(f"/tasks/{first}", headers=ann).status_code == 204
    assert client.post("/tasks", json=body, headers=ann).status_code == 201


def test_many_small_tasks_count_too(open_client: Callable[..., TestClient], store: Store) -> None:
    client = open_client(tenant=1)
    for _ in range(9):
        store.create(LOCAL, "n", "classify", "text", ["a", "b"] * 100, [b""] * 200, [b""] * 200, MODEL)
    long = {"name": "n", "modality": "text", "examples": [{"input": str(n), "label": str(n % 2)} for n in range(250)]}
    assert client.post("/tasks", json=long).status_code == 507


# ---- what follows a file's end


def file(form: str, **more: Any) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, form, **more)
    return made.getvalue()


def sound(form: str) -> bytes:
    made = io.BytesIO()
    soundfile.write(made, np.random.default_rng(3).normal(0, 0.1, 8001), 8000, format=form)
    return made.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        file("PNG"),
        file("JPEG"),
        file("JPEG", progressive=True),
        file("GIF"),
        file("GIF", save_all=True, append_images=[Image.new("RGB", (53, 37))]),
        file("BMP"),
        file("TIFF"),
        file("TIFF", compression="tiff_lzw"),
        file("TIFF", compression="jpeg"),
        file("WEBP"),
        file("WEBP", lossless=True),
        sound("WAV"),
        sound("OGG"),
    ],
    ids=lambda data: data[:12].hex(),
)
def test_what_follows_the_end_of_a_file_is_not_kept(data: bytes) -> None:
    assert trimmed(data) == data
    for behind in (b"\0", b"secret" * 1000, b"<?php ?>", data):
        assert trimmed(data + behind) == data


def test_a_damaged_file_is_left_as_it_is() -> None:
    for data in (file("PNG"), file("JPEG"), file("GIF"), file("TIFF"), file("WEBP"), sound("WAV"), sound("OGG")):
        for cut in (3, 9, 14, 30, len(data) // 2, len(data) - 1):
            assert data.startswith(trimmed(data[:cut]))
    assert trimmed(b"") == b"" and trimmed(b"no file") == b"no file"


def test_an_image_comes_back_without_what_followed_it(client: TestClient) -> None:
    one, two = file("PNG"), file("JPEG")
    inputs = [base64.b64encode(data + b"smuggled" * 1000).decode() for data in (one, two)]
    examples = [{"input": data, "label": label} for data, label in zip(inputs, "ab", strict=True)]
    made = client.post("/tasks", json={"name": "n", "modality": "image", "examples": examples}).json()
    back = client.get(f"/tasks/{made['id']}/export").json()["examples"]
    assert [base64.b64decode(example["input"]) for example in back] == [one, two]


# ---- conversations


def test_what_conversations_hold_is_bounded(client: TestClient, make_engine: Callable[..., Engine]) -> None:
    loaded = make_engine().loaded
    held = conversations.Conversations(0.1, 0.4)
    faq = [conversations.Entry(f"What is {number}?", f"{number} " + "a" * 1900) for number in range(60)]
    limit, conversations.CHARACTERS = conversations.CHARACTERS, 500_000
    try:
        for session in range(12):
            held.say(loaded, "ann", f"{session}", faq, (), "What is 3?")
    finally:
        conversations.CHARACTERS = limit
    kept = sum(len(json.dumps([one.answer for one in chat.entries])) for _, chat in held._chats.values())
    assert 1 <= len(held._chats) < 6 and kept < 700_000
