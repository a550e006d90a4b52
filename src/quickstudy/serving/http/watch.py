"""No request is worked on for ever, and none whose caller has gone.

What a request does is one asyncio task. A watcher looks at those that take long, a few times a second: at the deadline
the task is cancelled and the caller told so; where the connection has ended it is cancelled for nobody. Whatever of it
waits for its turn is then not begun.
"""

import asyncio
import contextlib
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quickstudy.config import Serve
from quickstudy.serving.http.refusals import refusal

CLOSING = "quickstudy.closing"
"""Of a request's scope: an `ExitStack` that is closed when it is answered."""
LOOK = 0.25
"""Seconds between two looks; who is answered sooner is not looked at."""


@dataclass(eq=False)
class _Request:
    task: "asyncio.Task[Any]"
    receive: Receive
    begun: float
    """when its body was there"""
    is_whole: bool = False
    early: Message | None = None
    """a body that is none, which came while the connection's end was listened for"""
    has_begun_to_answer: bool = False
    why: str | None = None
    """it was cancelled by us"""
    listening: "asyncio.Task[None] | None" = field(default=None, repr=False)
    """for the end of the connection"""


class Watch:
    """Surrounds an app with what looks at its requests.

    Args:
        settings: seconds that a request may take once its body is there.
    """

    def __init__(self, app: ASGIApp, settings: Serve):
        self.app, self.deadline = app, settings.deadline
        self._requests: set[_Request] = set()
        self._looking: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        if scope["type"] != "http" or task is None:
            await self.app(scope, receive, send)
            return
        request = _Request(task, receive, time.monotonic(), is_whole=not _has_body(scope))

        async def received() -> Message:
            message, request.early = request.early or await receive(), None
            if message["type"] == "http.request" and not message.get("more_body", False):
                request.is_whole, request.begun = True, time.monotonic()
            return message

        async def sent(message: Message) -> None:
            request.has_begun_to_answer = True
            await send(message)

        self._requests.add(request)
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        with ExitStack() as closing:
            scope[CLOSING] = closing
            try:
                await self.app(scope, received, sent)
            except asyncio.CancelledError:
                if request.why is None:
                    raise
                task.uncancel()
                if not request.has_begun_to_answer:
                    headers = {"retry-after": "5", "connection": "close"}
                    await refusal(503, request.why, headers)(scope, receive, send)
            finally:
                self._requests.discard(request)
                if request.listening is not None:
                    request.listening.cancel()

    async def _look(self) -> None:
        """Look at requests for as long as there are any."""
        while self._requests:
            await asyncio.sleep(LOOK)
            now = time.monotonic()
            for request in list(self._requests):
                if request.why is not None or request.has_begun_to_answer or not request.is_whole:
                    continue
                if now - request.begun > self.deadline:
                    what = f"this has taken more than {self.deadline:g} seconds (serve.deadline) and was given up"
                    self._end(request, f"{what}. Ask for less at once")
                elif _has_gone(request):
                    self._end(request, "the caller has gone")
        self._looking = None

    def _end(self, request: _Request, why: str) -> None:
        request.why = why
        request.task.cancel()


def _has_gone(request: _Request) -> bool:
    if request.listening is None:
        request.listening = asyncio.create_task(_end_of(request))
    return request.listening.done()


async def _end_of(request: _Request) -> None:
    with contextlib.suppress(Exception):  # as where the connection broke
        while (message := await request.receive())["type"] != "http.disconnect":
            request.early = message


def _has_body(scope: Scope) -> bool:
    names = {name: value for name, value in scope["headers"]}
    return names.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in names
