"""Servers of a team's size, thrown away afterwards: PostgreSQL, Prefect's and MLflow's servers on it, sshd.

Each runs under a keeper (quickstudy.processes), so that it ends with the tests, however those end, and listens on
loopback alone. What is not installed skips its tests; `.ci/run` installs it.
"""

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg
import pytest

from quickstudy import processes
from tests.toy.project import add_flows


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers all tests of this folder go to the same one, so that each server is started once."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("scale"))


@pytest.fixture
def with_flows(project: Path) -> Path:
    """The project with the flows, as `quickstudy run` needs them."""
    return add_flows(project)


@dataclass(frozen=True)
class Team:
    """Where a team's servers are."""

    prefect: str
    mlflow: str
    database: str
    """user:password@host:port of PostgreSQL"""


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Prefect's and MLflow's servers on one PostgreSQL. Artifacts go through MLflow's server, as in docs/scale.md."""
    folder = tmp_path_factory.mktemp("team")
    ports = free_port(), free_port()
    prefect, mlflow = (f"http://127.0.0.1:{port}" for port in ports)
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        store = f"postgresql+psycopg://{database}/mlflow"
        artifacts = ["--artifacts-destination", str(folder / "artifacts")]
        environment = {"PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect"}
        commands = {
            f"{prefect}/api/health": ["prefect", "server", "start", "--port", str(ports[0])],
            f"{mlflow}/health": ["mlflow", "server", "--port", str(ports[1]), "--backend-store-uri", store, *artifacts],
        }
        started = [
            (stack.enter_context(server([sys.executable, "-m", *command], folder, environment)), health)
            for health, command in commands.items()
        ]
        for running, health in started:
            running.wait_until(partial(urllib.request.urlopen, health, timeout=2))
        yield Team(f"{prefect}/api", mlflow, database)


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL with the empty databases prefect and mlflow; gives its user:password@host:port."""
    initdb = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    port, password = free_port(), secrets.token_hex(16)
    # It refuses to run as root, and nobody else may look into pytest's folders.
    with tempfile.TemporaryDirectory(prefix="quickstudy-postgresql-") as name:
        folder, unprivileged = Path(name), []
        (folder / "password").write_text(password)
        if os.getuid() == 0:
            unprivileged = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            for path in (folder, folder / "password"):
                shutil.chown(path, "nobody", "nogroup")
        make = ["--pgdata=data", "--username=team", "--pwfile=password", "--auth=scram-sha-256", "--locale=C.UTF-8"]
        subprocess.run([*unprivileged, initdb, *make, "--no-sync"], cwd=folder, check=True, capture_output=True)
        settings = (f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
        options = [part for setting in settings for part in ("-c", setting)]
        with server([*unprivileged, str(initdb.with_name("postgres")), "-D", "data", *options], folder) as running:
            address = f"team:{password}@127.0.0.1:{port}"
            connect = partial(psycopg.connect, f"postgresql://{address}/postgres", autocommit=True)
            running.wait_until(connect)
            with connect() as connection:
                connection.execute("CREATE DATABASE prefect")
                connection.execute("CREATE DATABASE mlflow")
            yield address


@dataclass(frozen=True)
class SSH:
    """An SSH server that lets the user of the tests in, by one key."""

    user: str
    port: int
    key: Path

    def remote(self, folder: Path) -> str:
        """A DVC remote there."""
        return f"ssh://{self.user}@127.0.0.1:{self.port}{folder}"


@pytest.fixture(scope="session")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSH]:
    """OpenSSH's server with keys of its own."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None:
        pytest.skip("sshd is not installed (Debian: apt install openssh-server)")
    folder, port = tmp_path_factory.mktemp("sshd"), free_port()
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where sshd, started by root, wants to have an empty folder
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nPidFile none\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "StrictModes no\nUsePAM no\nSubsystem sftp internal-sftp\n"
    )
    with server([sshd, "-D", "-e", "-f", str(folder / "config")], folder) as running:
        running.wait_until(partial(socket.create_connection, ("127.0.0.1", port), timeout=2))
        yield SSH(getpass.getuser(), port, folder / "user")


@dataclass(frozen=True)
class Running:
    """A server at work."""

    process: "subprocess.Popen[str]"
    log: Path

    def wait_until(self, ready: Callable[[], contextmanager]) -> None:
        """Until what is asked no longer raises; what it gives is closed again."""
        deadline = time.monotonic() + 120
        while self.process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError, psycopg.OperationalError), ready():
                return
            time.sleep(0.1)
        pytest.fail(f"{self.process.args} did not start:\n{self.log.read_text(errors='replace')[-3000:]}")


@contextmanager
def server(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start a server in a folder, which gets its log, and stop it afterwards."""
    descriptor, log = tempfile.mkstemp(prefix="log-", dir=folder)
    process = processes.start(
        command, folder, environment, interrupt="command", stdout=descriptor, stderr=subprocess.STDOUT
    )
    os.close(descriptor)
    try:
        yield Running(process, Path(log))
    finally:
        processes.stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
