"""The code's state as git tells it: commit, changes, patch."""

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quickstudy.errors import QuickstudyError
from quickstudy.versions.command import NO_HOOKS, WRITTEN_BY_RUNS, git_path, run, run_bytes, run_git

LARGEST = 10_000_000
"""Bytes of a file that git does not track, above which a patch leaves it out."""


@dataclass(frozen=True)
class Code:
    """The state of the source code."""

    commit: str | None
    """None in a repository without a commit."""
    branch: str | None
    changed: tuple[str, ...]
    """Files that differ from the commit or are not tracked, beside those that a run writes itself."""


def code_state(root: Path) -> Code:
    """Return commit, branch and what differs from the commit.

    Raises:
        QuickstudyError: git is not installed or this is no repository.
    """
    entries = iter(run_git(root, "status", "--porcelain", "-z", "--untracked-files=normal").split("\0"))
    changed = []
    for entry in entries:
        if entry[:1] in ("R", "C"):  # the name before it was renamed follows
            changed.append(next(entries))
        changed.append(entry[3:])
    commit = run(["git", "rev-parse", "--verify", "HEAD"], root)
    branch = run(["git", "symbolic-ref", "--short", "HEAD"], root)
    return Code(
        commit=commit.stdout.strip() or None if commit.returncode == 0 else None,
        branch=branch.stdout.strip() or None if branch.returncode == 0 else None,
        changed=tuple(name for name in changed if name and name not in WRITTEN_BY_RUNS),
    )


def patch(root: Path) -> str:
    """Return what differs from the last commit, as git writes it: also binary files and those that it does not track
    yet.

    What git ignores, what runs write and files of `left_out` are not in it. Empty without a commit. Neither the index
    nor git's objects change. What git's own settings would change of it (colours, prefixes, filters of text) does not
    count; it can be applied by `apply_patch` to the commit.
    """
    if run(["git", "rev-parse", "--verify", "HEAD"], root).returncode != 0:
        return ""
    without = [f":(exclude,literal){name}" for name in (*WRITTEN_BY_RUNS, *left_out(root))]
    with tempfile.TemporaryDirectory() as scratch:
        index, objects, binary = (Path(scratch, name) for name in ("index", "objects", "attributes"))
        objects.mkdir()
        binary.write_text("* binary\n")
        env = {
            "GIT_INDEX_FILE": str(index),
            "GIT_OBJECT_DIRECTORY": str(objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": json.dumps(str(git_path(root, "objects"))),
        }
        own = git_path(root, "index")
        if own.exists():
            index.write_bytes(own.read_bytes())  # with what it knows of the files, which are then not read again
        else:
            run_bytes(["git", "read-tree", "HEAD"], root, env)
        run_bytes(["git", "add", "--all", "--", ".", *without], root, env)
        shape = ["--cached", "--binary", "--full-index", "--unified=3", "--no-renames", "--no-color", "--no-ext-diff"]
        diff = ["diff", *shape, "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "HEAD", "--", ".", *without]
        try:
            return run_bytes(["git", *diff], root, env).decode()
        except UnicodeDecodeError:  # text of another encoding: as if it were binary, which is written in ASCII
            return run_bytes(["git", "-c", f"core.attributesFile={binary}", *diff], root, env).decode()


def left_out(root: Path) -> tuple[str, ...]:
    """Return the files that git neither tracks nor ignores and that are too large for a patch."""
    names = run_git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return tuple(name for name in names if name and (root / name).is_file() and _size(root / name) > LARGEST)


def patched(patch: bytes) -> frozenset[str]:
    """Return the files that a patch of this module's touches, relative to the repository."""
    found = re.findall(rb'^diff --git (?:a/(.*) b/\1|"a/(.*)" "b/\2")$', patch, re.MULTILINE)
    return frozenset((plain or _unquoted(quoted)).decode(errors="replace") for plain, quoted in found)


def has_commit(root: Path, commit: str) -> bool:
    """Return whether this clone has a commit."""
    return run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], root).returncode == 0


