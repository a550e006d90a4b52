"""The verbs of this file are on their way."""

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
