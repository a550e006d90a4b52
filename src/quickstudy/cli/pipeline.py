"""run, plan and ui: the verbs that drive the whole pipeline."""

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
