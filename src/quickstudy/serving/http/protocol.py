"""How the bytes of a connection become requests.

`uvicorn.Config` takes any class of protocol, and knows its own by words, "h11" and "httptools". The class behind the
latter uvicorn does not export, nor does it promise `transport`, `cycle`, `scope`, `pipeline`, `on_response_complete`
and `send_400_response`, which are used below beside the callbacks that httptools documents. So pyproject.toml holds
uvicorn to one minor version, and tests/unit/serving/test_protocol.py fails where one of them has changed. What is
public was tried with the same tests:

- "httptools" as it is has no bound, and no setting for one. `test_what_is_no_body_is_bounded` fails in each case, and
  so do `test_who_sends_too_much_is_told` and `test_few_requests_may_wait_for_an_answer`.
- "h11" with `h11_max_incomplete_event_size=HEAD_BYTES` bounds what is no body. The other two fail: who sends too much
  is not told what, and requests that a client sends ahead are all taken, one after another. And a request with its
  answer takes 0.22 ms of a core instead of 0.14 (GET /health, the client included).
- ASGI middleware is called when headers are complete, for one request of a connection at a time. Neither endless
  headers nor requests that wait ever reach it.
- A protocol of our own around uvicorn's sees bytes, and would have to parse all of them a second time to know what is
  body, with every leniency that uvicorn sets on its own parser; which requests are answered it is never told.
"""

import time
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from quickstudy.serving.http.connections import Config
from quickstudy.serving.http.peers import Peer

HEAD_BYTES = 1 << 16
"""Of an address and headers that are not complete yet, and of what may follow a body."""
PIPELINED = 16
"""Requests of a connection that wait for the answer to an earlier one."""
FAIR = 1000
"""Bytes a second of a body that are not slow."""
TAKEN = 1 << 16
"""Bytes of its answer that a caller takes in `serve.unread` seconds, at least."""


class Protocol(HttpToolsProtocol):
    """uvicorn's on httptools, with a bound on what is no body, on the requests that wait, and on the time that a caller
    takes.

    Without them one connection could fill the memory, or stay for ever. Who sends more is answered 400 and closed, who
    is late is closed. Times are looked at once a second (see `connections.py`), so that a request sets no timer.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._advanced, self._incomplete = False, 0
        self._own = self.config if isinstance(self.config, Config) else None
        self._file = -1
        self._idle: float = 0.0
        """since when nothing is owed by the service"""
        self._head: float | None = None
        """since when a request's address and headers are on their way"""
        self._body: float | None = None
        """since when its body is"""
        self._came = 0
        """bytes of it that have come"""
        self._taken: float | None = None
        """since when a caller has not taken enough of what waits for it"""
        self._unread = 0
        """bytes that waited for it then"""

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        super().connection_made(transport)
        self._idle, self._peer = time.monotonic(), Peer(self.client, self.server)
        if self._own is not None and (accepted := transport.get_extra_info("socket")) is not None:
            self._file = accepted.fileno()
            self._own.connections.made(self._file, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._own is not None:
            self._own.connections.lost(self._file, self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes from the connection, and count those that came since headers, a body or its end last went on."""
        self._advanced = False
        super().data_received(data)
        self._incomplete = 0 if self._advanced else self._incomplete + len(data)
        if self._incomplete > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"More than {HEAD_BYTES >> 10} KB of headers.")

    def on_message_begin(self) -> None:
        """Begin the headers of a request; the first has been on its way since the connection was made."""
        super().on_message_begin()
        self._head = self._idle if self.cycle is None else time.monotonic()
        self.scope["state"]["peer"] = self._peer

    def on_headers_complete(self) -> None:
        """Begin a request, unless too many wait already."""
        self._advanced = True
        self._head, self._body, self._came = None, time.monotonic(), 0
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests before an answer")  # which uvicorn tells as a request that is invalid
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._advanced = True
        self._came += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a body."""
        self._advanced = True
        self._body = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End an answer; what was sent ahead may have waited for it, through no fault of the caller's."""
        self._idle, self._taken = time.monotonic(), None
        if self._head is not None:
            self._head = self._idle
        super().on_response_complete()

    def resume_writing(self) -> None:
        """Go on with an answer, most of which has been taken."""
        self._taken = None
        super().resume_writing()

    # ---- what is asked once a second

    def owed(self, now: float) -> float:
        """Return for how many seconds the caller has owed something, less than 0 where it owes nothing.

        Those of a body that comes as fast as from an honest caller count little.
        """
        if self.transport.get_write_buffer_size():
            return now - (self._taken or now)
        if self._body is not None:
            seconds = now - self._body
            return seconds / 60 if self._came >= FAIR * seconds else seconds
        if self.cycle is not None and not self.cycle.response_complete:
            return -1.0
        return now - (self._head or self._idle)

    def is_late(self, now: float) -> bool:
        """Return whether the caller has owed something for too long."""
        assert self._own is not None
        settings = self._own.settings
        unread = self.transport.get_write_buffer_size()
        if not unread:
            self._taken = None
        elif self._taken is None or self._unread - unread >= TAKEN:
            self._taken, self._unread = now, unread
        elif now - self._taken > settings.unread:
            return True
        if self.cycle is not None and not self.cycle.response_complete:
            return False  # what of its body is late is told by Frame
        if self._head is not None:
            return now - self._head > settings.head
        if self._body is not None:  # it was answered before all of it had come
            return now - self._body > settings.upload
        return now - self._idle > (settings.head if self.cycle is None else settings.idle)

    def end(self) -> None:
        """Close it at once."""
        self.transport.abort()
