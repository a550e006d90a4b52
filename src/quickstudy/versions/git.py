"""The code's state as git tells it: commit, changes, patch."""

import contextlib
import json
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from quickstudy.errors import QuickstudyError
from quickstudy.secrets import ALLOWED, find_secrets, is_secret_file, without_passwords
from quickstudy.versions.command import NO_HOOKS, WRITTEN_BY_RUNS, git_path, run, run_bytes, run_git
from quickstudy.versions.stale import overlap, stages

LARGEST = 10_000_000
"""Bytes of a new file, above which a patch leaves it out."""

READ_BY_ALL = ("dvc.yaml", "params.yaml", "requirements.lock", "pyproject.toml", ".dvcignore")
"""Files that every stage reads in one way or another."""

PACKAGE = "src"
"""Where the code is of the commands that the stages run."""


@dataclass(frozen=True)
class Code:
    """The state of the source code."""

    commit: str | None
    """None in a repository without a commit."""
    branch: str | None
    changed: tuple[str, ...]
    """Files of the project that differ from the commit, and new ones that a stage reads, beside those that a run writes
    itself."""
    left_out: Mapping[str, str]
    """Of these the ones that a patch leaves out, and why."""


def code_state(root: Path) -> Code:
    """Return commit, branch and what differs from the commit.

    Raises:
        QuickstudyError: git is not installed or this is no repository.
    """
    commit = run(["git", "rev-parse", "--verify", "HEAD"], root)
    branch = run(["git", "symbolic-ref", "--short", "HEAD"], root)
    has_commit = commit.returncode == 0
    changed, new = _differing(root) if has_commit else ((), _untracked(root))
    is_read = _is_read(root)
    new = tuple(name for name in new if is_read(name))
    left_out = {name: "it is named as secrets are" for name in changed if is_secret_file(name)}
    left_out |= {name: why for name in new if (why := _why_left_out(root, name))}
    return Code(
        commit=commit.stdout.strip() if has_commit else None,
        branch=branch.stdout.strip() or None if branch.returncode == 0 else None,
        changed=(*changed, *new),
        left_out=left_out,
    )


def patch(root: Path) -> str:
    """Return what differs from the last commit, as git writes it: also binary files, and new ones that a stage reads.

    What git ignores, what runs write and what `Code.left_out` names are not in it, and no password in an address that
    params.yaml names. Empty without a commit. Neither the index nor git's objects change. What git's own settings would
    change of it (colours, prefixes, filters of text) does not count; it can be applied by `apply_patch` to the commit.
    It may hold secrets: see `find_secrets_of`.
    """
    code = code_state(root)
    if code.commit is None:
        return ""
    whole = _diff(root, code, lines=3)
    beside = any(found.context for found in _secrets_in(whole))
    return _diff(root, code, lines=0) if beside else whole  # a secret beside a change is not in it


def find_secrets_of(root: Path, patch: str) -> tuple[str, ...]:
    """Return what in a patch of a project looks like a secret: "FILE, line 3: what". The secret itself is not told."""
    found = [f"{one.file}, line {one.line}: {one.what}" for one in _secrets_in(patch)]
    for name in sorted(_binary(patch)):
        with contextlib.suppress(OSError):  # it was removed
            content = (root / name).read_bytes()
            text = content.decode(
                "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "latin-1", errors="replace"
            )
            for secret in find_secrets(text, name, shapes_alone="\0" in text[:8000]):
                found.append(f"{name}, line {secret.line}: {secret.what}")
    return tuple(dict.fromkeys(found))


def check_recordable(root: Path) -> Code:
    """Make sure that no secret would be recorded with the changes of the working copy: before hours of work.

    Returns:
        the state of the code.

    Raises:
        QuickstudyError: one would.
    """
    code = code_state(root)
    if code.changed and (found := find_secrets_of(root, patch(root))):
        place, _, what = found[0].rpartition(": ")
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise QuickstudyError(
            f"{what} would be recorded with what you have changed since the last commit{more}",
            where=place,
            fix=f"Keep it in the environment, or in a file that git ignores. If it is no secret, end its line with: "
            f"{ALLOWED}",
        )
    return code


def _diff(root: Path, code: Code, lines: int) -> str:
    without = [f":(exclude,literal){name}" for name in (*WRITTEN_BY_RUNS, *code.left_out)]
    new = [name for name in _differing(root)[1] if name in code.changed and name not in code.left_out]
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
        # What was added to the index and is in no commit is as new as what was not.
        run_bytes(["git", "read-tree", *(["-m"] if own.exists() else []), "HEAD"], root, env)
        run_bytes(["git", "add", "--update", "--", ".", *without], root, env)
        if new:
            told = ["--pathspec-from-file=-", "--pathspec-file-nul"]
            literal = {**env, "GIT_LITERAL_PATHSPECS": "1"}
            run_bytes(["git", "add", "--force", *told], root, literal, "\0".join(new).encode())
        shape = ["--cached", "--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff"]
        diff = ["diff", *shape, f"--unified={lines}", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "HEAD"]
        diff += ["--", ".", *without]
        try:
            found = run_bytes(["git", *diff], root, env).decode()
        except UnicodeDecodeError:  # text of another encoding: as if it were binary, which is written in ASCII
            found = run_bytes(["git", "-c", f"core.attributesFile={binary}", *diff], root, env).decode()
    return _without_passwords(found)


