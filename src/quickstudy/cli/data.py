"""The verbs of this file are on their way."""

import typer

app = typer.Typer(help="Build, import, list, check and remove datasets.", no_args_is_help=True)
