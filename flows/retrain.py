"""Version the data, bring every stage of dvc.yaml up to date, register the model, ask the gate, promote.

    quickstudy run              # starts this in a process of its own and draws its progress
    python -m flows.retrain     # the same with Prefect's own log

Without ``PREFECT_API_URL`` Prefect runs its server inside, for as long as the flow takes; with it, against that server.
"""

import sys
from pathlib import Path

from prefect import flow

from flows import steps
from quickstudy import registry, versions
from quickstudy.config import load_settings
from quickstudy.environment import find_project
from quickstudy.registry import Registration


@flow(name="retrain", persist_result=False)
def retrain(project: str | None = None) -> Registration:
    """Everything from the data to a registered model and the gate's word on it; what is up to date is skipped.

    Args:
        project: its folder; by default the one around the current folder.

    Raises:
        QuickstudyError: what the user has to mend, in one line.
        versions.StageFailed: a stage ended by a bug or a signal.
    """
    root = find_project(Path(project) if project else None)
    with steps.only_run(root):
        state = steps.version_data(root, return_state=True)
        state.result()
        for stage in versions.stages(root):
            step = steps.bring_up_to_date.with_options(name=stage.name, task_run_name=stage.name)
            state = step(root, stage, return_state=True, wait_for=[state])
            state.result()
        registration: Registration = steps.register(root, return_state=True, wait_for=[state]).result()
        policy = load_settings(root / "params.yaml").gate
        automatic = policy.promotion == "automatic"
        plan = registry.unjudged(root, automatic)
        if plan is not None:
            verdict = steps.ask_gate(root, plan, must_compare=False)
            if verdict["answer"] == "PROMOTE" and automatic:
                steps.move_and_notify(root, plan, verdict["sentence"], verdict, policy.notify)
    return registration


def main() -> int:
    return steps.main(retrain)


if __name__ == "__main__":
    sys.exit(main())
