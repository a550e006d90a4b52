"""What stands in front of a server on this machine: it answers its own page and programs that know its password.

A page from elsewhere that is open in a browser can send requests to any server that the browser reaches. Three looks at
each request, plain or of a websocket, keep it out:

- Host: a name that is not this server's belongs to a page that had its own name lead here (DNS rebinding);
- Origin, which a browser adds where a page asks for more than to be shown: it must be the server's own page;
- Sec-Fetch-Site, which a browser adds to the rest: another page may link here, and no more.

Programs send none of the last two. An ASGI application (https://asgi.readthedocs.io) around another one, of whatever
framework; it imports nothing, so that it can stand in any server's process.
"""

import base64
import hmac
import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")

HOSTS = "QUICKSTUDY_ALLOWED_HOSTS"
"""The variable that names further hosts, with commas: under which a proxy, say, reaches the servers."""

USUAL = {"http": 80, "https": 443}
"""The schemes of pages, and the ports that they do not name."""

HEADERS = ((b"x-frame-options", b"SAMEORIGIN"), (b"x-content-type-options", b"nosniff"))
"""What each answer says where the application does not: no page elsewhere may show ours in a frame, to be clicked."""


def hosts_of(host: str) -> tuple[str, ...]:
    """Return the names under which a server that listens on ``host`` is asked: this machine's, that one, and what the
    user has set."""
    more = (name.strip().lower() for name in os.environ.get(HOSTS, "").split(","))
    names = (name for name in (*LOOPBACK, host.lower(), *more) if name not in ("", "0.0.0.0", "::"))
    return tuple(dict.fromkeys(names))


class Guard:
    """An application behind those looks and a password.

    Args:
        application: what is guarded.
        hosts: the names under which it may be asked, beside the address that a request has come to.
        login: user:password that requests must give, by HTTP's basic authentication.
        asks: says of which requests that is asked.
        dialog: have the browser ask the person for it, where the page does not.
    """

    def __init__(
        self,
        application: Application,
        hosts: Iterable[str],
        login: str,
        asks: Callable[[Scope], bool] = lambda scope: True,
        dialog: bool = True,
    ):
        self.application, self.hosts, self.login = application, frozenset(hosts), login.encode()
        self.asks, self.dialog = asks, dialog

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.application(scope, receive, send)
        elif (refusal := self.refusal(scope)) is not None:
            await self._refuse(scope, receive, send, *refusal)
        else:
            await self.application(scope, receive, _with_headers(send))

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and text for a request that is not let through."""
        headers = _headers(scope)
        host, port = _split(headers.get("host", ""))
        own, own_port = scope.get("server") or (None, None)
        if host is None or not (host in self.hosts or host == own):
            return 403, "this server is not called so (Host)"
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None:
            scheme, _, rest = origin.lower().partition("://")
            name, at = _split(rest)
            usual = USUAL.get(scheme)
            page = (name, at or usual)
            # The page may say localhost and ask 127.0.0.1: the same server under another of its names. A proxy may
            # ask under its own name for it.
            if usual is None or not (
                page == (host, port or usual)
                or (name in self.hosts and page[1] == own_port)
                or (name in self.hosts - set(LOOPBACK) and page[1] == usual)
            ):
                return 403, "another page asks (Origin)"
        elif site in ("cross-site", "same-site") and headers.get("sec-fetch-mode") != "navigate":
            return 403, "another page asks (Sec-Fetch-Site)"
        preflight = scope.get("method") == "OPTIONS" and "access-control-request-method" in headers  # gives no password
        if self.asks(scope) and not preflight and not self._knows(headers):
            return 401, "this server asks for a user and a password"
        return None

    def _knows(self, headers: dict[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        try:
            said = base64.b64decode(given, validate=True)
        except ValueError:
            return False
        return scheme.lower() == "basic" and hmac.compare_digest(said, self.login)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, status: int, text: str) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: the server answers 403
            return
        body = f"{text}\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        if status == 401 and self.dialog:
            headers.append((b"www-authenticate", b'Basic realm="quickstudy", charset="UTF-8"'))
        await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})


def _headers(scope: Scope) -> dict[str, str]:
    """Return the request's headers. One that is there twice, which browsers and honest programs do not send, has no
    value that anything is equal to."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        found[key] = "twice" if key in found and key in ("host", "origin", "authorization") else value.decode("latin-1")
    return found


def _split(host: str) -> tuple[str | None, int | None]:
    """Return name and port of a Host header, or what follows the scheme of an Origin; (None, None) of anything else."""
    try:
        parts = urlsplit(f"//{host}")
        port = parts.port
    except ValueError:
        return None, None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None, None
    return parts.hostname, port


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            have = {name.lower() for name, _ in message.get("headers", ())}
            message["headers"] = [*message.get("headers", ()), *((n, v) for n, v in HEADERS if n not in have)]
        await send(message)

    return sending
