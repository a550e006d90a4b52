"""Attacks by connections and by answers: see `abuse.py`. Each is as an attacker would write it in an afternoon."""

import asyncio
import base64
import contextlib
import json
import struct
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

HALF_OPEN, SLOW, UNREAD, CALLERS = 400, 200, 20, 4
LONG = "x" * 190
"""Of a name of a class."""


def head(base: str, headers: dict[str, str], method: str, path: str, length: int | None = None) -> bytes:
    """A request up to its body."""
    said = {"host": urlsplit(base).netloc, **headers}
    if length is not None:
        said |= {"content-type": "application/json", "content-length": str(length)}
    return "\r\n".join(
        [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", ""]
    ).encode()


async def called(base: str, headers: dict[str, str], method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """One request on a connection of its own: the status, and the answer, chunks as they come."""
    data = b"" if body is None else json.dumps(body).encode()
    parts = urlsplit(base)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    said = {**headers, "connection": "close"}
    writer.write(head(base, said, method, path, len(data) if body is not None else None) + data)
    try:
        answer = await reader.read(-1)
    finally:
        writer.close()
    first, _, rest = answer.partition(b"\r\n\r\n")
    return int(first.split(maxsplit=2)[1]) if first else 0, rest


async def held(base: str, start: bytes, then: bytes, every: float, stop: asyncio.Event) -> None:
    """A connection that begins so and goes on so, and is opened anew when it is closed."""
    parts = urlsplit(base)
    while not stop.is_set():
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            reader, writer = await asyncio.wait_for(asyncio.open_connection(parts.hostname, parts.port), 10)
            try:
                writer.write(start)
                while not stop.is_set() and not reader.at_eof():
                    if then:
                        writer.write(then)
                        await writer.drain()
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(reader.read(1 << 16), every)
            finally:
                writer.close()
        await asyncio.sleep(0.05)


async def many(count: int, one: Callable[[], Awaitable[None]]) -> None:
    await asyncio.gather(*(one() for _ in range(count)))


async def again(stop: asyncio.Event, one: Callable[[], Awaitable[object]]) -> None:
    """The same until it has to stop."""
    while not stop.is_set():
        with contextlib.suppress(OSError, ValueError, IndexError, asyncio.IncompleteReadError):
            await one()


async def half_open(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """Connections that say nothing."""
    await many(HALF_OPEN, lambda: held(base, b"", b"", 1.0, stop))


async def slow_headers(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """Headers that never end."""
    start = head(base, headers, "GET", "/tasks")[:-2]
    await many(SLOW, lambda: held(base, start, b"x: y\r\n", 0.2, stop))


async def slow_bodies(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """Bodies that come byte by byte, with a key."""
    start = head(base, headers, "POST", "/tasks", 1_000_000)
    await many(SLOW, lambda: held(base, start, b" ", 0.2, stop))


async def nonsense(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """What is no request, and pages that there are not: for the log."""

    async def one() -> None:
        parts = urlsplit(base)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"nonsense\r\n\r\n")
        await reader.read(-1)
        writer.close()
        await called(base, {}, "GET", "/nowhere")

    await many(8, lambda: again(stop, one))


async def guesses(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """Keys, one after another."""
    number = 0

    async def one() -> None:
        nonlocal number
        number += 1
        await called(base, {"authorization": f"Bearer qs_guess-{number}"}, "GET", "/tasks")

    await many(8, lambda: again(stop, one))


async def _wide(base: str, headers: dict[str, str], classes: int = 400) -> str:
    examples = [{"input": f"number {i}", "label": f"{LONG}{i:03d}"} for i in range(classes)]
    body = {"name": "wide", "modality": "text", "examples": examples}
    return str(json.loads((await called(base, headers, "POST", "/tasks", body))[1])["id"])


async def wide_answers(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """A thousand queries of one letter to a task of 400 classes with long names."""
    id = await _wide(base, headers)
    body = {"queries": ["a"] * 1000}
    await many(CALLERS, lambda: again(stop, lambda: called(base, headers, "POST", f"/tasks/{id}/predict", body)))


async def wide_pages(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """The list of twenty such tasks."""
    for _ in range(20):
        if not stop.is_set():
            await _wide(base, headers, 100)
    await many(CALLERS, lambda: again(stop, lambda: called(base, headers, "GET", "/tasks?limit=1000")))


def picture(number: int) -> str:
    """The base64 of a black image of a megabyte, which takes no time to decode."""
    width, height = 600, 555
    size = 3 * width * height
    start = b"BM" + struct.pack("<LLLLllHHLLllLL", 54 + size, 0, 54, 40, width, height, 1, 24, 0, size, 0, 0, 0, 0)
    return base64.b64encode(start + bytes([number]) + bytes(size - 1)).decode()


async def _large(base: str, headers: dict[str, str]) -> str:
    """A task of 22 MB in 22 images."""
    examples = [{"input": picture(i), "label": str(i % 2)} for i in range(22)]
    body = {"name": "large", "modality": "image", "examples": examples}
    return str(json.loads((await called(base, headers, "POST", "/tasks", body))[1])["id"])


async def exports(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """All of a large task, by four callers, again and again."""
    id = await _large(base, headers)
    await many(CALLERS, lambda: again(stop, lambda: called(base, headers, "GET", f"/tasks/{id}/export")))


async def unread(base: str, headers: dict[str, str], stop: asyncio.Event) -> None:
    """The same, and nobody reads what is sent."""
    id = await _large(base, headers)
    parts, ask = urlsplit(base), head(base, headers, "GET", f"/tasks/{id}/export")

    async def one() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1)
                writer.write(ask)
                while not stop.is_set() and not reader.at_eof():
                    await asyncio.sleep(0.5)
                writer.close()

    await many(UNREAD, one)


ATTACKS: dict[str, Callable[[str, dict[str, str], asyncio.Event], Awaitable[None]]] = {
    "half-open connections": half_open,
    "headers that never end": slow_headers,
    "bodies byte by byte": slow_bodies,
    "nonsense": nonsense,
    "guessed keys": guesses,
    "wide answers": wide_answers,
    "wide pages": wide_pages,
    "exports": exports,
    "exports that nobody reads": unread,
}
