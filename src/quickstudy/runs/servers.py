"""Prefect's and MLflow's servers and the workers of this machine, for as long as the process runs."""

import contextlib
import fcntl
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from quickstudy.errors import QuickstudyError
from quickstudy.runs.api import request
from quickstudy.runs.server import FIXES
from quickstudy.system.guard import LOOPBACK
from quickstudy.system.progress import asking, read_event

if TYPE_CHECKING:
    from rich.console import Console


LIMITS = {"gpu": 1}
"""Runs that a worker of a pool takes at once; one of another pool as many as there are."""


WORKER = {
    "PREFECT_WORKER_QUERY_SECONDS": "3",  # between two looks for runs; by default 10
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",  # one that misses three is offline; by default 30
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7",  # MLflow may be away for some minutes
}


PATIENCE = 9  # times that a server which is busy is asked when a worker starts, some ten seconds each


SOON = 5.0  # seconds before what Prefect's server did not take is tried again


AGAIN = 30.0  # seconds before the same is looked into once more


LONGEST_PAUSE = 30.0  # seconds before what has ended is started again; the first time 1, then twice as long each time


@dataclass
class Daemon:
    """A process that shall run as long as this one, and is started again when it ends."""

    name: str
    command: list[str]
    env: dict[str, str] = field(default_factory=dict)
    health: str | None = None
    """an address that answers when it is ready; only servers have one"""
    ready: Callable[[], bool] | None = None
    """says when one without an address is"""
    process: "subprocess.Popen[str] | None" = None
    started: float = 0.0
    due: float | None = None
    """when it is started again"""
    pause: float = 1.0


class ServerBusy(QuickstudyError):
    """Prefect's server is there and does not answer now: SQLite beneath it can stall for a minute."""


class Supervisor:
    """Starts daemons and keeps them running."""

    def __init__(self, root: Path, log: IO[str]):
        self.root, self.log, self.all = root, log, list[Daemon]()

    def __call__(self, daemon: Daemon) -> None:
        """Start one, and wait until it is ready where it can say so."""
        self.all.append(daemon)
        self._start(daemon)
        ready = daemon.ready or (lambda: daemon.health is None or _answers(daemon.health))
        while not ready():
            assert daemon.process is not None
            if daemon.process.poll() is not None:
                raise QuickstudyError(f"{daemon.name} did not start", where=self.log.name, fix="See there why")
            time.sleep(0.2)

    def supervise(self, console: "Console", look: Callable[[], object] = lambda: None) -> None:
        """Start again what ends, until Ctrl-C or SIGTERM; call ``look`` now and then."""
        from quickstudy.system import processes

        while True:
            for daemon in self.all:
                assert daemon.process is not None
                now = time.monotonic()
                if daemon.process.poll() is None:
                    if now - daemon.started > 2 * LONGEST_PAUSE:
                        daemon.pause = 1.0
                elif daemon.due is None:
                    processes.stop(daemon.process)  # what it has left behind
                    line = f"{daemon.name} has ended and is started again (see {self.log.name})"
                    console.print(line, soft_wrap=True, highlight=False)
                    daemon.due, daemon.pause = now + daemon.pause, min(2 * daemon.pause, LONGEST_PAUSE)
                elif now >= daemon.due:
                    daemon.due = None
                    self._start(daemon)
            look()
            time.sleep(0.5)

    def _start(self, daemon: Daemon) -> None:
        from quickstudy.system import processes

        daemon.started = time.monotonic()
        daemon.process = processes.start(
            daemon.command, self.root, daemon.env, interrupt="command", stdout=self.log, stderr=subprocess.STDOUT
        )

    def stop(self) -> None:
        """Stop all: first the workers and their runs, which still tell the servers so, then those."""
        from quickstudy.system import processes

        for servers in (False, True):
            going = [daemon.process for daemon in self.all if daemon.process and (daemon.health is not None) == servers]
            for process in going:  # all at once, then wait
                assert process.stdin is not None
                process.stdin.close()
            for process in going:
                processes.stop(process)


