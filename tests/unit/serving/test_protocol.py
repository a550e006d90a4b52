"""What a connection may send that is neither a body nor short."""

import asyncio
import contextlib

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from quickstudy.serving.http.protocol import HEAD_BYTES, PIPELINED, Protocol

START = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
LAST = START + b"connection: close\r\n"
CHUNKED = START + b"transfer-encoding: chunked\r\n\r\n"


async def length_of_body(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def answered(*parts: bytes, then: bytes = b"") -> tuple[bytes, int]:
    """What a server says to these bytes, and how often it took what then comes for ever."""

    async def work() -> tuple[bytes, int]:
        server = uvicorn.Server(
            uvicorn.Config(length_of_body, http=Protocol, lifespan="off", log_config=None, host="127.0.0.1", port=0)
        )
        running = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        writer.write(b"".join(parts))
        taken = 0
        with contextlib.suppress(ConnectionError):
            while then and taken < 10_000:
                writer.write(then)
                await writer.drain()
                await asyncio.sleep(0.001)
                taken += 1
        said = b""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(reader.read(1 << 16), 20):
                said += piece
        writer.close()
        server.should_exit = True
        await running
        return said, taken

    return asyncio.run(work())


@pytest.mark.parametrize(
    ("start", "then"),
    [
        (b"GET /", b"a" * 4096),
        (START + b"x: ", b"a" * 4096),
        (START, b"".join(b"x-%d: a\r\n" % i for i in range(400))),
        (CHUNKED + b"1\r\na\r\n0\r\n", b"".join(b"x-%d: a\r\n" % i for i in range(400))),
        (CHUNKED + b"1\r\na\r\n0\r\nx: ", b"a" * 4096),
        (CHUNKED + b"1;", b"a" * 4096),
    ],
    ids=["address", "header", "headers", "trailers", "trailer", "extension of a chunk"],
)
def test_what_is_no_body_is_bounded(start: bytes, then: bytes) -> None:
    _, taken = answered(start, then=then)
    assert taken * len(then) < 10 * HEAD_BYTES  # what lies in the sockets' buffers was taken too


def test_who_sends_too_much_is_told() -> None:
    said, _ = answered(START, b"x: ", b"a" * 6 * HEAD_BYTES)
    assert said.startswith(b"HTTP/1.1 400 ") and b"More than 64 KB of headers." in said


def test_few_requests_may_wait_for_an_answer() -> None:
    one = START + b"content-length: 1\r\n\r\na"
    said, _ = answered(*[one] * 10, LAST + b"content-length: 0\r\n\r\n")
    assert said.count(b"HTTP/1.1 200 ") == 11
    said, _ = answered(*[one] * (PIPELINED + 5))
    assert said.endswith(b"Invalid HTTP request received.") and said.count(b"HTTP/1.1 200 ") <= PIPELINED


def test_long_headers_and_longer_bodies_pass() -> None:
    said, _ = answered(LAST, b"x: ", b"a" * 60_000, b"\r\ncontent-length: 1000000\r\n\r\n", b"b" * 1_000_000)
    assert said.startswith(b"HTTP/1.1 200 ") and said.endswith(b"1000000")
    chunks = [b"%x\r\n%s\r\n" % (5, b"chunk")] * 50_000
    said, _ = answered(LAST, b"transfer-encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n")
    assert said.endswith(b"250000")
