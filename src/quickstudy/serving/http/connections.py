"""How many connections there may be, and how long one may wait for what its caller owes.

uvicorn bounds neither: a connection that never says anything, one that sends its headers a byte a minute and one that
never reads its answer each keep a file of the process for ever, and once there are no more files asyncio logs so two
thousand times a second. Here

- a listening socket counts what it accepts, in all and of each address, a TLS handshake included. Where there are too
  many it ends one that waits for its caller, the one that has waited longest; only where all are being answered is the
  new one refused.
- once a second all connections are asked whether their caller is late (`Protocol.is_late` says what is owed).
- what was ended is told in one line a minute.

All by public means: a subclass of asyncio's event loop gives its servers this listening socket, and a time limit for
TLS handshakes, for which uvicorn has no setting either.
"""

import asyncio
import contextlib
import errno
import logging
import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, Protocol

import uvicorn

from quickstudy.config import Serve
from quickstudy.serving.http.access import is_loopback, network_of

SPARE = 128
"""Files that are not for connections: the database, forms, the log, and those that are being closed."""
AT_ONCE = 32
"""Connections that are refused, or wait to be closed, before the event loop goes on with others."""
LONG = 1.0
"""Seconds that a caller owes something, after which no other one is looked for that has owed it for longer."""
REFUSED = b'{"error": "too many connections; come again later"}'
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\n"
REFUSAL += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(REFUSED), REFUSED)
MINUTE = 60.0

log = logging.getLogger("quickstudy.serving")


class Connection(Protocol):
    """What is known of a connection that has been set up; see `quickstudy.serving.http.protocol.Protocol`."""

    def owed(self, now: float) -> float:
        """Return for how many seconds the caller has owed something, less than 0 where it owes nothing."""

    def is_late(self, now: float) -> bool:
        """Return whether the caller has owed something for too long."""

    def end(self) -> None:
        """Close it at once."""


class Accepted(socket.socket):
    """The socket of a connection, counted until it is closed."""

    def __init__(self, connections: "Connections", peer: str, *arguments: Any, **more: Any):
        super().__init__(*arguments, **more)
        self._connections: Connections | None = connections
        self.peer, self.since = peer, time.monotonic()

    def close(self) -> None:
        if self._connections is not None:
            self._connections.forget(self)
            self._connections = None
        super().close()


