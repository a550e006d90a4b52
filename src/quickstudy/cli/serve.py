"""`quickstudy serve`: tasks over HTTP, and the keys of those who may call."""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.tasks import ModelOption
from quickstudy.errors import QuickstudyError
from quickstudy.system.environment import CHAMPION
from quickstudy.system.printing import print

if TYPE_CHECKING:
    from quickstudy.serving.engine.loaded import Source
    from quickstudy.serving.engine.store import Store

app = typer.Typer(
    help="Serve the model over HTTP: teach a task in one call, ask in the next.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys = typer.Typer(help="Who may call. From the first key on every call needs one.", no_args_is_help=True)
app.add_typer(keys, name="keys")

SHADOW_LOG = Path(".cache") / "shadow.jsonl"

DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database",
        metavar="URL",
        envvar="QUICKSTUDY_DATABASE",
        help="Where tasks are kept, instead of serve.database in params.yaml.",
    ),
]


@app.callback()
def serve(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(help="What it listens on. Beyond this machine there must be keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    model: ModelOption = CHAMPION,
    database: DatabaseOption = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help=f"The challenger answers too; where it differs is in {SHADOW_LOG}.")
    ] = False,
) -> None:
    """Serve the model over HTTP: teach a task in one call, ask in the next.

    When the alias moves the new model takes over without a dropped request. Any number of these may share one
    database. Ctrl-C answers what was asked and ends. The routes: http://127.0.0.1:8000/docs

    [dim]quickstudy serve --port 8080[/dim]
    """
    if context.invoked_subcommand is not None:
        return
    from quickstudy.cli.pipeline import project
    from quickstudy.config import load_settings
    from quickstudy.serving.engine.engine import Engine
    from quickstudy.serving.engine.shadow import compare
    from quickstudy.serving.http import logs, server
    from quickstudy.serving.http.app import make_app
    from quickstudy.serving.http.metrics import Metrics

    root = project()
    params = load_settings(root / "params.yaml")
    settings = params.serve
    store = server.open_store(settings, root, database)
    open_ = server.check_host(host, store)
    bound = server.listen(host, port)
    logs.to_stderr()
    metrics = Metrics()
    challenger = None
    if shadow:
        challenger = _source("models:/quickstudy@challenger", root)
        logs.shadow_to(root / SHADOW_LOG)
    engine = Engine(settings, store, _source(model, root), metrics, challenger, functools.partial(compare, metrics))
    config = server.configured(make_app(settings, engine, params.chat, open_), settings, root)
    scheme = "https" if settings.certificate else "http"
    shown = f"[{host}]" if ":" in host else host
    print(f"{model}, version {engine.loaded.version}, on {scheme}://{shown}:{bound.getsockname()[1]}", flush=True)
    if not open_ and not store.has_keys():
        print("No key is left: nobody is answered until there is one (quickstudy serve keys add NAME)", flush=True)
    server.run(config, bound)


@keys.command("add")
def add_key(
    name: Annotated[str, typer.Argument(help="Of the tenant: who has the same name sees the same tasks.")],
    database: DatabaseOption = None,
) -> None:
    """Make a key and print it; it is told this once."""
    if not re.fullmatch(r"[\w.@-]{1,100}", name):
        raise QuickstudyError("use letters, digits and . _ - @", where=f"name {name!r}")
    print(_store(database).add_key(name))


@keys.command("list")
def list_keys(database: DatabaseOption = None) -> None:
    """Who has keys. The keys themselves are kept nowhere."""
    from rich.table import Table

    from quickstudy.system.terminal import Console

    store = _store(database)
    table = Table("id", "tenant", "made", box=None, header_style="bold")
    for key in store.all_keys():
        table.add_row(key.id, key.tenant, key.created)
    closed = "There is no key any more: the service answers nobody. Make one: quickstudy serve keys add NAME"
    none = closed if store.had_keys() else "There are no keys: the service answers this machine alone."
    Console().print(table if table.row_count else none, soft_wrap=True)


@keys.command("remove")
def remove_key(
    id: Annotated[str, typer.Argument(help="As `quickstudy serve keys list` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, even if it is the last key.")] = False,
    database: DatabaseOption = None,
) -> None:
    """Take a key back; within seconds it opens nothing any more. Its tenant's tasks stay.

    A service that had keys stays closed: without the last one nobody is answered, until another key is made.
    """
    import sys

    store = _store(database)
    last = [key.id for key in store.all_keys()]
    if len(last) == 1 and len(id) >= 12 and last[0] == id[:12] and not yes:
        if not sys.stdin.isatty():
            raise QuickstudyError("is the last key, and nobody is there to ask", where=id, fix="Confirm by --yes")
        if not typer.confirm(f"{id} is the last key. Without it nobody is answered, until another is made. Remove it?"):
            print("Nothing was removed.")
            return
    if not store.remove_key(id):
        raise QuickstudyError("there is no such key", where=id, fix="quickstudy serve keys list")
    print("removed")


def _store(database: str | None) -> "Store":
    from quickstudy.cli.pipeline import project
    from quickstudy.config import load_settings
    from quickstudy.serving.http.server import open_store

    root = project()
    return open_store(load_settings(root / "params.yaml").serve, root, database)


def _source(uri: str, root: Path) -> "Source":
    """What a model's address stands for. An alias is looked up again and again; all others stay what they are."""
    from quickstudy import registry
    from quickstudy.serving.engine.loaded import Source, folder_source

    alias = uri.removeprefix(f"models:/{registry.NAME}@")
    if alias == uri:
        folder = registry.resolve(uri, root)
        if match := re.fullmatch(rf"models:/{registry.NAME}/(\d+)", uri):
            return Source(lambda: match[1], lambda _: folder)
        return folder_source(folder)

    def look() -> str | None:
        number = registry.aliases(root).get(alias)
        return None if number is None else str(number)

    return Source(look, lambda version: registry.resolve(f"models:/{registry.NAME}/{version}", root))
