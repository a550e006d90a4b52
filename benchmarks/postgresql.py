"""A PostgreSQL from Debian's packages that a benchmark makes, restarts and throws away, on loopback alone."""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import serving

sys.path.insert(0, str(serving.REPOSITORY))

from tests.toy.postgresql import make_cluster


class PostgreSQL:
    """Made in a folder; see `postgresql`."""

    def __init__(self, folder: Path):
        made = make_cluster(folder, serving.free_port())
        if made is None:
            raise SystemExit("PostgreSQL is not installed (Debian: apt install postgresql)")
        self._made, self.url = made, f"postgresql+psycopg://{made.address}/postgres"
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
        self._do("pg_ctl", "start", "-o", " ".join(self._made.options))

    def _do(self, program: str, *words: str) -> None:
        with (self._made.folder / "log").open("a") as log:  # no pipe: the server would hold it open
            command = self._made.command(program, *words)
            subprocess.run(command, cwd=self._made.folder, check=True, stdout=log, stderr=log)


@contextlib.contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    with tempfile.TemporaryDirectory(prefix="quickstudy-postgresql-") as name:
        server = PostgreSQL(Path(name))
        try:
            yield server
        finally:
            server.stop()
