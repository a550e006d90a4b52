"""Secrets come from the environment, .dvc/config.local or Prefect's blocks, and stay there."""

from pathlib import Path

from tests.toy.stack import CANARIES, Stack

OWN_PLACE = (".dvc/config.local", ".prefect/login")
"""Where a secret was put, and what is copied from there to a workspace, for its owner's eyes only."""


def test_no_secret_is_in_any_log_artifact_or_database(stack: Stack) -> None:
    run = stack.run("retrain/retrain")
    assert stack.ended(run)[0] == "Completed", stack.log(run)
    searched, found = 0, []
    secrets = {**CANARIES, "the servers' password": stack.login().partition(":")[2]}
    for path in stack.folder.rglob("*"):
        if path.is_symlink() or not path.is_file() or str(path).endswith(OWN_PLACE):
            continue
        searched += 1
        content = path.read_bytes()
        found += [(str(path), name) for name, secret in secrets.items() if secret.encode() in content]
    assert found == []
    names = {path.name for path in stack.folder.rglob("*")}
    assert searched > 300 and {"prefect.db", "mlflow.db", "up.log", "lineage.json", "worker-gpu.log"} <= names
    assert (stack.home / ".prefect/login").stat().st_mode & 0o077 == 0
    for path in stack.folder.rglob("config.local"):
        if Path(path).parts[-4] == "retrain":
            assert path.stat().st_mode & 0o077 == 0
