"""The service as a process: what it listens on, and how it stops."""

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from quickstudy.config import Serve
from quickstudy.errors import QuickstudyError
from quickstudy.serving.engine.store import Store
from quickstudy.serving.http.access import is_loopback
from quickstudy.serving.http.connections import Config
from quickstudy.serving.http.protocol import Protocol

DATABASE = Path(".cache") / "serve.db"
"""Where tasks are kept when nothing else is said, relative to the project."""


def open_store(settings: Serve, root: Path, database: str | None = None) -> Store:
    """Return the database of a project's service.

    Args:
        root: of the project. database: SQLAlchemy's URL, instead of what the settings say.

    Raises:
        QuickstudyError: there is no such database.
    """
    return Store(database or settings.database or f"sqlite:///{root.resolve() / DATABASE}", settings.patience)


def check_host(host: str, store: Store) -> bool:
    """Refuse to be reached from elsewhere without keys.

    Returns:
        whether the service may be open: it is this machine's alone, and nobody ever made a key.

    Raises:
        QuickstudyError: others could call who have no key.
    """
    if is_loopback(host):
        return not store.had_keys()
    if not store.has_keys():
        raise QuickstudyError(
            "without keys the service answers this machine alone",
            where=f"--host {host}",
            fix="Make one first: quickstudy serve keys add NAME",
        )
    return False


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet, so that one learns at once that the port is taken.

    Args:
        port: 0: any that is free.

    Raises:
        QuickstudyError: it cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By its protocol asyncio knows that it may switch Nagle's algorithm off, without which every answer that follows
    # another on a connection comes 40 ms late.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise QuickstudyError(
            f"cannot be listened on ({error.strerror or error})", where=f"{host}:{port}", fix="Say another --port"
        ) from None
    return bound


def configured(app: FastAPI, settings: Serve, root: Path = Path()) -> Config:
    """Return how uvicorn serves the app.

    Args:
        root: where the paths of the settings begin.

    Raises:
        QuickstudyError: the certificate cannot be read.
    """
    certificate, key = (
        None if path is None else root / path for path in (settings.certificate, settings.certificate_key)
    )
    fix = "Mend serve.certificate in params.yaml"
    for path in (certificate, key):
        if path is not None and not path.is_file():
            raise QuickstudyError("there is no such file", where=path, fix=fix)
    config = Config(
        app,
        settings,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Those who cannot be answered in time are told so in what is left of the grace.
        timeout_graceful_shutdown=settings.grace - min(2.0, settings.grace / 4),  # type: ignore[arg-type]
        timeout_keep_alive=settings.idle,  # type: ignore[arg-type]
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    try:
        config.load()
    except OSError as error:  # which an SSLError is
        reason = error.strerror or error
        raise QuickstudyError(f"is no certificate with its key ({reason})", where=certificate, fix=fix) from None
    return config


class Server(uvicorn.Server):
    """uvicorn's, which has ended when its grace has.

    What a thread computes nobody can interrupt, and Python waits for each thread before it ends. The database loses
    nothing: a change is either kept as a whole or not at all.
    """

    config: Config

    def __init__(self, config: Config):
        super().__init__(config)
        self.done = threading.Event()
        """it has ended without a signal, and the process goes on"""

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begin to stop, at a signal."""
        if not self.should_exit:
            threading.Thread(target=self._end_after_grace, daemon=True).start()
        super().handle_exit(sig, frame)  # type: ignore[arg-type]

    def _end_after_grace(self) -> None:
        if self.done.wait(self.config.settings.grace):
            return
        logging.getLogger("quickstudy.serving").warning("the grace is over; what was still computed is left undone")
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(0)


def run(config: Config, bound: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM; requests in flight are answered before it returns, as far as the grace allows."""

    def ended(*_: object) -> None:
        sys.exit(0)

    # uvicorn raises the signal once more when it is done.
    before = {number: signal.signal(number, ended) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server = Server(config)
        server.run(sockets=[bound])
        server.done.set()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        bound.close()
