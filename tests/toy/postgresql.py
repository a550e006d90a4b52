"""A PostgreSQL from Debian's packages, made in a folder and not started yet."""

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cluster:
    """Its files lie in ``data``; it listens on loopback alone."""

    folder: Path
    port: int
    password: str
    """of the user team"""
    _programs: Path
    _unprivileged: tuple[str, ...]

    @property
    def address(self) -> str:
        """user:password@host:port"""
        return f"team:{self.password}@127.0.0.1:{self.port}"

    @property
    def options(self) -> tuple[str, ...]:
        """of the server"""
        settings = (f"port={self.port}", "listen_addresses=127.0.0.1", "unix_socket_directories=")
        return tuple(part for setting in settings for part in ("-c", setting))

    def command(self, program: str, *words: str) -> list[str]:
        """One of its programs on its files, to be run in the folder."""
        return [*self._unprivileged, str(self._programs / program), "-D", "data", *words]


def make_cluster(folder: Path, port: int, *options: str) -> Cluster | None:
    """An empty one in an empty folder, which nobody else may look into; None where PostgreSQL is not installed.

    Args:
        options: of initdb.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    if not found:
        return None
    password, unprivileged = secrets.token_hex(16), ()
    (folder / "password").write_text(password)
    if os.getuid() == 0:  # which it refuses to run as
        unprivileged = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        for path in (folder, folder / "password"):
            shutil.chown(path, "nobody", "nogroup")
    made = Cluster(folder, port, password, found[0].parent, unprivileged)
    how = ("--username=team", "--pwfile=password", "--auth=scram-sha-256", "--locale=C.UTF-8", *options)
    subprocess.run(made.command("initdb", *how), cwd=folder, check=True, capture_output=True)
    return made
