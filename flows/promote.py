"""Make a version the champion, or the one before it again. Beside the registration, the only one that moves aliases.

quickstudy promote 3 --approve --reason "…"                          # starts this in a process of its own
quickstudy rollback --reason "…"
python -m flows.promote promote 3 --approve --reason "…"             # the same with Prefect's own log
python -m flows.promote rollback --reason "…"
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from prefect import flow

from flows import steps
from quickstudy import registry
from quickstudy.environment import find_project
from quickstudy.ledger import Entry


@flow(name="promote", persist_result=False)
def promote(
    version: str = "challenger",
    reason: str = "",
    approve: bool = False,
    against: int | None = None,
    project: str | None = None,
) -> Entry:
    """Make a version the champion.

    Args:
        version: its number or alias.
        reason: why, for the ledger.
        approve: a person decides, whatever the evidence.
        against: the champion that the person looked at; by default who it is when the flow starts.
        project: its folder; by default the one around the current folder.

    Raises:
        QuickstudyError: nothing was moved; says why.
    """
    root = find_project(Path(project) if project else None)
    plan = steps.choose(root, "promote", version, against)
    evidence: Any = None
    # Here the gate is asked, with the champion's and the challenger's answers to the same episodes. As long as it is
    # not, a person's word alone promotes, and the ledger says so.
    registry.approved(plan, reason, approve)
    moved: Entry = steps.move(root, plan, reason, evidence)
    return moved


@flow(name="rollback", persist_result=False)
def rollback(reason: str = "", against: int | None = None, project: str | None = None) -> Entry:
    """Make the version that was champion before the champion again.

    Raises:
        QuickstudyError: nothing was moved; says why.
    """
    root = find_project(Path(project) if project else None)
    plan = steps.choose(root, "rollback", "previous", against)
    registry.approved(plan, reason, approve=True)
    moved: Entry = steps.move(root, plan, reason, None)
    return moved


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.promote")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("promote", "rollback"):
        command = verbs.add_parser(verb)
        command.add_argument("--reason", default="")
        command.add_argument("--against", type=int)
        if verb == "promote":
            command.add_argument("version", nargs="?", default="challenger")
            command.add_argument("--approve", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.verb == "promote":
        return steps.main(lambda: promote(asked.version, asked.reason, asked.approve, asked.against))
    return steps.main(lambda: rollback(asked.reason, asked.against))


if __name__ == "__main__":
    sys.exit(main())
