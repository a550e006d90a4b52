"""Servers of a team's size, thrown away afterwards: PostgreSQL, Prefect's and MLflow's servers on it, sshd.

Each runs under a keeper (quickstudy.system.processes), so that it ends with the tests, however those end, and listens
on loopback alone. What is not installed skips its tests; `.ci/run` installs it.
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

from quickstudy.system import processes
from tests.toy.postgresql import make_cluster
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
    password: str
    """of the user admin, for both"""

    def environment(self) -> dict[str, str]:
        """What a member sets, as docs/scale.md says."""
        return {
            "PREFECT_API_URL": self.prefect,
            "PREFECT_API_AUTH_STRING": f"admin:{self.password}",
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Prefect's and MLflow's servers on one PostgreSQL, with passwords, as docs/scale.md says."""
    folder, password = tmp_path_factory.mktemp("team"), secrets.token_hex(16)
    ports = free_port(), free_port()
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        (folder / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = postgresql+psycopg://{database}/mlflow_users\n"
            "admin_username = admin\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            "auth_cache_ttl_seconds = 60\n"  # else each request pays for hashing the password
        )
        environment = {
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect",
            "PREFECT_SERVER_API_AUTH_STRING": f"admin:{password}",
            "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg://{database}/mlflow",
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_AUTH_ADMIN_PASSWORD": password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        }
        commands = ["prefect", "server", "start"], ["mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        started = [
            stack.enter_context(server([sys.executable, "-m", *command, "--port", str(port)], folder, environment))
            for command, port in zip(commands, ports, strict=True)
        ]
        for running, port, health in zip(started, ports, ("api/health", "health"), strict=True):
            running.wait_until(partial(urllib.request.urlopen, f"http://127.0.0.1:{port}/{health}", timeout=2))
        prefect, mlflow = (f"http://127.0.0.1:{port}" for port in ports)
        yield Team(f"{prefect}/api", mlflow, database, password)


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL with empty databases; gives its user:password@host:port."""
    # Nobody else may look into pytest's folders.
    with tempfile.TemporaryDirectory(prefix="quickstudy-postgresql-", dir="/tmp") as folder:
        made = make_cluster(Path(folder), free_port(), "--no-sync")
        if made is None:
            pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
        with server(made.command("postgres", *made.options, "-c", "fsync=off"), made.folder) as running:
            address = made.address
            connect = partial(psycopg.connect, f"postgresql://{address}/postgres", autocommit=True)
            running.wait_until(connect)
            with connect() as connection:
                for database in ("prefect", "mlflow", "mlflow_users"):
                    connection.execute(f"CREATE DATABASE {database}")
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
