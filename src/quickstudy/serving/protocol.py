"""How the bytes of a connection become requests."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD = 1 << 16
"""Bytes of an address and headers, and of what may follow a body; each is kept until it is complete."""


class Protocol(HttpToolsProtocol):
    """uvicorn's on httptools, in C, which lets the service answer 7% more requests than h11, in Python.

    Unlike h11 it sets no bound to what is no body, so that a client could fill the memory with headers. Here is one.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._advanced, self._incomplete = False, 0

    def data_received(self, data: bytes) -> None:
        self._advanced = False
        super().data_received(data)
        self._incomplete = 0 if self._advanced else self._incomplete + len(data)
        if self._incomplete > HEAD and not self.transport.is_closing():
            self.send_400_response(f"More than {HEAD >> 10} KB of headers.")

    def on_headers_complete(self) -> None:
        self._advanced = True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._advanced = True
        super().on_message_complete()
