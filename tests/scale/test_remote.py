"""A DVC remote over SSH: what one machine has built, another restores; nothing runs twice."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from quickstudy.versions import command, stale
from quickstudy.versions import dvc as versions
from tests.scale.conftest import SSH

STAGES = ("tasks@classify", "meta_train@classify", "evaluate@classify", "card")


def dvc(clone: Path, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def machine(
    project: Path, ssh: SSH, tmp_path: Path, git: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """A clone of the project as on another machine: with a home, so nothing of DVC's in common, but the SSH remote."""
    dvc(project, "remote", "add", "--default", "team", ssh.remote(tmp_path / "remote"))
    git(project, "commit", "--quiet", "--all", "--message=remote")

    def machine(name: str) -> Path:
        clone, home = tmp_path / name / "clone", tmp_path / name / "home"
        home.mkdir(parents=True)
        for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "DVC_SITE_CACHE_DIR"):
            monkeypatch.setenv(variable, str(home))
        git(tmp_path, "clone", "--quiet", str(project), str(clone))
        dvc(clone, "remote", "modify", "--local", "team", "keyfile", str(ssh.key))  # a secret: not in git
        return clone

    return machine


def test_another_machine_restores_what_one_has_built(
    project: Path, machine: Callable[[str], Path], git: Callable[..., str]
) -> None:
    one = machine("one")
    shutil.copytree(project / "data", one / "data")
    version = versions.add_data(one)
    git(one, "add", "data.dvc")
    git(one, "commit", "--quiet", "--message=data")
    for stage in STAGES:
        assert versions.repro(one, stage, print) == "ran"
    dvc(one, "push", "--run-cache")
    git(one, "push", "--quiet", "origin", "HEAD:refs/heads/one")

    two = machine("two")
    git(two, "switch", "--quiet", "one")
    assert not (two / "dvc.lock").exists() and not versions.in_cache(two, version)
    versions.pull_data(two, print)
    assert versions.in_cache(two, version) and (two / "data/two.txt").read_text() == "two\n"
    said = dvc(two, "repro", "--pull", "--allow-missing")
    assert "Running stage" not in said and said.count("is cached - skipping run") == len(STAGES)
    assert versions.lock_hashes(two) == versions.lock_hashes(one) != {}
    for path in versions.lock_hashes(one):
        files = [file.relative_to(one) for file in (one / path, *(one / path).rglob("*")) if file.is_file()]
        assert [(two / file).read_bytes() for file in files] == [(one / file).read_bytes() for file in files] != []
    assert stale.stale(two) == {}


def test_a_remote_that_lacks_the_data_or_cannot_be_reached_is_told_in_one_line(
    project: Path, machine: Callable[[str], Path], git: Callable[..., str]
) -> None:
    versions.add_data(project)
    git(project, "add", "data.dvc")
    git(project, "commit", "--quiet", "--message=data, which nobody has pushed")
    one = machine("one")
    for url, reason in ((None, "it does not have all of it"), ("ssh://127.0.0.1:9/remote", "failed to connect to ssh")):
        if url:
            dvc(one, "remote", "modify", "--local", "team", "url", url)
        with pytest.raises(command.RemoteFailed) as told:
            versions.pull_data(one, print)
        line = str(told.value)
        assert line.startswith(f"the DVC remote did not give the data: {reason}") and "\n" not in line
