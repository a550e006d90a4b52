"""Workspaces of runs: git worktrees with the clone's DVC cache, and a lock that says who is at work."""

import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.runs import workspaces
from quickstudy.versions import whole
from tests.toy.project import run_git


@pytest.fixture
def clone(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The project as a worker's clone; what a pull step leaves in the environment is gone afterwards."""
    monkeypatch.setenv(workspaces.HOME, str(project))
    for name in (workspaces.LOCKED, workspaces.REFUSED, workspaces.COMMIT, workspaces.RUN, "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    yield project


def in_another_process(clone: Path, workspace: str, **env: str) -> "subprocess.Popen[str]":
    """A process that holds a workspace until its standard input is closed; its first line is the folder."""
    code = (
        "import sys; from quickstudy.runs import workspaces\n"
        f"print(workspaces.checkout({workspace!r})['directory'], flush=True); sys.stdin.read()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_a_workspace_is_a_commit_and_keeps_what_was_built_there(clone: Path, git: Callable[..., str]) -> None:
    (clone / "stage.py").write_text((clone / "stage.py").read_text() + "# somebody edits this\n")
    tree = Path(workspaces.checkout("retrain")["directory"])
    assert tree == clone / ".cache/workspaces/retrain/tree"
    assert "somebody edits" not in (tree / "stage.py").read_text()
    assert os.environ[workspaces.LOCKED] == str(tree)
    assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == str(tree / "src")
    assert whole.cache_folder(tree) == whole.cache_folder(clone)
    assert (tree / ".dvc/config.local").stat().st_mode & 0o077 == 0  # it may hold a remote's password
    (tree / "build").mkdir()
    (tree / "build/model").write_text("built")
    (tree / "dvc.lock").write_text("stages: {}\n")
    (tree / "data.dvc").write_text("changed by a run\n")
    (tree / "left").write_text("by hand")
    (tree / ".cache/checkpoints/one").write_text("1")
    git(clone, "commit", "--quiet", "--all", "--message=edited")
    os.environ.pop(workspaces.LOCKED)

    process = in_another_process(clone, "retrain")  # this process holds the first one still
    assert process.stdout is not None
    other = Path(process.stdout.readline().strip())
    process.communicate()
    assert other == clone / ".cache/workspaces/retrain-2/tree"
    assert "somebody edits" in (other / "stage.py").read_text()
    assert (other / ".cache/checkpoints/one").read_text() == "1"  # what one began, another can end

    kept = Path(workspaces._checkout(clone, "other", keep=False))
    assert not (kept / "left").exists()


def test_the_next_run_finds_what_the_last_one_left(
    clone: Path, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = in_another_process(clone, "retrain", **{workspaces.RUN: "run-1"})
    assert process.stdout is not None
    tree = Path(process.stdout.readline().strip())
    (tree / "dvc.lock").write_text("stages: {}\n")
    (tree / "left").write_text("by hand")
    assert workspaces.at_work(clone) == ["run-1"] and workspaces.abandoned(clone) == []
    process.kill()  # as kill -9
    process.wait()
    assert workspaces.at_work(clone) == [] and workspaces.abandoned(clone) == ["run-1"]
    with monkeypatch.context() as patch:
        patch.setenv(workspaces.HOME, str(clone))
        for run, left in (("run-2", ["run-1"]), ("run-1", [])):
            patch.setenv(workspaces.RUN, run)
            workspaces.let_go()
            assert workspaces.abandoned(clone) == left
    (tree.parent / "lock").write_text("run-1")
    workspaces.forget(clone, "run-1")
    assert workspaces.abandoned(clone) == []
    (clone / "stage.py").write_text("# new\n")
    git(clone, "commit", "--quiet", "--all", "--message=new")
    git_folder = Path((tree / ".git").read_text().removeprefix("gitdir: ").strip())
    (git_folder / "index.lock").touch()  # of a git that died with the run
    assert workspaces.checkout("retrain") == {"directory": str(tree)}
    assert (tree / "stage.py").read_text() == "# new\n"
    assert (tree / "dvc.lock").read_text() == "stages: {}\n" and not (tree / "left").exists()


def test_a_run_that_can_have_no_workspace_is_told_why(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(workspace: str = "retrain", keep: bool = False) -> str:
        monkeypatch.delenv(workspaces.REFUSED, raising=False)
        assert workspaces.checkout(workspace, keep) == {"directory": str(clone)}
        return os.environ[workspaces.REFUSED]

    assert "no run has worked in the workspace elsewhere" in refusal("elsewhere", keep=True)
    monkeypatch.setenv(workspaces.COMMIT, "0123456789" * 4)
    assert "commit 0123456789 is not in this clone and it has no remote. Push it" in refusal()
    monkeypatch.delenv(workspaces.COMMIT)
    lock = clone / "requirements.lock"
    lock.write_text(re.sub(r"(?m)^numpy==.*", "numpy==1.0.0\nno-such-package==3", lock.read_text()))
    run_git(clone, "commit", "--quiet", "--all", "--message=another numpy")
    said = refusal()
    assert "not 1.0.0, no-such-package none, not 3)" in said and "make install" in said


def test_the_commit_is_what_the_run_that_asked_for_it_says(
    clone: Path, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = git(clone, "rev-parse", "HEAD").strip()
    (clone / "stage.py").write_text("# later\n")
    git(clone, "commit", "--quiet", "--all", "--message=later")
    tags = ["inputs:0123"]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/api/flow_runs/the-run" and self.headers["Authorization"].startswith("Basic ")
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"tags": tags}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as prefect:
        threading.Thread(target=prefect.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{prefect.server_address[1]}/api")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ada:lovelace")
        monkeypatch.setenv(workspaces.RUN, "the-run")
        tree = Path(workspaces.checkout("one")["directory"])
        assert (tree / "stage.py").read_text() == "# later\n"
        tags.append(f"{workspaces.AT}{first}")
        tree = Path(workspaces.checkout("two")["directory"])
        assert git(tree, "rev-parse", "HEAD").strip() == first
        tags[-1] = f"{workspaces.AT}--upload-pack=touch evil"
        assert workspaces.checkout("three") == {"directory": str(clone)}
        assert "is no commit" in os.environ[workspaces.REFUSED]
        prefect.shutdown()


def test_what_mlflow_could_not_take_is_registered_before_anything_changes(
    built: Path, served: None, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(registry.Unreachable, match="waits in this workspace"), workspaces.until_sent(built):
        registry.register(built)
    assert (built / workspaces.UNSENT).exists()
    with pytest.raises(registry.Unreachable, match="still does not answer"):
        workspaces._send(built)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    toy = Path(__file__).parents[1] / "toy"
    patch = built / "src/sitecustomize.py"  # the other process registers with the loader of tests/toy too
    patch.parent.mkdir()
    patch.write_text(
        f"import sys\nfrom pathlib import Path\nsys.path.append({str(toy)!r})\nfrom quickstudy.registry import runs\n"
        f"runs.LOADER, runs.CODE = 'served.loader', Path({str(toy / 'served')!r})\n"
    )
    workspaces._send(built)
    assert registry.aliases(built) == {"champion": 1} and not (built / workspaces.UNSENT).exists()
    # What fails in another way would fail again, and holds nobody up.
    with pytest.raises(QuickstudyError, match="no trained model"), workspaces.until_sent(built):
        raise QuickstudyError("no trained model")
    assert not (built / workspaces.UNSENT).exists()


def test_the_lock_is_that_of_the_process(clone: Path) -> None:
    workspaces.checkout("retrain")
    with (clone / ".cache/workspaces/retrain/lock").open() as file, pytest.raises(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
