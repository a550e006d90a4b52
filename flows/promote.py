"""Make a version the champion, or the one before it again. Beside the registration, the only one that moves aliases.

quickstudy promote                                                   # starts this in a process of its own
quickstudy rollback --reason "…"
python -m flows.promote promote 3 --approve --reason "…"             # the same with Prefect's own log
python -m flows.promote rollback --reason "…"
"""

import argparse
import sys

from prefect import flow

from flows import notice, process, promotion_steps
from quickstudy import registry
from quickstudy.config import load_settings
from quickstudy.registry.ledger import LedgerEntry


@flow(name="promote", persist_result=False)
def promote(
    version: str | int = "challenger",
    reason: str = "",
    approve: bool = False,
    ask: bool = False,
    against: int | None = None,
    project: str | None = None,
) -> LedgerEntry | None:
    """Make a version the champion where the gate says PROMOTE, or a person does.

    Args:
        version: its number or alias.
        reason: why, for the ledger; the gate's sentence where it is left out and the gate decides.
        approve: a person has decided, whatever the evidence.
        ask: a person decides in Prefect, with the gate's word shown, within gate.deadline.
        against: the champion that the person looked at; by default who it is when the flow starts.
        project: its folder; by default the one around the current folder.

    Returns:
        the ledger's entry; None where the gate or the person held it back.

    Raises:
        QuickstudyError: nothing was moved; says why.
    """
    root = process.project_of(project)
    policy = load_settings(root / "params.yaml").gate
    with notice.of_run(root):
        plan = promotion_steps.choose(root, "promote", str(version), against)
        if approve:
            registry.approved(plan, reason)
        verdict = promotion_steps.ask_gate(root, plan, must_compare=not (approve or ask))
        if ask:
            decision = promotion_steps.ask_person(plan, verdict, policy.deadline)
            if not decision.promote:
                return None
            reason = f"{decision.reason} ({decision.name})"
            registry.approved(plan, decision.reason)
        elif not approve and verdict["answer"] != "PROMOTE":
            return None
        return promotion_steps.move_and_notify(root, plan, reason or verdict["sentence"], verdict, policy.notify)


@flow(name="rollback", persist_result=False)
def rollback(reason: str = "", against: int | None = None, project: str | None = None) -> LedgerEntry:
    """Make the version that was champion before the champion again.

    Raises:
        QuickstudyError: nothing was moved; says why.
    """
    root = process.project_of(project)
    with notice.of_run(root):
        plan = promotion_steps.choose(root, "rollback", "previous", against)
        registry.approved(plan, reason)
        return promotion_steps.move_and_notify(
            root, plan, reason, None, load_settings(root / "params.yaml").gate.notify
        )


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
            command.add_argument("--ask", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.verb == "promote":
        return process.main(lambda: promote(asked.version, asked.reason, asked.approve, asked.ask, asked.against))
    return process.main(lambda: rollback(asked.reason, asked.against))


if __name__ == "__main__":
    sys.exit(main())
