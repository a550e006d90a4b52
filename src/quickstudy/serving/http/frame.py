"""What surrounds every request: an id, a bound on its body, one line in the log, and no traceback for the caller."""

import asyncio
import re
import secrets
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quickstudy.config import Serve
from quickstudy.serving.http.logs import REQUESTS, Sparingly
from quickstudy.serving.http.metrics import Metrics
from quickstudy.serving.http.refusals import refusal

MEGABYTE = 1_000_000
SMALL = 1 << 18
"""Bytes of a body that is taken however much the others bring."""
HUNG_UP = 499
"""In the log and the metrics, as nginx has it."""
LINES, TRACES = 600, 60
"""In the log a minute, at most: of requests without a tenant, and of errors of the service's own."""
KNOWN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Of whatever says nothing else: what the service answers is kept by no cache, shown in no frame and run by no page.
SAFE = {
    b"x-content-type-options": b"nosniff",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
}
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Frame:
    """Surrounds an app with what every request gets.

    Args:
        settings: of a body, megabytes and seconds to arrive, at most. metrics: told of each request.
    """

    def __init__(self, app: ASGIApp, settings: Serve, metrics: Metrics):
        self.app, self.settings, self.metrics = app, settings, metrics
        self._held = _Held()
        self._lines, self._traces = Sparingly(LINES), Sparingly(TRACES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        started, status = time.perf_counter(), 0
        upload = _Upload(receive, self.settings, self._held)

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                said = list(message.get("headers", ()))
                names = {name for name, _ in said}
                more = [header for header in SAFE.items() if header[0] not in names]
                message["headers"] = [*said, (b"x-request-id", request_id.encode()), *more]
            await send(message)

        try:
            if upload.announced(scope) > upload.most:
                await _refuse(413, upload.too_large(), scope, sent)
            else:
                await self.app(scope, upload.receive, sent)
        except asyncio.CancelledError:  # the grace of a service that is stopped is over (server.py)
            if not status:
                await _refuse(503, "the service is being stopped, and this was not done; ask again", scope, sent)
        except ClientDisconnect:  # the caller has hung up; nobody is there to be told
            status = status or HUNG_UP
        except Exception:
            if self._traces.one_more("failed"):
                REQUESTS.exception("failed", extra={"about": {"request": request_id}})
            if not status:
                await _refuse(500, f"an error of the service's own; its log has more under {request_id}", scope, sent)
        finally:
            upload.let_go()
            self._tell(scope, request_id, status, time.perf_counter() - started)

    def _tell(self, scope: MutableMapping[str, Any], request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "none")  # as it is declared, so that there are few
        method = scope["method"] if scope["method"] in KNOWN_METHODS else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        about = {
            "request": request_id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
            "tenant": scope.get("state", {}).get("tenant"),
            **scope.get("state", {}).get("about", {}),
        }
        # Whom no key stands behind, who calls too often or hangs up has a line only while the log is not filled by it.
        seldom = about["tenant"] is None or status in (429, HUNG_UP)
        if seldom and not self._lines.one_more(f"{method} {route} {status}"):
            return
        REQUESTS.info("request", extra={"about": about})


@dataclass
class _Held:
    """What all requests have brought that are not answered yet."""

    bytes: int = 0


class _Upload:
    """Counts the bytes of a body that arrive, whatever the headers say, and the seconds that it takes."""

    def __init__(self, receive: Receive, settings: Serve, held: _Held):
        self._receive, self._left = receive, settings.body * MEGABYTE
        self._held, self._own, self._together = held, 0, settings.bodies * MEGABYTE
        self.most, self._seconds = settings.body * MEGABYTE, settings.upload
        self._until = time.monotonic() + settings.upload
        self._whole = False

    def announced(self, scope: MutableMapping[str, Any]) -> int:
        """Return the bytes that the headers say; 0 where they do not."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                return int(value[:20])
        return 0

    def too_large(self) -> str:
        """Return what is told to who sends more."""
        return f"the body has more than the {self.most // MEGABYTE} MB allowed"

    async def receive(self) -> Message:
        """Return the next part.

        Raises:
            HTTPException: 408 too slow, 413 too large, 503 too large for now, as others bring much too.
        """
        if self._whole:
            return await self._receive()  # the end of the connection, for whoever waits for it
        try:
            async with asyncio.timeout(max(0.0, self._until - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"the body has not arrived within {self._seconds:g} seconds") from None
        size = len(message.get("body", b""))
        self._left -= size
        self._own += size
        self._held.bytes += size
        if self._left < 0:
            raise HTTPException(413, self.too_large())
        if self._held.bytes > self._together and self._own > SMALL:
            line, later = (
                "too much is being read at once; come again later",
                {"retry-after": "2", "connection": "close"},
            )
            raise HTTPException(503, line, later)
        self._whole = not message.get("more_body", False)
        return message

    def let_go(self) -> None:
        """Count what has come no more."""
        self._held.bytes -= self._own
        self._own = 0


def _request_id(scope: MutableMapping[str, Any]) -> str:
    """Return the caller's own where it is harmless, so that it can be followed through several services."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return str(value.decode())
    return secrets.token_hex(8)


async def _refuse(status: int, line: str, scope: Scope, send: Send) -> None:
    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    await refusal(status, line, {"connection": "close"})(scope, nothing, send)