class Undertaker:
    """Marks the runs of this clone that died as crashed, so that whoever waits for them need not wait for a silence."""

    def __init__(self, root: Path, env: dict[str, str], log: IO[str]):
        self.root, self.env, self.log = root, env, log
        self.seen: set[str] = set()
        self.at = 0.0

    def __call__(self) -> bool:
        """Whether there were any. Of a run that has ended in order, its workspace forgets the name, no more."""
        from quickstudy.runs import workspaces

        left, now = set(workspaces.abandoned(self.root)), time.monotonic()
        if not left or (left == self.seen and now - self.at < AGAIN):
            return False
        self.seen, self.at = left, now
        command = [sys.executable, "-m", "flows.recovery"]
        done = subprocess.run(
            command, cwd=self.root, env={**os.environ, **self.env}, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        print(done.stdout, end="", file=self.log, flush=True)
        return bool(done.stdout)


class Watcher:
    """Starts the deployment watch when there is something to look into: at once, and again after a while as long as it
    stays as it is."""

    def __init__(self, root: Path, env: dict[str, str], log: IO[str]):
        from quickstudy.config import load_settings

        self.root, self.env, self.log = root, env, log
        self.settings = load_settings(root / "params.yaml").watch
        self.bury = Undertaker(root, env, log)
        self.looked = self.started = 0.0
        self.known: dict[str, str] = {}
        self.once = {"start"}
        """Reasons for one look alone: a retraining that died with the last `up` is to be started again, or one that
        died just now ("runs")."""

    def __call__(self) -> None:
        from quickstudy.runs import watching

        now = time.monotonic()
        if now - self.looked < self.settings.every:
            return
        self.looked = now
        if self.bury():
            self.once.add("runs")
        found = watching.reasons(self.root, self.settings.inbox)
        wait = AGAIN if found == self.known and not self.once else self.settings.every
        if not (found or self.once) or now - self.started < wait:
            return
        try:
            _start_run(self.env["PREFECT_API_URL"], "watch/watch", [f"trigger:{name}" for name in (*found, *self.once)])
        except QuickstudyError as error:  # the server starts again, or is busy
            print(f"watch was not started: {error}", file=self.log, flush=True)
            self.looked = now + SOON - self.settings.every
            return
        self.known, self.started, self.once = found, now, set()


@contextlib.contextmanager
def supervising(log_path: Path) -> Iterator[Supervisor]:
    """Give a supervisor whose daemons write into this log, and stop them when the body ends, by Ctrl-C or SIGTERM
    too."""
    log_path.parent.mkdir(exist_ok=True)

    def terminate(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    with log_path.open("a", encoding="utf-8") as log:
        supervisor, stopped = Supervisor(log_path.parents[1], log), False
        try:
            yield supervisor
        except KeyboardInterrupt:
            stopped = True
        finally:
            supervisor.stop()
            signal.signal(signal.SIGTERM, before)
        if stopped:
            print("closed")


@contextlib.contextmanager
def only_up(root: Path) -> Iterator[IO[str]]:
    """Hold the file in which `up` says what it serves, for as long as it does, and give it.

    Not by filelock: others ask by a shared lock whether it is held (`quickstudy.system.environment.serving`).

    Raises:
        QuickstudyError: another one runs.
    """
    from quickstudy.system.environment import UP

    path = root / UP
    path.parent.mkdir(exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise QuickstudyError(
                "`quickstudy up` runs already", where=root, fix="quickstudy runs; quickstudy ui"
            ) from None
        file.truncate(0)
        yield file
        file.truncate(0)


@dataclass(frozen=True)
class Servers:
    """Prefect's and MLflow's servers, of which some may run elsewhere.

    Attributes:
        addresses: "MLflow" and "Prefect" → the address, without /api.
        logins: what the clients of those that were started here give, by variables of the environment.
        ask: which of those, "prefect" and "mlflow", ask for the project's own password.
    """

    addresses: dict[str, str]
    logins: dict[str, str]
    ask: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """Return what the clients need."""
        api = f"{self.addresses['Prefect']}/api"
        return {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": self.addresses["MLflow"], **self.logins}

    def told(self) -> dict[str, str]:
        """Return what other commands of this project are told (quickstudy.system.environment.serving)."""
        environment = self.environment()
        addresses = {"prefect": environment["PREFECT_API_URL"], "mlflow": environment["MLFLOW_TRACKING_URI"]}
        return {**addresses, "login": " ".join(self.ask)}


def check_host(root: Path, host: str) -> None:
    """Check that servers which others reach have a password of the user's own.

    Raises:
        QuickstudyError: one that would be started has none.
    """
    from quickstudy.registry import tracking_uri
    from quickstudy.system import logins

    elsewhere = {"mlflow": tracking_uri(root).startswith("http"), "prefect": bool(os.environ.get("PREFECT_API_URL"))}
    open_ones = [name for name, away in elsewhere.items() if not away and not logins.set_by_user(name, os.environ)]
    if open_ones and not _is_loopback(host):
        raise QuickstudyError(
            f"others would reach the servers at {host}, so they need a password of yours",
            where="--host",
            fix=f"Set {logins.OWN}=user:password, here and for each worker (docs/scale.md)",
        )


def start_servers(
    root: Path, run: Callable[[Daemon], None], console: "Console", host: str, prefect_port: int, mlflow_port: int
) -> Servers:
    """Start the servers that the environment does not name. Each asks for a password: the user's, else the project's.

    Raises:
        QuickstudyError: one does not start; its log says why.
    """
    from quickstudy import registry
    from quickstudy.registry.guarded import DESTINATION, STORE
    from quickstudy.system import logins

    check_host(root, host)
    registry.prepare(root)
    addresses: dict[str, str] = {}
    given: dict[str, str] = {}
    ask: list[str] = []

    def login_of(server: str) -> str:
        if login := logins.set_by_user(server, os.environ):
            return login
        ask.append(server)
        return logins.find_or_make(root)

    uri = registry.tracking_uri(root)
    if uri.startswith("http"):
        addresses["MLflow"] = uri
    else:
        port = _free_port(host, mlflow_port)
        addresses["MLflow"] = f"http://{_reached(host)}:{port}"
        command = ["quickstudy.registry.guarded", "--host", host, "--port", str(port)]
        login = logins.of_mlflow(login_of("mlflow"))
        given |= login
        env = {  # not arguments, which every user of the machine can read
            STORE: uri,
            DESTINATION: os.environ.get(DESTINATION, str(root / "mlruns/artifacts")),
            **login,
        }
        with console.status("MLflow starts"):
            run(Daemon("MLflow's server", [sys.executable, "-m", *command], env, f"{addresses['MLflow']}/health"))
    if server := os.environ.get("PREFECT_API_URL"):
        addresses["Prefect"] = server.removesuffix("/").removesuffix("/api")
    else:
        port = _free_port(host, prefect_port)
        addresses["Prefect"] = f"http://{_reached(host)}:{port}"
        command = ["flows.guarded", "--host", host, "--port", str(port)]
        login = logins.of_prefect(login_of("prefect"))
        given |= {logins.PREFECT[1]: login[logins.PREFECT[1]]}
        with console.status("Prefect starts (half a minute the first time)"):
            run(
                Daemon(
                    "Prefect's server", [sys.executable, "-m", *command], login, f"{addresses['Prefect']}/api/health"
                )
            )
    return Servers(addresses, given, tuple(ask))


def start_worker(root: Path, pool: str, env: dict[str, str], limit: int | None = None) -> Daemon:
    """Return a worker of a pool, in this clone, for a `Supervisor` to start. It is ready when Prefect has heard of it.

    Args:
        env: the servers' addresses.
        limit: runs at once; by default what `LIMITS` says.
    """
    from quickstudy.runs import workspaces
    from quickstudy.system.environment import DEFAULTS

    name = f"{socket.gethostname()}-{pool}"
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    command += ["--name", name, "--no-create-pool-if-not-found", "--install-policy", "never"]
    if at_once := limit or LIMITS.get(pool):
        command += ["--limit", str(at_once)]
    # What the user has set stays; what this process has set for itself does not.
    own = {name: value for name, value in WORKER.items() if os.environ.get(name) in (None, DEFAULTS.get(name))}

    def heartbeats() -> set[str]:
        with contextlib.suppress(QuickstudyError):
            workers = _ask(env["PREFECT_API_URL"], f"/work_pools/{pool}/workers/filter", {}) or []
            return {worker["last_heartbeat_time"] for worker in workers if worker["name"] == name}
        return set()

    before = heartbeats()

    def ready() -> bool:  # one after the other: SQLite beneath Prefect's server stalls where two come at once
        return bool(heartbeats() - before)

    return Daemon(f"the worker of {pool}", command, {**env, **own, workspaces.HOME: str(root)}, ready=ready)


def deploy(root: Path, env: dict[str, str]) -> None:
    """Tell Prefect's server the pools and deployments of this project.

    Raises:
        QuickstudyError: it does not take them, or does not answer; says why.
    """
    done = subprocess.run(
        [sys.executable, "-m", "flows.deploy", "--alone"],
        cwd=root,
        env={**os.environ, **env, **asking()},
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        told = [event["text"] for line in done.stdout.splitlines() if (event := read_event(line)) and "text" in event]
        printed = (done.stderr.strip() or "without a word").splitlines()
        raise QuickstudyError((told or printed)[-1])


def check_pool(api: str, pool: str) -> None:
    """Check that Prefect's server knows a pool, and wait a minute or two for one that is busy.

    Raises:
        QuickstudyError: it does not, or does not answer.
    """
    for tries in count(1):
        try:
            found = _ask(api, f"/work_pools/{pool}")
            break
        except ServerBusy:
            if tries == PATIENCE:
                raise
            time.sleep(1)
    if found is None:
        fix = "Deploy it there: quickstudy up, or python -m flows.deploy"
        raise QuickstudyError(f"there is no pool {pool}", where=api, fix=fix)


def _start_run(api: str, deployment: str, tags: list[str]) -> None:
    found = _ask(api, f"/deployments/name/{deployment}")
    if found is None:
        raise QuickstudyError(f"there is no deployment {deployment}", where=api, fix="python -m flows.deploy")
    _ask(api, f"/deployments/{found['id']}/create_flow_run", {"tags": tags})


def _ask(api: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Return what Prefect's server answers; None where there is no such thing.

    By its HTTP interface: importing prefect takes two seconds, and only the flows do.
    """
    try:
        return request(api, path, body, os.environ.get("PREFECT_API_AUTH_STRING"))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        kind = ServerBusy if error.code == 503 else QuickstudyError
        raise kind(f"Prefect's server answers {error}", where=api, fix=FIXES.get(error.code)) from None
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError):
            raise ServerBusy(
                "Prefect's server is busy and does not answer", where=api, fix="Try again in a minute"
            ) from None
        raise QuickstudyError(
            f"Prefect's server does not answer ({error})", where=api, fix="Start it: quickstudy up"
        ) from None


def _reached(host: str) -> str:
    """Return an address under which this machine itself reaches a server."""
    return LOOPBACK[0] if host in ("0.0.0.0", "::") else host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _free_port(host: str, wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise QuickstudyError("no free port on this machine", where=host)


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=2).close()
    except (urllib.error.URLError, OSError):
        return False
    return True
