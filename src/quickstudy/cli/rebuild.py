"""reproduce and lineage: build a registered model again; show what it was made of."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.system.printing import print

if TYPE_CHECKING:
    from quickstudy.lineage.recipe import DataOrigin, Recipe
    from quickstudy.lineage.reproduction import Reproduction
    from quickstudy.system.terminal import Console

Uri = Annotated[
    str,
    typer.Argument(
        metavar="URI",
        help="A version (3), an alias (champion), models:/quickstudy/3 or a run (runs:/ID).",
        show_default=False,
    ),
]

COLOURS = {"IDENTICAL": "bold green", "EQUIVALENT": "bold green", "DIFFERENT": "bold red"}
SHOWN = 12
"""How many differences of the packages and the stages are listed on the terminal."""


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(reproduce)
    app.command()(lineage)


def reproduce(
    uri: Uri,
    check: Annotated[bool, typer.Option("--check", help="Only say whether it can be rebuilt, and from what.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The verdict as JSON, on stdout.")] = False,
    patch: Annotated[
        str | None,
        typer.Option(
            "--patch", metavar="SHA256", help="You have read the patch beside its run, which is not the recorded one."
        ),
    ] = None,
) -> None:
    """Build a registered model again from its record, and say whether it is the same.

    In a git worktree at the recorded commit, with the recorded data and parameters; your working copy is not touched.

    IDENTICAL: the weights have the same bits. EQUIVALENT: other bits, but both models answer the same episodes alike,
    within the bound of params.yaml (reproduce). DIFFERENT: neither; says from where on.

    Exit code 0: identical or equivalent; 1: different; 2: it cannot be rebuilt, and why.
    """
    from dataclasses import asdict

    from quickstudy.cli.pipeline import drive, project
    from quickstudy.lineage import rebuild
    from quickstudy.lineage import recipe as recipes
    from quickstudy.lineage import reproduction as reproductions
    from quickstudy.system.terminal import Console

    root = project()
    console = Console(stderr=as_json)
    # What cannot be rebuilt is told before Prefect starts; the flow looks again.
    with recipes.alone(root):
        recipe = recipes.read(root, uri)
        if recipe.unrecorded not in (None, patch) and _agreed(recipe):
            patch = recipe.unrecorded
        recipes.check_patch(recipe, patch)
        worktree, data_from = recipes.prepare(root, recipe)
        if check:
            rebuild.check_code(worktree, recipe)
            found = _checked(recipe, data_from, reproductions.elsewhere(recipe, worktree))
    if check:
        if as_json:
            print(json.dumps(found, indent=1, ensure_ascii=False))
        else:
            _show_check(console, found)
        return
    # The run, not the alias: what was looked at is what is rebuilt.
    words = [f"runs:/{recipe.record.run_id}", *(["--patch", patch] if patch else [])]
    display = drive(root, ["-m", "flows.reproduce", *words], "reproduce.log")
    rebuilt = reproductions.read_reproduction(root, display.last["verdict"]["run_id"])
    if as_json:
        print(json.dumps(asdict(rebuilt), indent=1, ensure_ascii=False))
    else:
        _show(console, rebuilt)
    if rebuilt.answer == "DIFFERENT":
        raise typer.Exit(1)


def _agreed(recipe: "Recipe") -> bool:
    """Show a person a patch that was not recorded, and ask whether it shall be run."""
    if recipe.patch is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(recipe.patch.decode(errors="replace"), file=sys.stderr)
    print(f"This patch of {recipe.uri} is not the one that was recorded. A rebuild runs what it says.", file=sys.stderr)
    return typer.confirm("Run it?", default=False, err=True)


def lineage(
    uri: Uri,
    as_json: Annotated[bool, typer.Option("--json", help="All that was recorded, as JSON.")] = False,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Draw it into a .png or .svg file too.")
    ] = None,
) -> None:
    """What a model was made of and what became of it.

    data → tasks → parameters → code → environment → run → version → promotions
    """
    from rich.text import Text
    from rich.tree import Tree

    from quickstudy.cli.pipeline import project
    from quickstudy.lineage.links import chain
    from quickstudy.system.terminal import Console

    root = project()
    links = chain(root, uri)
    last = (
        links[-1].values if links[-1].name == "run" else next(link for link in links if link.name == "version").values
    )
    name = str(last.get("uri") or f"runs:/{last['run_id']}")
    if picture is not None:
        from quickstudy.lineage.picture import write_picture

        write_picture(links, picture, f"Lineage of {name}")
    if as_json:
        print(json.dumps({link.name: link.values for link in links}, indent=1, ensure_ascii=False))
        return
    tree = Tree(Text(name, style="bold"))
    for link in links:
        branch = tree.add(Text.assemble((f"{link.name:<12}", "cyan"), (link.title, "bold")))
        for fact, value in link.facts:
            branch.add(Text.assemble((f"{fact}  " if fact else "", "dim"), value))
    console = Console()
    console.print(tree, highlight=False)
    if picture is not None:
        console.print(f"Drawn into {picture}", highlight=False, soft_wrap=True)
    if links[-1].name == "promotions" and links[-1].values["broken"]:
        console.print("The ledger of promotions is broken: quickstudy history", style="yellow", highlight=False)


def _checked(recipe: "Recipe", data_from: "DataOrigin", environment: list[str]) -> dict[str, object]:
    from quickstudy.lineage.recipe import together, weights_in

    return {
        "uri": recipe.uri,
        "run_id": recipe.record.run_id,
        "commit": recipe.commit,
        "patch": recipe.patch is not None,
        "data": recipe.data,
        "data_from": data_from,
        "threads": recipe.threads,
        "weights": together(weights_in(recipe.files)),
        "environment": environment,
        "notes": list(recipe.notes),
    }


def _show_check(console: "Console", found: dict[str, object]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    patch = " with the recorded patch" if found["patch"] else ""
    for name, what in (
        ("model", f"{found['uri']}, run {found['run_id']}"),
        ("code", f"commit {found['commit']}{patch}"),
        ("data", f"version {found['data']}, {found['data_from']}"),
        ("threads", found["threads"] or "not recorded"),
        ("weights", f"sha256 {found['weights']}"),
    ):
        table.add_row(name, Text(str(what), overflow="fold"))
    console.print(table)
    _list(console, "Differs here, so that the bits may:", found["environment"])
    _list(console, "Note:", found["notes"])
    console.print(f"It can be rebuilt: quickstudy reproduce {found['uri']}", style="bold green", highlight=False)


def _show(console: "Console", found: "Reproduction") -> None:
    from rich.text import Text

    from quickstudy.cli.summary import duration

    line = Text(found.answer, style=COLOURS[found.answer])
    line += Text(f"  {found.uri}, built again from commit {found.commit[:10]} in {duration(found.seconds)}")
    console.print(line, soft_wrap=True)
    console.print(f"{found.why[:1].upper()}{found.why[1:]}.", highlight=False, soft_wrap=True, markup=False)
    console.print(f"Weights  registered {found.recorded_weights}", highlight=False, soft_wrap=True)
    console.print(f"         rebuilt    {found.rebuilt_weights or 'none'}", highlight=False, soft_wrap=True)
    for name, gap in sorted(found.gaps.items(), key=lambda item: -abs(item[1].mean)):
        console.print(f"  {name:<16} {gap}", highlight=False, markup=False)
    _list(console, "What differs from the record, in the order in which it was made:", found.where)
    _list(console, "How this machine differs from the recorded one:", found.environment)
    if found.answer != "IDENTICAL" and not found.environment:
        console.print("Nothing recorded of the machine and its packages differs here.")
    _list(console, "Note:", found.notes)
    console.print(f"Kept in {found.folder}: verdict.json, build/", highlight=False, soft_wrap=True)
    console.print(f"Next: {found.next}", highlight=False, soft_wrap=True, markup=False)


def _list(console: "Console", title: str, lines: object) -> None:
    assert isinstance(lines, list | tuple)
    if not lines:
        return
    console.print(title)
    for line in lines[:SHOWN]:
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)
    if len(lines) > SHOWN:
        console.print(f"  and {len(lines) - SHOWN} more (--json)", highlight=False)
