"""up, worker and ui: servers and workers on this machine, for as long as the command runs; and who asks them."""

import json
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.errors import QuickstudyError
from quickstudy.runs.servers import (
    Servers,
    Undertaker,
    Watcher,
    check_host,
    check_pool,
    deploy,
    only_up,
    start_servers,
    start_worker,
    supervising,
)
from quickstudy.system.guard import LOOPBACK
from quickstudy.system.logins import LOGIN

if TYPE_CHECKING:
    from quickstudy.system.terminal import Console


Host = Annotated[
    str,
    typer.Option(
        "--host",
        help="What the servers listen on. Beyond this machine they need a password of yours, QUICKSTUDY_LOGIN: whoever "
        "has it may do everything (docs/scale.md).",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(up)
    app.command()(worker)
    app.command()(ui)
    app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(prefect)


def up(
    host: Host = LOOPBACK[0],
    prefect_port: Annotated[int, typer.Option(help="Of Prefect's server; another one where it is taken.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(help="Of MLflow's server; another one where it is taken.")] = 5000,
    gpu: Annotated[bool, typer.Option(help="A worker of the pool gpu here too.")] = True,
) -> None:
    """Run it all on this machine: Prefect's and MLflow's servers, the deployments of prefect.yaml, and their workers.

    Retraining then starts by itself: on the schedule of params.yaml (runs.schedule), and when new data arrives
    (watch). Servers that PREFECT_API_URL and MLFLOW_TRACKING_URI name are taken as they are. What ends is started
    again. Ctrl-C stops all of it; a training that runs then goes on from its checkpoint the next time.
    """
    from quickstudy.cli.pipeline import project
    from quickstudy.system.terminal import Console

    root = project()
    check_host(root, host)
    console = Console()
    with only_up(root) as told, supervising(root / ".cache" / "up.log") as run:
        servers = start_servers(root, run, console, host, prefect_port, mlflow_port)
        json.dump(servers.told(), told)
        told.flush()
        env = servers.environment()
        os.environ |= servers.logins  # this process asks them too
        with console.status("Deploying"):
            deploy(root, env)
            Undertaker(root, env, run.log)()  # what died with the last one
        for pool in ("cpu", *(["gpu"] if gpu else [])):
            with console.status(f"The worker of {pool} starts"):
                run(start_worker(root, pool, env))
        _print(console, servers)
        console.print("Workers  cpu, gpu" if gpu else "Workers  cpu (gpu: quickstudy worker gpu, here or elsewhere)")
        console.print("\nquickstudy runs      what has run, runs and waits", highlight=False)
        console.print("quickstudy prefect deployment run retrain/retrain    retrain now", highlight=False)
        console.print("Ctrl-C stops all of it.")
        run.supervise(console, Watcher(root, env, run.log))


def worker(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="gpu, cpu, or another pool of the server's.")],
    limit: Annotated[
        int | None, typer.Option(min=1, help="Runs at once. By default 1 of gpu, so that none shares it.")
    ] = None,
) -> None:
    """Take work of a pool on this machine, in this clone: one needs no more than git, the DVC remote and the servers.

    [cyan]PREFECT_API_URL=http://10.0.0.5:4200/api MLFLOW_TRACKING_URI=http://10.0.0.5:5000 quickstudy worker gpu[/cyan]

    Each run works in a worktree of its own in .cache/workspaces, at the commit that it names. Ctrl-C stops it; a
    training that runs then goes on from its checkpoint the next time.
    """
    from quickstudy.cli.pipeline import project
    from quickstudy.system.environment import apply_environment, serving
    from quickstudy.system.terminal import Console

    root = project()
    served = serving(root) or {}
    env = {}
    for name, here in (("PREFECT_API_URL", "prefect"), ("MLFLOW_TRACKING_URI", "mlflow")):
        address = os.environ.get(name) or served.get(here)
        if not address:
            raise QuickstudyError(
                "is not set, and no `quickstudy up` runs in this clone",
                where=name,
                fix=f"{name}=http://HOST:{4200 if here == 'prefect' else 5000}{'/api' if here == 'prefect' else ''} "
                f"quickstudy worker {pool}",
            )
        env[name] = address
    os.environ |= env
    apply_environment(root)  # with the password where those are this clone's
    check_pool(env["PREFECT_API_URL"], pool)
    console = Console()
    with supervising(root / ".cache" / f"worker-{pool}.log") as run:
        run(start_worker(root, pool, env, limit))
        console.print(f"A worker of the pool {pool} for {env['PREFECT_API_URL']}. Ctrl-C stops it.", highlight=False)
        run.supervise(console, Undertaker(root, env, run.log))


def ui() -> None:
    """Open MLflow's and Prefect's pages on this machine; Ctrl-C closes them."""
    from quickstudy.cli.pipeline import project
    from quickstudy.system.environment import serving
    from quickstudy.system.terminal import Console

    root = project()
    console = Console()
    if served := serving(root):
        addresses = {"MLflow": served["mlflow"], "Prefect": served["prefect"].removesuffix("/api")}
        _print(console, Servers(addresses, {}, tuple(served.get("login", "").split())))
        console.print("quickstudy up runs both.")
        return
    with supervising(root / ".cache" / "ui.log") as run:
        _print(console, start_servers(root, run, console, LOOPBACK[0], 4200, 5000))
        if not run.all:
            console.print("Both run elsewhere.")
            return
        console.print("Ctrl-C closes them.")
        run.supervise(console)


def prefect(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGUMENTS", help="As of `prefect`.")] = None,
) -> None:
    """Prefect's own command line, for the servers of `quickstudy up`, whose password it is given.

    [cyan]quickstudy prefect deployment run retrain/retrain[/cyan]
    """
    from quickstudy.cli.pipeline import project
    from quickstudy.system.environment import serving

    root = project()
    if not os.environ.get("PREFECT_API_URL") and serving(root) is None:
        raise QuickstudyError("no server runs", where=root, fix="Start one: quickstudy up. Or set PREFECT_API_URL")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "prefect", *(arguments or ())])


# ---- what runs


def _print(console: "Console", servers: Servers) -> None:
    for name, address in servers.addresses.items():
        console.print(f"{name:<8} {address}", highlight=False)
    if servers.ask:
        line = f"Login    both pages ask for what {LOGIN} says: user, colon, password; Prefect's for the whole line"
        console.print(line, highlight=False, soft_wrap=True)
