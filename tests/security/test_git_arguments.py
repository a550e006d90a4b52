"""What people, records and other runs name is never an option, nor an expression, of git's or DVC's."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from quickstudy.errors import QuickstudyError
from quickstudy.lineage import recipe as recipes
from quickstudy.registry import records
from quickstudy.versions import git as git_
from quickstudy.versions import stale, worktree
from tests.toy.project import run_git


@pytest.fixture
def cloned(project: Path, tmp_path: Path) -> Path:
    """A clone whose remote has a commit more."""
    run_git(tmp_path, "clone", "--quiet", str(project), "a clone")
    (project / "more.txt").write_text("more\n")
    run_git(project, "add", ".")
    run_git(project, "commit", "--quiet", "--message=more")
    return tmp_path / "a clone"


@pytest.mark.parametrize(
    "ref",
    [
        *("origin/--upload-pack=touch pwned", "--upload-pack=touch pwned", "-h", "--exec=touch pwned", "origin/-x"),
        *("origin/main;touch pwned", "origin/main\ntouch", "a..b", "main:stage.py", "@{-1}", "refs/heads/-x", ""),
        *("origin/+main:refs/heads/main", "HEAD^{/start}", "$(touch pwned)"),
    ],
)
def test_what_is_no_name_of_a_commit_is_not_given_to_git(cloned: Path, ref: str) -> None:
    before = run_git(cloned, "for-each-ref")
    for attempt in (
        lambda: git_.find_commit(cloned, ref),
        lambda: worktree.add_worktree(cloned, cloned / "tree", ref),
        lambda: git_.commit_files(cloned, ref, {"x": b"x"}, "x", push=False),
    ):
        with pytest.raises(QuickstudyError, match="is no name of a commit") as error:
            attempt()
        assert "\n" not in str(error.value)
    assert not list(cloned.parent.rglob("pwned")) and run_git(cloned, "for-each-ref") == before
    assert not (cloned / "tree").exists()


@pytest.mark.parametrize("ref", ["HEAD", "main", "origin/main", "HEAD~0", "v1", "HASH"])
def test_names_of_commits_are_found(cloned: Path, project: Path, ref: str) -> None:
    run_git(cloned, "tag", "v1")
    head = run_git(cloned, "rev-parse", "HEAD").strip()
    newest = run_git(project, "rev-parse", "HEAD").strip()
    found = git_.find_commit(cloned, newest if ref == "HASH" else ref)
    assert found == (newest if ref in ("origin/main", "HASH") else head)


@pytest.mark.parametrize(
    "commit", ["--output=pwned", "HEAD", "-", "main", "abcdef", "0" * 39, "HEAD:stage.py", "0" * 40 + "\n", "--all"]
)
def test_a_commit_of_a_record_is_its_whole_name(three: Path, commit: str) -> None:
    assert not git_.has_commit(three, commit) and git_.about_commit(three, commit) is None
    record = records.recorded(three, "3")
    place = Path(record.place.removeprefix("file://").replace("%20", " ")) / "lineage.json"
    told = json.loads(place.read_text())
    place.write_text(json.dumps({**told, "git_commit": commit}))
    with pytest.raises(QuickstudyError, match="what was recorded as its commit is none"):
        recipes.read(three, "3")
    place.write_text(json.dumps({**told, "data_hash": commit}))
    with pytest.raises(QuickstudyError, match="what was recorded as the version of its data is none"):
        recipes.read(three, "3")
    assert not list(three.rglob("pwned"))


def test_a_repository_that_is_an_option_is_not_cloned(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError):
        git_.clone(f"--upload-pack=touch {tmp_path}/pwned", tmp_path / "clone")
    with pytest.raises(QuickstudyError):
        git_.clone(f"ext::sh -c touch% {tmp_path}/pwned", tmp_path / "clone")
    assert not (tmp_path / "pwned").exists()


def test_a_stage_that_is_an_option_is_not_given_to_dvc(project: Path) -> None:
    (project / "dvc.yaml").write_text("stages:\n  --downstream: {cmd: touch pwned}\n")
    with pytest.raises(QuickstudyError, match=r"dvc.yaml: a stage cannot be called '--downstream'"):
        stale.stages(project)


def test_new_files_whose_names_are_options_or_patterns_are_taken_as_they_are(
    project: Path, git: Callable[..., str]
) -> None:
    pipeline = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(pipeline.replace("deps: [stage.py, data]", "deps: [stage.py, code, data]"))
    git(project, "commit", "--quiet", "--all", "--message=code")
    (project / "code").mkdir()
    names = {"code/--force", "code/:(top)x", "code/*", "code/new line\n"}
    for name in names:
        (project / name).write_text("new\n")
    (project / "code/.env").write_text("SECRET=1\n")
    assert git_.patched(git_.patch(project).encode()) == names


def test_a_remote_of_the_ledger_is_one_that_git_knows(three: Path) -> None:
    from quickstudy.versions import anchor

    for remote in ("--upload-pack=touch pwned", "ext::sh -c touch% pwned", "/tmp"):
        for attempt in (anchor.send, anchor.fetched):
            with pytest.raises(QuickstudyError, match="there is no such git remote"):
                attempt(three, "ledger/own", remote)
    assert subprocess.run(["git", "status"], cwd=three, capture_output=True).returncode == 0
