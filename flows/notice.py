"""What a run leaves behind for whoever asks on Monday: a summary in Prefect, and a word to the notification blocks.

The summary is a table artifact with the key ``run``, a row a step; its description is the run in one sentence, which
`quickstudy runs` shows.
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect import get_run_logger, runtime
from prefect.artifacts import create_table_artifact
from prefect.blocks.core import Block
from prefect.exceptions import Pause

from flows import telling
from quickstudy.cli.summary import duration
from quickstudy.config import load_settings
from quickstudy.secrets import redacted

KEY = "run"

TOLD = ("inbox", "start", "restart", "register", "branch", "gate", "ask", "move", "verdict")
"""Steps whose own words stand in the sentence."""

UNTOLD = ("data", "choose", "record", "worktree", "inputs", "outputs")
"""Steps that say nothing there, or something of their own."""


@contextlib.contextmanager
def of_run(root: Path, always: bool = True) -> Iterator[None]:
    """Take note of the steps while the body runs; then tell, however it ends.

    Args:
        always: tell also of a run that found nothing to do.
    """
    telling.DONE.clear()
    start, failure = time.monotonic(), None
    try:
        yield
    except Pause:  # it waits for a person in no process at all, and begins again from the top
        always = False
        telling.DONE.clear()
        raise
    except BaseException as error:
        failure = error
        raise
    finally:
        if always or failure or any(row["outcome"] != "up to date" for row in telling.DONE):
            with contextlib.suppress(Exception):  # a server that is gone hides nothing of what happened
                _tell(root, sentence(telling.DONE, failure), time.monotonic() - start, failure is not None)


def sentence(done: Sequence[dict[str, Any]], failure: BaseException | None = None) -> str:
    """Return the run in one sentence: what ran, what came of it."""
    parts = []
    last = {row["step"]: row for row in done}
    if (data := last.get("data")) and data["outcome"] == "ran":
        parts.append(f"new data: {data['note']}")
    ran = [name for name, row in last.items() if row["outcome"] == "ran" and name not in (*TOLD, *UNTOLD)]
    if ran:
        parts.append(f"ran {', '.join(ran)}")
    if restored := [name for name, row in last.items() if row["outcome"] == "restored"]:
        parts.append(f"took {', '.join(restored)} from DVC's cache")
    for name in TOLD:
        if name in last and last[name]["outcome"] == "ran":
            parts.append(str(last[name].get("note", name)))
    if failure is not None:
        failed = next((row["step"] for row in done if row["outcome"] == "failed"), None)
        parts.append(
            f"{f'{failed} ended early' if failed else 'ended early'}: "
            f"{redacted(str(failure)) or type(failure).__name__}"
        )
    return "; ".join(part.rstrip(".") for part in parts) or "nothing was stale"


def _tell(root: Path, what: str, seconds: float, failed: bool) -> None:
    table = [
        {
            "step": row["step"],
            "outcome": row["outcome"],
            "seconds": round(row["seconds"], 1),
            "note": str(row.get("note", "")),
        }
        for row in telling.DONE
    ]
    create_table_artifact(table, key=KEY, description=what)
    blocks = load_settings(root / "params.yaml").runs.notify if runtime.deployment.id else ()
    subject = f"quickstudy {runtime.flow_run.flow_name} {'failed' if failed else 'done'}"
    for name in blocks:
        notify(name, subject, f"{what}\n{runtime.flow_run.name}, {duration(seconds)}\n{runtime.flow_run.ui_url or ''}")


def notify(name: str, subject: str, text: str) -> None:
    """Tell one of Prefect's notification blocks. Who cannot be reached hinders nothing."""
    try:
        block: Any = Block.load(name)
        block.notify(text, subject=subject)
    except Exception as error:  # whatever a service may answer
        # What it says may name the address of a webhook, which is its password.
        what = redacted(str(error).splitlines()[0]) if str(error) else type(error).__name__
        get_run_logger().warning("%s was not notified (%s)", name, what)
        telling.tell("text", step="notify", text=f"{name} was not notified ({what})")
