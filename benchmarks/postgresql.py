"""A PostgreSQL from Debian's packages that a benchmark makes, restarts and throws away, on loopback alone."""

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import serving


class PostgreSQL:
    """Made in a folder; see `postgresql`."""

    def __init__(self, folder: Path):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
        if not found:
            raise SystemExit("PostgreSQL is not installed (Debian: apt install postgresql)")
        port, password = serving.free_port(), secrets.token_hex(16)
        self.url = f"postgresql+psycopg://team:{password}@127.0.0.1:{port}/postgres"
        self._folder, self._programs, self._unprivileged = folder, found[0].parent, list[str]()
        (folder / "password").write_text(password)
        if os.getuid() == 0:  # which it refuses to run as
            self._unprivileged = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            for path in (folder, folder / "password"):
                shutil.chown(path, "nobody", "nogroup")
        make = ["--username=team", "--pwfile=password", "--auth=scram-sha-256", "--locale=C.UTF-8"]
        self._do("initdb", *make)
        self._options = f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self._start()

    def restart(self, away: float = 0.0) -> None:
        """As an upgrade does: connections are cut, what is not committed is undone, and it is gone so many seconds."""
        if not away:
            self._do("pg_ctl", "restart", "-m", "fast")
            return
        self.stop()
        time.sleep(away)
        self._start()

    def stop(self) -> None:
        self._do("pg_ctl", "stop", "-m", "fast")

    def _start(self) -> None:
        self._do("pg_ctl", "start", "-o", self._options)

    def _do(self, program: str, *words: str) -> None:
        with (self._folder / "log").open("a") as log:  # no pipe: the server would hold it open
            command = [*self._unprivileged, str(self._programs / program), "-D", "data", *words]
            subprocess.run(command, cwd=self._folder, check=True, stdout=log, stderr=log)


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    with tempfile.TemporaryDirectory(prefix="quickstudy-postgresql-") as name:
        server = PostgreSQL(Path(name))
        try:
            yield server
        finally:
            server.stop()