def _differing(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the files of the last commit that are others now, and those that are new: in git's index or not."""
    changes = run_git(root, "diff", "--name-status", "--no-renames", "-z", "--relative", "HEAD", "--", ".").split("\0")
    pairs = [(state, name) for state, name in zip(changes[::2], changes[1::2], strict=False) if _is_told(name)]
    added = [name for state, name in pairs if state == "A"]
    changed = tuple(name for state, name in pairs if state != "A")
    return changed, tuple(dict.fromkeys([*added, *_untracked(root)]))


def _untracked(root: Path) -> tuple[str, ...]:
    names = run_git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return tuple(name for name in names if _is_told(name))


def _is_told(name: str) -> bool:
    return bool(name) and name not in WRITTEN_BY_RUNS and not name.endswith("/")  # a repository in the repository


def _is_read(root: Path) -> Callable[[str], bool]:
    """Return whether a stage reads a file: it is a dependency, or lies in one, that is neither data nor the output of
    another, or it is code of the package whose commands the stages are."""
    try:
        found = stages(root)
    except QuickstudyError:  # no dvc.yaml that could be read: whoever needs it says so
        found = ()
    outs = {"data", *(out for stage in found for out in stage.outs)}
    deps = {dep for stage in found for dep in stage.deps if not any(overlap(dep, out) for out in outs)}

    def is_read(name: str) -> bool:
        if any(overlap(name, out) for out in outs):
            return False
        code = overlap(name, PACKAGE) and name.endswith(".py")
        return code or name in READ_BY_ALL or any(overlap(name, dep) for dep in deps)

    return is_read


def _why_left_out(root: Path, name: str) -> str | None:
    """Say why a new file is not for others' eyes, or not for a patch."""
    if is_secret_file(name):
        return "it is named as secrets are"
    if is_private(root, name):
        return "others may not read it (chmod o+r)"
    path = root / name
    return f"it is larger than {LARGEST // 1_000_000} MB" if path.is_file() and _size(path) > LARGEST else None


def is_private(root: Path, name: str, beside: str = "dvc.yaml") -> bool:
    """Return whether a file was closed to others. Where those that git has written, as the one ``beside`` it, are
    closed too, as by a umask of 077, that says nothing of this one."""
    try:
        mode, usual = ((root / each).lstat().st_mode for each in (name, beside))
    except OSError:
        return False
    return not mode & stat.S_IROTH and bool(usual & stat.S_IROTH)


@dataclass(frozen=True)
class _Secret:
    file: str
    line: int
    what: str
    context: bool
    """the line did not change"""


def _secrets_in(patch: str) -> Iterator[_Secret]:
    """Yield the secrets of the lines of a patch, with the line in the file as it is now, or as it was where it is
    removed. Those of binary files are not seen."""
    for file, lines in _hunks(patch):
        for side in ("+ ", "-"):
            told = [(number, sign, text) for number, sign, text in lines if sign in side]
            for found in find_secrets("\n".join(text for _, _, text in told), file):
                number, sign, _ = told[found.line - 1]
                yield _Secret(file, number, found.what, sign == " ")


def _hunks(patch: str) -> Iterator[tuple[str, list[tuple[int, str, str]]]]:
    """Yield (file, [(line, sign, text)]) of each hunk."""
    file, lines, left = "", list[tuple[int, str, str]](), [0, 0]
    old = new = 0
    for line in patch.split("\n"):
        if any(left) and line[:1] in ("+", "-", " "):
            lines.append((old if line[0] == "-" else new, line[0], line[1:]))
            old, new = old + (line[0] != "+"), new + (line[0] != "-")
            left = [left[0] - (line[0] != "+"), left[1] - (line[0] != "-")]
            continue
        if lines:
            yield file, lines
            lines = []
        if found := re.match(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line):
            old, new = int(found[1]), int(found[3])
            left = [int(found[2] or 1), int(found[4] or 1)]
        elif line.startswith("diff --git "):
            file = next(iter(patched(line.encode())), "")
    if lines:
        yield file, lines


def _binary(patch: str) -> frozenset[str]:
    """Return the files of which a patch has bytes instead of lines."""
    parts = re.split(r"^(?=diff --git )", patch, flags=re.MULTILINE)
    with_bytes = (part for part in parts if re.search(r"^GIT binary patch$", part, re.MULTILINE))
    return frozenset(name for part in with_bytes for name in patched(part.partition("\n")[0].encode()))


def _without_passwords(patch: str) -> str:
    """Return a patch whose new lines of params.yaml name no passwords in addresses; no stage reads those."""
    # Behind the place of a hunk git tells a line above it, which is not of the change.
    patch = re.sub(r"^(@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@).*$", r"\1", patch, flags=re.MULTILINE)
    parts = re.split(r"^(?=diff --git )", patch, flags=re.MULTILINE)
    for place, part in enumerate(parts):
        if patched(part.partition("\n")[0].encode()) and part.partition("\n")[0].endswith("params.yaml"):
            lines = part.split("\n")
            parts[place] = "\n".join(without_passwords(line) if line[:1] == "+" else line for line in lines)
    return "".join(parts)


def files_of(folder: Path) -> tuple[str, ...]:
    """Return the files in a folder that git tracks, and new code in it that git does not ignore and that others may
    read, relative to it. None where it is in no repository, or git ignores it."""
    told = run(["git", "ls-files", "-z"], folder)
    if told.returncode != 0 or not told.stdout:
        return ()
    tracked = {name for name in told.stdout.split("\0") if name}
    added = run(["git", "diff", "--cached", "--name-only", "--diff-filter=A", "-z", "--relative"], folder)
    new = {name for name in added.stdout.split("\0") if name} if added.returncode == 0 else set()
    untracked = run(["git", "ls-files", "--others", "--exclude-standard", "-z"], folder).stdout.split("\0")
    others = [name for name in (*new, *untracked) if name.endswith(".py") and (folder / name).is_file()]
    usual = [name for name in tracked - new if name.endswith(".py")]
    open_ones = [name for name in others if not usual or not is_private(folder, name, min(usual))]
    return tuple(sorted({*(tracked - new), *open_ones}))


def patched(patch: bytes) -> frozenset[str]:
    """Return the files that a patch of this module's touches, relative to the repository."""
    found = re.findall(rb'^diff --git (?:a/(.*) b/\1|"a/(.*)" "b/\2")$', patch, re.MULTILINE)
    return frozenset((plain or _unquoted(quoted)).decode(errors="replace") for plain, quoted in found)


def is_commit(commit: str) -> bool:
    """Return whether this is the whole name of a commit, as records have it: no option, no expression."""
    return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit) is not None


