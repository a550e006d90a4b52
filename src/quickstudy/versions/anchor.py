"""What git keeps of a text that lies elsewhere, so that who can write there alone cannot change it unseen.

It is the file ``content`` of the commit that a ref names, which no branch sees and no clone fetches by itself. What it
was before is in the commits before that one: ``git log REF``.
"""

from pathlib import Path

from quickstudy.errors import QuickstudyError
from quickstudy.versions.command import NO_HOOKS, run, run_bytes, run_git

FOLDER = "refs/quickstudy"


def anchored(root: Path, name: str) -> str | None:
    """Return what is kept under a name; None where that is nothing, or where there is no repository."""
    done = run(["git", "cat-file", "blob", f"{_ref(name)}:content"], root)
    return done.stdout if done.returncode == 0 else None


def anchor(root: Path, name: str, content: str, message: str) -> None:
    """Keep a text under a name, after what was kept before, here and where it was `fetched` from. Nothing happens where
    there is no repository, or where another process did so at the same time: it knows no less."""
    if run(["git", "rev-parse", "--git-dir"], root).returncode != 0:
        return
    before, elsewhere = (
        run(["git", "rev-parse", "--verify", "--quiet", _ref(each)], root).stdout.strip()
        for each in (name, f"fetched/{name}")
    )
    if anchored(root, name) == content and elsewhere in ("", before):
        return
    blob = run_bytes(["git", "hash-object", "-w", "--stdin"], root, stdin=content.encode()).decode().strip()
    tree = run_bytes(["git", "mktree"], root, stdin=f"100644 blob {blob}\tcontent\n".encode()).decode().strip()
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _WHO.items()}
    parents = [part for parent in dict.fromkeys((before, elsewhere)) if parent for part in ("-p", parent)]
    commit = run_bytes(["git", "commit-tree", tree, *parents, "-m", message], root, who).decode().strip()
    run(["git", "update-ref", _ref(name), commit, before or "0" * len(commit)], root)


def send(root: Path, name: str, remote: str) -> None:
    """Push what is kept under a name.

    Raises:
        QuickstudyError: the remote does not take it, or knows something that is not in its past.
    """
    _check(root, remote)
    run_git(root, *NO_HOOKS, "push", "--quiet", "--end-of-options", remote, f"{_ref(name)}:{_ref(name)}")


def fetched(root: Path, name: str, remote: str) -> str | None:
    """Return what a remote keeps under a name; None where that is nothing.

    Raises:
        QuickstudyError: it does not answer.
    """
    _check(root, remote)
    if not run_git(root, "ls-remote", "--quiet", "--end-of-options", remote, _ref(name)).strip():
        return None
    run_git(root, "fetch", "--quiet", "--end-of-options", remote, f"+{_ref(name)}:{_ref(f'fetched/{name}')}")
    return anchored(root, f"fetched/{name}")


def _check(root: Path, remote: str) -> None:
    if remote not in run_git(root, "remote").split():
        raise QuickstudyError("there is no such git remote", where=f"ledger.remote: {remote}", fix="git remote -v")


def _ref(name: str) -> str:
    return f"{FOLDER}/{name}"


_WHO = {"NAME": "quickstudy", "EMAIL": "quickstudy@localhost"}
