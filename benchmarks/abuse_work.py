"""Attacks by the work that a request asks for: each goes on until it is told to stop.

What they have in common: a caller with a key of its own asks for as much as it can, and all the others wait. An attack
takes any answer, a refusal too; what is measured is what a caller with another key feels of it (`abuse.py`).
"""

import asyncio
import base64
import contextlib
import functools
import io
import json
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import soundfile
from PIL import Image

Attack = Callable[[str, dict[str, str], asyncio.Event], Awaitable[None]]
"""(base address, headers with the attacker's key, stop)"""
Once = Callable[[httpx.AsyncClient], Awaitable[Any]]
JSON = {"content-type": "application/json"}
PAUSE = 0.02
"""Seconds between two requests of a worker, so that refusals do not measure how fast Python is."""


# ---- what all do


async def _flood(base: str, headers: dict[str, str], stop: asyncio.Event, workers: int, once: Once) -> None:
    """Call once, again and again, by so many at a time, until told to stop."""

    async def worker() -> None:
        while not stop.is_set():
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                await once(client)
            await asyncio.sleep(PAUSE)

    limits = httpx.Limits(max_connections=workers + 4)
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=600, limits=limits) as client:
        tasks = [asyncio.create_task(worker()) for _ in range(workers)]
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _posting(path: str, body: bytes, workers: int = 2) -> Attack:
    """Return an attack that posts one body."""

    async def attack(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
        await _flood(base, headers, stop, workers, lambda client: client.post(path, content=body, headers=JSON))

    return attack


def _task(inputs: list[str], labels: list[Any], modality: str = "text", kind: str = "classify") -> bytes:
    field = "label" if kind == "classify" else "labels"
    examples = [{"input": one, field: label} for one, label in zip(inputs, labels, strict=True)]
    return json.dumps({"name": "a", "kind": kind, "modality": modality, "examples": examples}).encode()


async def _made(client: httpx.AsyncClient, body: bytes) -> str:
    reply = await client.post("/tasks", content=body, headers=JSON)
    return str(reply.json()["id"])


def _asking(make: Callable[[], bytes], ask: Callable[[httpx.AsyncClient, str], Awaitable[Any]], workers: int) -> Attack:
    """Return an attack that makes a task once and then asks it for something."""

    async def attack(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
        made: list[str] = []
        lock = asyncio.Lock()

        async def once(client: httpx.AsyncClient) -> None:
            async with lock:
                if not made:
                    made.append(await _made(client, make()))
            await ask(client, made[0])

        await _flood(base, headers, stop, workers, once)

    return attack


def _coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _lines(count: int, words: int) -> list[str]:
    return [" ".join(f"word{(i * 7 + k * 13) % 997}" for k in range(words)) for i in range(count)]


# ---- files


@functools.cache
def _picture(form: str, side: int = 4000, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "white").save(buffer, form, **options)
    return buffer.getvalue()


@functools.cache
def _scans(side: int = 4000, scans: int = 400) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each is a pass over all pixels."""
    data = _picture("JPEG", side, progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + b"\xff\xd9"


@functools.cache
def _chunks(count: int) -> bytes:
    """A PNG of very many chunks that hold nothing."""
    data = _picture("PNG", 16)
    chunk = struct.pack(">I4sI", 0, b"abCd", zlib.crc32(b"abCd"))
    return data[:33] + chunk * count + data[33:]


@functools.cache
def _frames(form: str) -> bytes:
    frames = [Image.new("RGB", (1000, 1000), (i, 0, 0)) for i in range(60)]
    buffer = io.BytesIO()
    frames[0].save(buffer, form, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


@functools.cache
def _silence(form: str, seconds: int, rate: int) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(seconds * rate, dtype=np.int16), rate, format=form)
    return buffer.getvalue()


def _lying_flac() -> bytes:
    """An hour of silence whose header says a thousandth of it."""
    data = bytearray(_silence("FLAC", 600, 48000))
    data[18 + 3 : 18 + 8] = (int.from_bytes(data[21:26]) & ~0xFFFFFFFFF | 48000).to_bytes(5)
    return bytes(data)


def _files(data: bytes, count: int, modality: str) -> bytes:
    return _task([_coded(data)] * count, ["ab"[i % 2] for i in range(count)], modality)


def _of_files(make: Callable[[], bytes], count: int, modality: str) -> Attack:
    """Return an attack that teaches tasks of one file, many times over."""

    async def attack(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
        await _posting("/tasks", await asyncio.to_thread(lambda: _files(make(), count, modality)))(base, headers, stop)

    return attack


# ---- attacks of their own


async def _chat(base: str, headers: dict[str, str], stop: asyncio.Event, taught: int = 0) -> None:
    """A new conversation with every line, on 500 long questions."""
    faq = [{"question": line[:200], "answer": f"answer {i}"} for i, line in enumerate(_lines(500 - taught, 40))]
    more = [{"question": line[:200], "answer": f"more {i}"} for i, line in enumerate(_lines(taught, 41))]
    number = 0

    async def once(client: httpx.AsyncClient) -> None:
        nonlocal number
        number += 1
        body = {"session": f"{number:016x}", "faq": faq, "taught": more, "line": f"what is number {number}"}
        await client.post("/playground/chat", json=body)

    await _flood(base, headers, stop, 4, once)


async def _small_tasks(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """Very many tasks, each taught and asked once."""
    body = _task(_lines(20, 6), [f"class {i % 4}" for i in range(20)])

    async def once(client: httpx.AsyncClient) -> None:
        await client.post(f"/tasks/{await _made(client, body)}/predict", json={"queries": ["which one is it"]})

    await _flood(base, headers, stop, 48, once)


async def _questions(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """One question after the other, by as many callers as connections may be."""
    made: list[str] = []

    async def once(client: httpx.AsyncClient) -> None:
        if not made:
            made.append("")
            made[0] = await _made(client, _task(_lines(20, 6), [f"class {i % 4}" for i in range(20)]))
        while made[0] and not stop.is_set():
            await client.post(f"/tasks/{made[0]}/predict", json={"queries": ["which one is it"]})

    await _flood(base, headers, stop, 64, once)


async def _hanging_up(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """Work is asked for and nobody waits for it."""
    body = _task(_lines(2000, 60), [f"class {i % 50}" for i in range(2000)])

    async def once(client: httpx.AsyncClient) -> None:
        await client.post("/tasks", content=body, headers=JSON, timeout=1.0)

    await _flood(base, headers, stop, 8, once)


async def _round_trips(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """A large task is exported and imported, over and over."""
    made: list[str] = []
    lock = asyncio.Lock()

    async def once(client: httpx.AsyncClient) -> None:
        async with lock:
            if not made:
                made.append(await _made(client, _task(_lines(2000, 30), [f"class {i % 100}" for i in range(2000)])))
        reply = await client.get(f"/tasks/{made[0]}/export")
        await client.post("/tasks/import", content=reply.content, headers=JSON)

    await _flood(base, headers, stop, 4, once)


async def _form(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """A form of as many files as there may be, none of which is one."""
    files = [("file", (f"{i}", b"x")) for i in range(5000)]
    data = {"name": "a", "modality": "image", "label": [f"{i}" for i in range(5000)]}
    await _flood(base, headers, stop, 2, lambda client: client.post("/tasks", data=data, files=files))


async def _accuracy(client: httpx.AsyncClient, id: str) -> None:
    await client.get(f"/tasks/{id}/accuracy")


async def _ask_first(client: httpx.AsyncClient, id: str) -> None:
    """Ask a task after it was changed, so that it must be adapted again."""
    example = {"input": "one more of them", "label": "class 1"}
    await client.post(f"/tasks/{id}/examples", json={"examples": [example]})
    await client.post(f"/tasks/{id}/predict", json={"queries": ["one more"]})


async def _ask_much(client: httpx.AsyncClient, id: str) -> None:
    await client.post(f"/tasks/{id}/predict", json={"queries": _lines(1000, 8)})


def _large(examples: int, classes: int) -> bytes:
    return _task(_lines(examples, 5), [f"class {i % classes}" for i in range(examples)])


def _tagged(examples: int, tags: int) -> bytes:
    labels = [sorted({f"tag {(i * 7 + k * k) % tags}" for k in range(4)}) for i in range(examples)]
    return _task(_lines(examples, 5), labels, kind="tag")


_EMPTY = b'{"name":"a","modality":"text","examples":[' + b"{}," * 1_250_000 + b"{}]}"
_FIELDS = b'{"name":"a","modality":"text",' + b",".join(b'"f%d":1' % i for i in range(800_000)) + b',"examples":[]}'
_DEEP = b'{"name":"a","modality":"text","examples":' + b"[" * 4_000_000
_NUMBER = b'{"name":"a","modality":"text","examples":[],"format":' + b"9" * 20_000_000 + b"}"
_TWICE = b"{" + b'"name":"a",' * 1_500_000 + b'"modality":"text","examples":[{}]}'
_LISTS = (
    b'{"name":"a","kind":"tag","modality":"text","examples":[{"input":"a","labels":[' + b'"a",' * 4_000_000 + b"1]}]}"
)
_ESCAPES = b'{"name":"a","modality":"text","examples":[{"input":"' + b'\\"' * 10_000_000
_WORDS = ["".join(chr(0x4E00 + (i * 31 + k) % 9000) for k in range(9000)) for i in range(1000)]
_TEXTS = json.dumps({"queries": _WORDS}, ensure_ascii=False).encode()

ATTACKS: dict[str, Attack] = {
    # the four of the issue
    "chat on 500 questions": _chat,
    "accuracy of 5,000 examples, 500 classes": _asking(lambda: _large(5000, 500), _accuracy, 4),
    "64 WebP of 4000 × 4000": _of_files(lambda: _picture("WEBP"), 64, "image"),
    "1.25 million empty examples": _posting("/tasks", _EMPTY),
    "15 WebP of 4000 × 4000": _of_files(lambda: _picture("WEBP"), 15, "image"),
    # JSON
    "800,000 unknown fields": _posting("/tasks", _FIELDS),
    "deep nesting": _posting("/tasks", _DEEP),
    "a number of 20 MB": _posting("/tasks", _NUMBER),
    "a key 1.5 million times": _posting("/tasks", _TWICE),
    "4 million tags of one example": _posting("/tasks", _LISTS),
    "a text that does not end": _posting("/tasks", _ESCAPES),
    "no base64, 20 MB": _posting("/tasks", _task(["ab!d" * 5_000_000], ["a"], "image")),
    "a form of 5,000 files": _form,
    # texts and tasks
    "1,000 texts of 9,000 characters": _asking(
        lambda: _large(4, 2),
        lambda client, id: client.post(f"/tasks/{id}/predict", content=_TEXTS, headers=JSON),
        2,
    ),
    "1,000 queries of 500 classes": _asking(lambda: _large(1000, 500), _ask_much, 4),
    "many small tasks": _small_tasks,
    "one question after the other": _questions,
    "tasks of 5,000 examples": _posting("/tasks", _large(5000, 500), 4),
    "a task of 5,000 adapted again": _asking(lambda: _large(4900, 490), _ask_first, 2),
    "200 tags": _asking(lambda: _tagged(400, 200), _ask_much, 2),
    "accuracy of 100 tags": _asking(lambda: _tagged(300, 100), _accuracy, 2),
    "chat with a long history": functools.partial(_chat, taught=400),
    "export and import": _round_trips,
    "hanging up": _hanging_up,
    # files
    "JPEG of 400 scans": _of_files(_scans, 4, "image"),
    "PNG of a million chunks": _of_files(lambda: _chunks(1_000_000), 2, "image"),
    "GIF of 60 frames": _of_files(lambda: _frames("GIF"), 200, "image"),
    "APNG of 60 frames": _of_files(lambda: _frames("PNG"), 20, "image"),
    "TIFF of 4000 × 4000": _of_files(lambda: _picture("TIFF", compression="tiff_deflate"), 64, "image"),
    "an hour of silence": _of_files(lambda: _silence("FLAC", 59, 48000), 400, "audio"),
    "MP3 of a minute": _of_files(lambda: _silence("MP3", 59, 48000), 60, "audio"),
    "FLAC with a lying header": _of_files(_lying_flac, 200, "audio"),
}
"""What each is called, and does."""