def has_commit(root: Path, commit: str) -> bool:
    """Return whether this clone has a commit.

    Args:
        commit: its whole name.
    """
    return is_commit(commit) and _commit_of(root, commit) is not None


def _commit_of(root: Path, ref: str) -> str | None:
    # Nothing after --end-of-options is an option, whatever it begins with.
    asked = ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"]
    found = run(["git", *asked], root)
    return found.stdout.strip() or None if found.returncode == 0 else None


def about_commit(root: Path, commit: str) -> tuple[str, str] | None:
    """Return when a commit was made (ISO 8601) and the first line of its message; None where this clone lacks it."""
    if not is_commit(commit):
        return None
    wanted = ["--no-patch", "--no-color", "--format=%cI%x00%s", "--end-of-options", f"{commit}^{{commit}}"]
    shown = run(["git", "show", *wanted], root)
    when, _, subject = shown.stdout.strip().partition("\0")
    return (when, subject) if shown.returncode == 0 else None


def find_commit(root: Path, ref: str) -> str:
    """Return the commit that a name stands for in this clone: a branch, a tag, a hash. One of a remote
    (``origin/main``) is fetched before, and so is a hash that this clone does not have.

    Raises:
        QuickstudyError: there is none of this name, or the remote does not answer.
    """
    check_ref(root, ref)
    remotes = run_git(root, "remote").split()
    remote, _, branch = ref.partition("/")
    if branch and remote in remotes:
        run_git(root, "fetch", "--quiet", "--end-of-options", remote, f"refs/heads/{branch}")
    elif _commit_of(root, ref) is None and remotes:
        run(["git", "fetch", "--quiet", "--all"], root)
    found = _commit_of(root, ref)
    if found is None:
        where = f"nor in {', '.join(remotes)}" if remotes else "and it has no remote"
        raise QuickstudyError(
            f"commit {ref[:10]} is not in this clone {where}",
            where=root,
            fix="Push it where it was made: git push",
        )
    return found


def check_ref(root: Path, ref: str) -> None:
    """Make sure that git takes a text for the name of a commit, and for nothing else: HEAD, a branch, a tag, a hash,
    and what is so many commits before one (HEAD~2).

    Raises:
        QuickstudyError: it is none.
    """
    name = re.sub(r"(?:[~^]\d*)+$", "", ref)
    odd = any(part.startswith("-") for part in name.split("/"))
    if odd or run(["git", "check-ref-format", "--allow-onelevel", name], root).returncode != 0:
        raise QuickstudyError(
            f"{ref!r} is no name of a commit", where="runs.ref", fix="Say HEAD, origin/BRANCH, a tag or a hash"
        )


def apply_patch(folder: Path, patch: bytes) -> None:
    """Change the files of a worktree as a patch says.

    Raises:
        QuickstudyError: it does not fit.
    """
    try:
        run_bytes(["git", "apply", "--binary", "--unidiff-zero", "--whitespace=nowarn", "-"], folder, stdin=patch)
    except QuickstudyError as error:
        raise QuickstudyError(f"the recorded patch does not fit its commit ({error.what})") from None


def clone(url: str, folder: Path) -> None:
    """Clone a repository into a folder.

    Raises:
        QuickstudyError: git refuses.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    run_git(folder.parent, "clone", "--quiet", "--end-of-options", url, str(folder))


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
    check_ref(root, branch)
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