def about_commit(root: Path, commit: str) -> tuple[str, str] | None:
    """Return when a commit was made (ISO 8601) and the first line of its message; None where this clone lacks it."""
    shown = run(["git", "show", "--no-patch", "--no-color", "--format=%cI%x00%s", f"{commit}^{{commit}}"], root)
    when, _, subject = shown.stdout.strip().partition("\0")
    return (when, subject) if shown.returncode == 0 else None


def find_commit(root: Path, ref: str) -> str:
    """Return the commit that a name stands for in this clone: a branch, a tag, a hash. One of a remote
    (``origin/main``) is fetched before, and so is a hash that this clone does not have.

    Raises:
        QuickstudyError: there is none of this name, or the remote does not answer.
    """
    remotes = run_git(root, "remote").split()
    remote, _, branch = ref.partition("/")
    if branch and remote in remotes:
        run_git(root, "fetch", "--quiet", remote, branch)
    elif not has_commit(root, ref) and remotes:
        run(["git", "fetch", "--quiet", "--all"], root)
    found = run(["git", "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"], root)
    if found.returncode != 0:
        where = f"nor in {', '.join(remotes)}" if remotes else "and it has no remote"
        raise QuickstudyError(
            f"commit {ref[:10]} is not in this clone {where}",
            where=root,
            fix="Push it where it was made: git push",
        )
    return found.stdout.strip()


def apply_patch(folder: Path, patch: bytes) -> None:
    """Change the files of a worktree as a patch says.

    Raises:
        QuickstudyError: it does not fit.
    """
    try:
        run_bytes(["git", "apply", "--binary", "--whitespace=nowarn", "-"], folder, stdin=patch)
    except QuickstudyError as error:
        raise QuickstudyError(f"the recorded patch does not fit its commit ({error.what})") from None


def clone(url: str, folder: Path) -> None:
    """Clone a repository into a folder.

    Raises:
        QuickstudyError: git refuses.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    run_git(folder.parent, "clone", "--quiet", url, str(folder))


def commit_files(root: Path, branch: str, files: Mapping[str, bytes], message: str, *, push: bool) -> str:
    """Commit files on top of the current commit to a new branch; neither the working copy nor another branch changes.

    Args:
        files: name in the project → content.
        push: the branch, to origin.

    Returns:
        the commit.

    Raises:
        QuickstudyError: there is such a branch, or git refuses.
    """
    prefix = run_git(root, "rev-parse", "--show-prefix").strip()
    with tempfile.TemporaryDirectory() as scratch:
        env = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        run_bytes(["git", "read-tree", "HEAD"], root, env)
        for name, content in files.items():
            blob = run_bytes(["git", "hash-object", "-w", "--stdin"], root, stdin=content).decode().strip()
            run_bytes(["git", "update-index", "--add", "--cacheinfo", f"100644,{blob},{prefix}{name}"], root, env)
        tree = run_bytes(["git", "write-tree"], root, env).decode().strip()
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _RUNS_BY.items()}
    commit = run_bytes(["git", "commit-tree", tree, "-p", "HEAD", "-m", message], root, who).decode().strip()
    run_git(root, "update-ref", f"refs/heads/{branch}", commit, "0" * 40)
    if push:
        run_git(root, *NO_HOOKS, "push", "--quiet", "origin", f"{commit}:refs/heads/{branch}")
    return commit


_RUNS_BY = {"NAME": "quickstudy", "EMAIL": "quickstudy@localhost"}
"""Who commits what a run has made: no person."""


def _size(path: Path) -> int:
    return path.stat(follow_symlinks=False).st_size


def _unquoted(name: bytes) -> bytes:
    """Return an unusual name that git has written in quotes: \"…\" with escapes of C."""
    escapes = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}

    def plain(found: "re.Match[bytes]") -> bytes:
        what = found[1]
        return bytes([int(what, 8)]) if what.isdigit() else escapes.get(what, what)

    return re.sub(rb"\\([0-7]{3}|.)", plain, name)