class Connections:
    """All connections of a service.

    Args:
        most: at once. each: of one address. free: addresses that may have all, beside this machine. plain: whether who
            is refused can read why.
    """

    def __init__(self, most: int, each: int, free: Collection[str] = (), plain: bool = True):
        self.most, self.each, self._free, self._plain = most, each, {network_of(one) for one in free}, plain
        self._sockets: dict[int, Accepted] = {}
        """by their file, the oldest first"""
        self._made: dict[int, Connection] = {}
        """by their file, without those whose TLS handshake is not done"""
        self._of: Counter[str] = Counter()
        self._closing: set[int] = set()
        """files of connections that were ended and are not closed yet"""
        self._told = -MINUTE
        self._ended: Counter[str] = Counter()
        self._spare: int | None = None

    def __len__(self) -> int:
        return len(self._sockets)

    def made(self, file: int, connection: Connection) -> None:
        """Know a connection that has been set up."""
        if file in self._sockets:
            self._made[file] = connection

    def lost(self, file: int, connection: Connection) -> None:
        """Know one no more."""
        if self._made.get(file) is connection:
            del self._made[file]

    def accept(self, accept: Callable[[], tuple[socket.socket, Any]]) -> tuple[socket.socket, Any]:
        """Return the next connection that may be, and its address.

        Raises:
            BlockingIOError: there is none now.
        """
        for _ in range(AT_ONCE):
            if len(self._closing) >= AT_ONCE:
                break
            try:
                made, address = accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                self._accept_nothing(accept)
                continue
            peer = network_of(address[0]) if isinstance(address, tuple) else "unix"
            if not self._make_room(peer):
                self._ended["refused"] += 1
                if self._plain:
                    made.setblocking(False)
                    with contextlib.suppress(OSError):
                        made.send(REFUSAL)
                made.close()
                continue
            kept = Accepted(self, peer, made.family, made.type, made.proto, fileno=made.detach())
            self._sockets[kept.fileno()] = kept
            self._of[peer] += 1
            return kept, address
        raise BlockingIOError

    def forget(self, closed: Accepted) -> None:
        """Count a connection no more."""
        file = closed.fileno()
        self._closing.discard(file)
        if self._sockets.get(file) is closed:
            del self._sockets[file]
            self._made.pop(file, None)
            self._one_less(closed.peer)

    def end_late(self) -> None:
        """End those whose caller is late, and say what was ended, once a minute."""
        now = time.monotonic()
        for connection in [one for one in self._made.values() if one.is_late(now)]:
            self._ended["late"] += 1
            connection.end()
        if self._ended and now - self._told > MINUTE:
            about = {"connections": len(self), **self._ended}
            log.warning("connections were ended", extra={"about": about})
            self._told, self._ended = now, Counter()

    def _one_less(self, peer: str) -> None:
        self._of[peer] -= 1
        if not self._of[peer]:
            del self._of[peer]

    def _make_room(self, peer: str) -> bool:
        """Return whether there may be one more of an address, for which another one may have to end."""
        full = len(self) >= self.most
        too_many = self._of[peer] >= self.each and peer not in self._free and not is_loopback(peer)
        if not full and not too_many:
            return True
        now = time.monotonic()
        longest, found = 0.0, None
        for file, one in self._sockets.items():
            if too_many and one.peer != peer:
                continue
            connection = self._made.get(file)
            owed = connection.owed(now) if connection is not None else now - one.since
            if owed >= longest:
                longest, found = owed, file
                if owed > LONG:
                    break
        if found is None:
            return False
        self._ended["for others"] += 1
        ended = self._sockets.pop(found)
        self._one_less(ended.peer)
        self._closing.add(found)
        connection = self._made.pop(found, None)
        if connection is not None:
            connection.end()
        else:  # asyncio sees the end of it, and closes it
            with contextlib.suppress(OSError):
                ended.shutdown(socket.SHUT_RDWR)
        return True

    def _accept_nothing(self, accept: Callable[[], tuple[socket.socket, Any]]) -> None:
        """Take a connection for which there is no file, and close it: while it waits, asyncio tries again and again."""
        self._ended["no files"] += 1
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        try:
            accept()[0].close()
        except OSError as error:
            raise BlockingIOError from error
        finally:
            with contextlib.suppress(OSError):
                self._spare = os.open(os.devnull, os.O_RDONLY)

    def open(self) -> None:
        """Keep a file for the time when there is none any more."""
        if self._spare is None:
            self._spare = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        """Let it go."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None


class Listener(socket.socket):
    """A socket that is listened on, and accepts what there is room for."""

    def __init__(self, connections: Connections, bound: socket.socket):
        super().__init__(bound.family, bound.type, bound.proto, fileno=os.dup(bound.fileno()))
        self._connections = connections

    def accept(self) -> tuple[socket.socket, Any]:
        return self._connections.accept(super().accept)


class Config(uvicorn.Config):
    """How uvicorn serves, within the bounds of the settings."""

    def __init__(self, app: Any, settings: Serve, **more: Any):
        super().__init__(app, **more)
        self.settings = settings
        most = min(settings.connections, max(8, raise_limit() - SPARE))
        self.connections = Connections(most, settings.connections_each, settings.proxies, not settings.certificate)

    def get_loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        return lambda: _Loop(self.connections, self.settings)


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's, whose servers bound their connections."""

    def __init__(self, connections: Connections, settings: Serve):
        super().__init__()
        self._connections, self._settings = connections, settings
        self._every = min(1.0, min(settings.head, settings.idle, settings.unread) / 4)

    async def create_server(self, protocol_factory: Any, *arguments: Any, **more: Any) -> Any:  # type: ignore[override]
        if (bound := more.get("sock")) is not None:
            more["sock"] = Listener(self._connections, bound)
        if more.get("ssl") is not None:
            more |= {"ssl_handshake_timeout": self._settings.head, "ssl_shutdown_timeout": self._settings.head}
        self._connections.open()
        self._look()
        return await super().create_server(protocol_factory, *arguments, **more)

    def close(self) -> None:
        self._connections.close()
        super().close()

    def _look(self) -> None:
        self._connections.end_late()
        self.call_later(self._every, self._look)


def raise_limit() -> int:
    """Return how many files this process may have open, after it has asked for as many as it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return 1 << 20 if soft == resource.RLIM_INFINITY else soft
