"""How the bytes of a connection become requests.

`uvicorn.Config` takes any class of protocol, and knows its own by words, "h11" and "httptools". The class behind the
latter uvicorn does not export, nor does it promise `transport`, `pipeline` and `send_400_response`, which are used
below beside the callbacks that httptools documents. So pyproject.toml holds uvicorn to one minor version, and
tests/unit/serving/test_protocol.py fails where one of them has changed. What is public was tried with the same tests:

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

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 1 << 16
"""Of an address and headers that are not complete yet, and of what may follow a body."""
PIPELINED = 16
"""Requests of a connection that wait for the answer to an earlier one."""


class Protocol(HttpToolsProtocol):
    """uvicorn's on httptools, with a bound on what is no body and on the requests that wait.

    Without them one connection could fill the memory. Who sends more is answered 400 and closed.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._advanced, self._incomplete = False, 0

    def data_received(self, data: bytes) -> None:
        """Take bytes from the connection, and count those that came since headers, a body or its end last went on."""
        self._advanced = False
        super().data_received(data)
        self._incomplete = 0 if self._advanced else self._incomplete + len(data)
        if self._incomplete > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"More than {HEAD_BYTES >> 10} KB of headers.")

    def on_headers_complete(self) -> None:
        """Begin a request, unless too many wait already."""
        self._advanced = True
        if len(self.pipeline) >= PIPELINED:
            raise ValueError("too many requests before an answer")  # which uvicorn tells as a request that is invalid
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._advanced = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a body."""
        self._advanced = True
        super().on_message_complete()
