"""The command line: verbs for people, and the stages that dvc.yaml calls.

Every verb imports what it needs when it runs, so that ``quickstudy --help`` answers at once.
"""

import errno
import os
import sys
from typing import NoReturn

import typer

from quickstudy.errors import QuickstudyError
from quickstudy.system.environment import apply_environment, keep_private
from quickstudy.system.progress import say

app = typer.Typer(
    name="quickstudy",
    help="Meta-train one model over many tasks; adapt it to a task it has never seen in milliseconds.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register() -> None:
    from quickstudy.cli import (
        chat,
        compare,
        data,
        drift,
        gate,
        pipeline,
        promotion,
        rebuild,
        runs,
        serve,
        servers,
        stages,
        tasks,
    )

    pipeline.register(app)
    servers.register(app)
    gate.register(app)
    promotion.register(app)
    rebuild.register(app)
    runs.register(app)
    compare.register(app)
    tasks.register(app)
    chat.register(app)
    drift.register(app)
    app.add_typer(serve.app, name="serve", rich_help_panel=tasks.PANEL)
    app.add_typer(data.app, name="data")
    stages.register(app)


def main() -> None:
    """Run the command line. A user's mistake is one line on stderr and exit code 2; Ctrl-C is 130."""
    try:
        keep_private()
        apply_environment()
        _register()
        app()
    except QuickstudyError as error:
        fail(str(error))
    except KeyboardInterrupt:
        _stopped()
    except SystemExit as stop:
        if stop.code == 130:  # what Typer makes of Ctrl-C, without a word
            _stopped()
        raise
    except BrokenPipeError:
        os._exit(0)
    except OSError as error:
        if error.errno == errno.EROFS:
            fail(f"{error.filename or 'a folder'}: is on a disk that is only read. Work in a copy that can be written")
        if error.errno == errno.ENOSPC:
            place = f" while writing {error.filename}" if error.filename else ""
            fail(f"no space left on the disk{place}. Free some and run the same again")
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError) and error.filename:
            fail(f"{error.filename}: cannot be used ({error.strerror})")
        raise


def _stopped() -> NoReturn:
    say({"event": "stopped", "text": "stopped; the next run goes on from what was finished"}, sys.stderr)
    sys.exit(130)


def fail(line: str) -> None:
    """Print one line and end with exit code 2."""
    say({"event": "error", "text": line}, sys.stderr)
    sys.exit(2)
