"""versions.py against the real git and DVC, in a repository of its own."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from quickstudy.errors import QuickstudyError
from quickstudy.system import progress
from quickstudy.versions import command, dvc, git, stale


def bring_up_to_date(root: Path) -> list[str]:
    return [dvc.repro(root, stage.name, print) for stage in stale.stages(root)]


def change(root: Path, old: str, new: str) -> None:
    path = root / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_dvc_was_writing_when_it_was_killed_is_put_back(project: Path) -> None:
    version = dvc.add_data(project)
    bring_up_to_date(project)
    assert stale.stale(project) == {}
    whole = (project / "dvc.lock").read_bytes()
    for rest in (b"", whole[: len(whole) // 2].rstrip(b"\n")):
        (project / "dvc.lock").write_bytes(rest)
        (project / "data.dvc").write_bytes(b"")
        # Who only reads sees what was there before and changes nothing; a command of DVC finds it put back.
        assert dvc.data_hash(project) == version and "build/card" in dvc.lock_hashes(project)
        assert not dvc.has_remote(project) and dvc.in_cache(project, version)
        assert (project / "dvc.lock").read_bytes() == rest and (project / "data.dvc").read_bytes() == b""
        assert stale.stale(project) == {} and (project / "dvc.lock").read_bytes() == whole
        assert dvc.data_hash(project) == version and (project / "data.dvc").read_bytes() != b""
        (project / ".dvc/tmp/rwlock").write_bytes(rest[:20])
        assert bring_up_to_date(project) == ["up to date"] * 4

    (project / "dvc.lock").write_bytes(b"")
    with (project / ".dvc/tmp/lock").open("ab") as other:  # a DVC that is writing it at this moment
        fcntl.flock(other, fcntl.LOCK_EX)
        assert dvc.data_hash(project) == version and (project / "dvc.lock").read_bytes() == b""
    (project / "dvc.lock").write_text("<<<<<<< ours\n")  # not DVC's doing: somebody has to look at it
    with pytest.raises(QuickstudyError):
        stale.stale(project)


def test_a_process_that_has_the_number_of_a_dead_dvc_is_not_waited_for(project: Path) -> None:
    dvc.add_data(project)
    bring_up_to_date(project)
    listed = project / ".dvc/tmp/rwlock"
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            entry = {"pid": stranger.pid, "cmd": "dvc repro tasks@classify"}
            change(project, "seed: 0", "seed: 1")
            listed.write_text(json.dumps({"write": {str(project / "tasks"): entry}, "read": {str(project): [entry]}}))
            began = time.time()
            os.utime(listed, (began, began))
            with pytest.raises(command.Busy):  # as far as anybody can tell that is a DVC at work
                bring_up_to_date(project)
            os.utime(listed, (began - 60, began - 60))  # before that process began: the machine has started again
            assert "ran" in bring_up_to_date(project)
        finally:
            stranger.kill()


def test_from_nothing_to_up_to_date_and_stale_again(project: Path) -> None:
    assert stale.stale(project) == {
        "data": ("no version yet",),
        "tasks@classify": ("never ran", "data changed"),
        "meta_train@classify": ("never ran", "after tasks@classify"),
        "evaluate@classify": ("never ran", "after meta_train@classify"),
        "card": ("never ran", "after evaluate@classify"),
    }
    version = dvc.add_data(project)
    assert version == dvc.data_hash(project) and version.endswith(".dir") and len(version) == 36
    assert dvc.committed_data_hash(project) is None
    assert bring_up_to_date(project) == ["ran"] * 4
    assert stale.stale(project) == {}
    assert bring_up_to_date(project) == ["up to date"] * 4
    assert set(dvc.lock_hashes(project)) > {"build/model/classify", "build/tasks/classify/tasks.json"}
    assert git.code_state(project).changed == ()  # what a run writes is ignored or does not count

    change(project, "count: 600", "count: 300")
    assert stale.stale(project) == {
        "evaluate@classify": ("episodes.count: 600 → 300",),
        "card": ("after evaluate@classify",),
    }
    assert git.code_state(project).changed == ("params.yaml",)
    assert "+  count: 300" in git.patch(project)
    change(project, "count: 300", "count: 600")

    (project / "data/three.txt").write_text("three\n")
    found = stale.stale(project)
    assert found["data"] == ("data/ differs from data.dvc",) and found["tasks@classify"] == ("data changed",)
    assert dvc.data_hash(project) == version  # looking changed nothing
    newer = dvc.add_data(project)
    assert newer != version and "data" not in stale.stale(project)
    (project / "data/three.txt").unlink()
    assert dvc.add_data(project) == version  # the same files are the same version
    assert dvc.in_cache(project, newer) and not dvc.in_cache(project, "0" * 32 + ".dir")

    (project / "data/three.txt").write_text("three\n")  # a run that is cut off after its first stage
    dvc.add_data(project)
    assert dvc.repro(project, "tasks@classify", print) == "ran"
    assert stale.stale(project) == {
        "meta_train@classify": ("build/tasks/classify/tasks.json changed",),
        "evaluate@classify": ("after meta_train@classify",),
        "card": ("after evaluate@classify",),
    }
    (project / "data/three.txt").unlink()
    assert dvc.add_data(project) == version
    assert dvc.repro(project, "tasks@classify", print) == "restored"

    shutil.rmtree(project / "build/card")
    (project / "build/tasks/classify/tasks.json").write_text("mine\n")
    assert stale.stale(project) == {
        "tasks@classify": ("build/tasks/classify/tasks.json was changed by hand",),
        "meta_train@classify": ("after tasks@classify",),
        "evaluate@classify": ("after meta_train@classify",),
        "card": ("build/card is missing", "after evaluate@classify"),
    }
    shutil.rmtree(project / "data")
    assert stale.stale(project)["data"] == ("data/ is missing",)
    dvc.checkout_data(project)
    assert (project / "data/two.txt").read_text() == "two\n"


def test_a_mistake_of_the_users_in_a_stage_is_one_line_and_leaves_the_former_outputs(project: Path) -> None:
    dvc.add_data(project)
    bring_up_to_date(project)
    before = (project / "build/tasks/classify/tasks.json").read_bytes()
    lock = (project / "dvc.lock").read_bytes()
    (project / "data/bad").touch()
    dvc.add_data(project)
    lines: list[str] = []
    with pytest.raises(QuickstudyError, match=r"^data/bad: one class only\. Add a second one$"):
        dvc.repro(project, "tasks@classify", lines.append)
    assert (project / "build/tasks/classify/tasks.json").read_bytes() == before
    assert (project / "dvc.lock").read_bytes() == lock


def test_a_bug_in_a_stage_is_no_mistake_of_the_users(project: Path) -> None:
    (project / "data/bug").touch()
    dvc.add_data(project)
    lines: list[str] = []
    with pytest.raises(command.StageFailed, match="stage tasks@classify failed: AssertionError") as failure:
        dvc.repro(project, "tasks@classify", lines.append)
    assert not failure.value.killed
    assert lines[0].startswith("Traceback") and not any("failed to reproduce" in line for line in lines)


def started(root: Path) -> int:
    deadline = time.monotonic() + 60
    while not (root / "started").exists() or not (root / "started").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return int((root / "started").read_text())


@pytest.fixture
def training(project: Path) -> Callable[[], "subprocess.Popen[str]"]:
    """Start a training that lasts a minute in another process."""
    dvc.add_data(project)
    dvc.repro(project, "tasks@classify", print)
    (project / "slow").touch()
    code = (
        "import pathlib; from quickstudy.versions import dvc; dvc.repro(pathlib.Path(), 'meta_train@classify', print)"
    )

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


def test_a_busy_workspace_says_who_is_at_work(project: Path, training: Callable[[], "subprocess.Popen[str]"]) -> None:
    process = training()
    started(project)
    try:
        with pytest.raises(command.Busy, match=r"another DVC command is at work here \(PID \d+\).*Wait"):
            stale.stale(project)
    finally:
        process.terminate()
        process.communicate()


def test_a_killed_stage_may_be_tried_again_and_the_lock_does_not_stay(
    project: Path, training: Callable[[], "subprocess.Popen[str]"]
) -> None:
    process = training()
    os.kill(started(project), 9)
    text, _ = process.communicate()
    assert "StageFailed: stage meta_train@classify failed: killed by signal 9" in text
    (project / "slow").unlink()
    lines: list[str] = []
    assert dvc.repro(project, "meta_train@classify", lines.append) == "ran"
    told = [progress.read_event(line) for line in lines]
    assert told == [{"event": "progress", "what": "meta-train", "done": step, "total": 3} for step in (1, 2, 3)]


def test_a_stage_that_is_killed_is_told_apart(project: Path) -> None:
    dvc.add_data(project)
    stages = yaml.safe_load((project / "dvc.yaml").read_text())
    stages["stages"]["tasks"]["do"]["cmd"] = "kill -9 $$"
    (project / "dvc.yaml").write_text(yaml.safe_dump(stages))
    with pytest.raises(command.StageFailed) as failure:
        dvc.repro(project, "tasks@classify", print)
    assert failure.value.killed


def test_without_git_one_line_says_so(project: Path) -> None:
    shutil.rmtree(project / ".git")
    for ask in (stale.stale, dvc.add_data, git.code_state):
        with pytest.raises(QuickstudyError, match="no git repository"):
            ask(project)


def test_data_comes_from_a_remote_where_one_is_configured(project: Path, tmp_path: Path) -> None:
    assert not dvc.has_remote(project)
    version = dvc.add_data(project)
    for arguments in (["remote", "add", "--default", "store", str(tmp_path / "store")], ["push", "--quiet"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, check=True, capture_output=True)
    assert dvc.has_remote(project)
    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc/cache")
    dvc.pull_data(project, print)
    assert (project / "data/one.txt").read_text() == "one\n"
    assert dvc.data_hash(project) == version and "data" not in stale.stale(project)

    shutil.rmtree(project / "data")
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(command.RemoteFailed, match="the DVC remote did not give the data"):
        dvc.pull_data(project, print)


def test_a_command_that_is_killed_is_run_once_more(tmp_path: Path) -> None:
    def killed(times: int) -> int:
        script = f'echo x >> tries; [ "$(wc -l < tries)" -gt {times} ] || kill -9 $$'
        (tmp_path / "tries").unlink(missing_ok=True)
        return command.run(["sh", "-c", script], tmp_path).returncode

    assert killed(1) == 0
    assert killed(2) == -9
