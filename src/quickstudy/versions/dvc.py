"""What is stale, and which version is this: the only caller of git and DVC, by their command lines.

The command line, because in-process DVC lets a stage's output bypass whoever wants to read it. A call costs a second.
"""

import configparser
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from quickstudy.errors import QuickstudyError
from quickstudy.system import processes
from quickstudy.system.atomic import draft, write_bytes

Outcome = Literal["ran", "up to date", "restored"]

# Files that a run itself rewrites: they say what was built, not what it was built with.
WRITTEN_BY_RUNS = ("dvc.lock", "data.dvc")

LARGEST = 10_000_000
"""Bytes of a file that git does not track, above which a patch leaves it out."""

_CHATTER = (
    "Running stage ",
    "Stage '",
    "Generating lock file ",
    "Updating lock file ",
    "To track the changes with git, run:",
    "To enable auto staging, run:",
    "Use `dvc push` to send your updates to remote storage.",
    "Data and pipelines are up to date.",
    "> ",
    "\tgit add ",
    "\tdvc config core.autostage true",
    "ERROR: failed to reproduce ",
)


class StageFailed(RuntimeError):
    """A stage ended with an error that is not the user's: a bug, a signal, a full machine.

    Attributes:
        killed: a signal ended it, so that another try may succeed.
    """

    def __init__(self, stage: str, line: str, *, killed: bool):
        self.stage, self.killed = stage, killed
        super().__init__(f"stage {stage} failed: {line}")


class MustRun(Exception):
    """A stage is not up to date, DVC knows no outputs for its inputs, and it was not to be run."""


class Busy(QuickstudyError):
    """Another DVC command holds the workspace."""


class RemoteFailed(QuickstudyError):
    """The DVC remote cannot be reached or does not have what was asked."""


@dataclass(frozen=True)
class Stage:
    """One entry of dvc.yaml. Paths are relative to the project."""

    name: str
    deps: tuple[str, ...]
    params: tuple[str, ...]
    outs: tuple[str, ...]
    after: tuple[str, ...]
    """The stages whose outputs it reads."""


@dataclass(frozen=True)
class Code:
    """The state of the source code."""

    commit: str | None
    """None in a repository without a commit."""
    branch: str | None
    changed: tuple[str, ...]
    """Files that differ from the commit or are not tracked, beside those that a run writes itself."""


def stages(root: Path) -> tuple[Stage, ...]:
    """The stages of dvc.yaml, each after those that it depends on.

    Raises:
        QuickstudyError: dvc.yaml is not readable or its stages depend on each other in a circle.
    """
    path = root / "dvc.yaml"
    try:
        entries: Mapping[str, Any] = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages") or {}
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise QuickstudyError(f"cannot be read ({error})", where=path) from None
    outs = {name: _paths(entry, "outs", "metrics", "plots") for name, entry in entries.items()}
    after = {
        name: tuple(
            other
            for other in entries
            if other != name and any(overlap(dep, out) for dep in _paths(entry, "deps") for out in outs[other])
        )
        for name, entry in entries.items()
    }
    try:
        order = list(TopologicalSorter(after).static_order())
    except ValueError as error:
        raise QuickstudyError(f"the stages depend on each other in a circle ({error.args[1]})", where=path) from None
    return tuple(
        Stage(
            name=name,
            deps=_paths(entries[name], "deps"),
            params=_paths(entries[name], "params"),
            outs=outs[name],
            after=after[name],
        )
        for name in order
    )


def stale(root: Path) -> dict[str, tuple[str, ...]]:
    """What is not up to date and why: names of stages, in order, and first "data" for data/ itself.

    A stage after a stale one is stale too, though it may turn out that its inputs stay the same. Nothing is changed.

    Raises:
        QuickstudyError: no git or DVC repository, a broken dvc.yaml, or another DVC command is busy.
    """
    status: dict[str, Any] = json.loads(_dvc(root, "status", "--json"))
    found: dict[str, tuple[str, ...]] = {}
    if reason := _why_data(root, status):
        found["data"] = (reason,)
    lock = _lock(root)
    outs: dict[str, tuple[str, ...]] = {}
    for stage in stages(root):
        outs[stage.name] = stage.outs
        before = [out for name in stage.after if name in found for out in outs[name]]
        reasons = _why_stage(root, stage, before, status.get(stage.name, []), lock.get(stage.name))
        if "data" in found and any(overlap(dep, "data") for dep in stage.deps):
            reasons.append("data changed")
        reasons += [f"after {name}" for name in stage.after if name in found]
        if reasons:
            found[stage.name] = tuple(dict.fromkeys(reasons))
    return found


def repro(
    root: Path,
    stage: str,
    on_line: Callable[[str], None],
    *,
    anew: bool = False,
    pull: bool = False,
    may_run: bool = True,
    env: Mapping[str, str] | None = None,
) -> Outcome:
    """Bring one stage up to date; those before it are taken as they are. A stage that fails leaves its former outputs.

    Whatever ends this call, a signal or an exception in ``on_line`` included, the stage's processes are then gone.

    Args:
        on_line: gets each line that the stage prints, while it runs.
        anew: run it whatever DVC knows of it, and put nothing into DVC's cache; dvc.lock gets the hashes all the same.
            (With ``--no-run-cache`` alone DVC still restores what dvc.lock names.)
        pull: outputs that DVC knows and does not have come from the DVC remote.
        may_run: False: only what DVC knows is restored.
        env: variables beside those of this process.

    Raises:
        QuickstudyError: the stage told the user what is wrong and ended with exit code 2.
        Busy: another DVC command holds the workspace.
        StageFailed: it ended in any other way.
        MustRun: it would have to run and may not.
    """
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        if not may_run and line.startswith(f"Running stage '{stage}'"):
            raise MustRun(stage)
        if line and not line.startswith(_CHATTER):
            on_line(line)

    how = ["--force", "--no-run-cache", "--no-commit"] if anew else ["--pull", "--allow-missing"] if pull else []
    try:
        code = _stream(root, ["repro", "--single-item", *how, stage], listen, env)
    except MustRun:
        _back_to_lock(root, stage)
        raise
    text = "\n".join(lines)
    if code == 0:
        if f"Stage '{stage}' is cached - skipping run" in text:
            return "restored"
        return "ran" if f"Running stage '{stage}'" in text else "up to date"
    if not anew:
        _back_to_lock(root, stage)
    mistakes = [line.removeprefix("quickstudy: ") for line in lines if line.startswith("quickstudy: ")]
    if mistakes and text.rstrip().endswith("exited with 2"):
        raise QuickstudyError(mistakes[-1])
    _raise_known(text, root)
    ends = [line for line in lines if line.strip() and not line.startswith(_CHATTER)]
    ended = re.search(r"exited with (-?\d+)\s*$", text)  # of the stage's own process
    number = int(ended[1]) if ended else code
    if number < 0 or number > 128:
        raise StageFailed(stage, f"killed by signal {-number if number < 0 else number - 128}", killed=True)
    raise StageFailed(stage, ends[-1].strip() if ends else f"exit code {number}", killed=False)


def _back_to_lock(root: Path, stage: str) -> None:
    """Bring back the former outputs, which DVC deletes when a stage starts."""
    if stage in _lock(root):
        _run([*_DVC, "checkout", "--quiet", "--force", stage], root)


def data_hash(root: Path) -> str | None:
    """The version of data/: the DVC hash in data.dvc (36 characters with its ``.dir``), None where there is none."""
    _mend(root)
    path = root / "data.dvc"
    try:
        return str(yaml.safe_load(path.read_text(encoding="utf-8"))["outs"][0]["md5"])
    except FileNotFoundError:
        return None
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, IndexError, TypeError):
        raise QuickstudyError("is not a DVC file", where=path, fix="Restore it: git checkout data.dvc") from None


def committed_data_hash(root: Path) -> str | None:
    """The version of data/ in the last commit; None where there is none."""
    shown = _run(["git", "show", "HEAD:./data.dvc"], root)
    return str(yaml.safe_load(shown.stdout)["outs"][0]["md5"]) if shown.returncode == 0 else None


def add_data(root: Path) -> str:
    """Make data/ as it is now a version: into DVC's cache, its hash into data.dvc. Returns the hash.

    Raises:
        QuickstudyError: data/ does not exist, or DVC refuses.
    """
    if not (root / "data").is_dir():
        raise QuickstudyError("does not exist", where=root / "data", fix="Make the starter data: quickstudy data build")
    _dvc(root, "add", "data")
    version = data_hash(root)
    assert version is not None
    return version


def cache_folder(root: Path) -> Path:
    """Where DVC's cache of this clone is."""
    return (root / _dvc(root, "cache", "dir").strip()).resolve()


def in_cache(root: Path, version: str) -> bool:
    """Whether DVC's cache in this clone holds all files of a version of the data."""
    files = cache_folder(root) / "files" / "md5"
    try:
        listed = json.loads((files / version[:2] / version[2:]).read_text(encoding="utf-8"))
        return all((files / entry["md5"][:2] / entry["md5"][2:]).exists() for entry in listed)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def checkout_data(root: Path, force: bool = False) -> None:
    """Make data/ what data.dvc says, from DVC's cache. Changes that are in no version are not overwritten, unless
    forced."""
    _dvc(root, "checkout", *(["--force"] if force else []), "data.dvc")


def has_remote(root: Path) -> bool:
    """Whether a default DVC remote is configured."""
    return bool(_run([*_DVC, "config", "core.remote"], root).stdout.strip())


def in_remote(root: Path) -> bool:
    """Whether the default DVC remote holds all files of the version that data.dvc names; the cache lacks some.

    Raises:
        RemoteFailed: it cannot be reached.
    """
    done = _run([*_DVC, "status", "--cloud", "--json", "data.dvc"], root)
    if done.returncode != 0:
        _raise_known(done.stderr, root)
        raise RemoteFailed(f"the DVC remote does not answer: {done.stderr.removeprefix('ERROR: ')}", where=root)
    states = json.loads(done.stdout or "{}")
    # Where neither has the list of the files, DVC knows of none and only warns.
    return bool(states) and "missing" not in states.values() and "neither locally nor on remote" not in done.stderr


def pull_data(root: Path, on_line: Callable[[str], None]) -> None:
    """Fetch the version of the data that data.dvc names from the DVC remote.

    Raises:
        RemoteFailed: the remote cannot be reached or does not have it.
    """
    _transfer(
        root, ["pull", "data.dvc"], "give the data", on_line,
        "Check `dvc remote list`, or make the starter data: quickstudy data build",
    )  # fmt: skip


def pull_outputs(root: Path, stage: str, on_line: Callable[[str], None]) -> None:
    """Bring the outputs of a stage, as dvc.lock names them, from DVC's cache or else from the DVC remote.

    Raises:
        RemoteFailed: they are in neither.
    """
    if _run([*_DVC, "checkout", "--quiet", "--force", stage], root).returncode != 0:
        _transfer(root, ["pull", "--force", stage], f"give what {stage} has made", on_line)


def push_outputs(root: Path, stages: Sequence[str], on_line: Callable[[str], None]) -> None:
    """Bring the outputs of stages into the DVC remote, and what DVC knows of their runs, so that another clone can
    restore them.

    Raises:
        RemoteFailed: it cannot be reached.
    """
    _transfer(root, ["push", "--run-cache", *stages], f"take what {', '.join(stages)} made", on_line)


def push_data(root: Path, on_line: Callable[[str], None]) -> None:
    """Bring the version of the data that data.dvc names into the DVC remote.

    Raises:
        RemoteFailed: it cannot be reached.
    """
    _transfer(root, ["push", "data.dvc"], "take the data", on_line)


def _transfer(
    root: Path, arguments: Sequence[str], what: str, on_line: Callable[[str], None], fix: str | None = None
) -> None:
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        on_line(line)

    if _stream(root, arguments, listen) != 0:
        _raise_known("\n".join(lines), root)
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        if any("neither locally nor on remote" in line for line in lines):
            errors = ["it does not have all of it"]  # DVC names the folder, over several lines
        raise RemoteFailed(f"the DVC remote did not {what}: {' '.join(errors or lines[-1:])}", fix=fix)


def locked(path: Path) -> dict[str, Any]:
    """Stage → its command, dependencies, parameters and outputs, of a dvc.lock; empty where there is none.

    Raises:
        QuickstudyError: it cannot be read.
    """
    try:
        return dict((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages") or {})
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
        raise QuickstudyError("is not readable", where=path, fix="Restore it: git checkout dvc.lock") from None


def lock_hashes(root: Path) -> dict[str, str]:
    """Path of every stage output → its hash in dvc.lock."""
    return {out["path"]: out["md5"] for stage in _lock(root).values() for out in stage.get("outs", []) if "md5" in out}


def code_state(root: Path) -> Code:
    """Commit, branch and what differs from the commit.

    Raises:
        QuickstudyError: git is not installed or this is no repository.
    """
    entries = iter(_git(root, "status", "--porcelain", "-z", "--untracked-files=normal").split("\0"))
    changed = []
    for entry in entries:
        if entry[:1] in ("R", "C"):  # the name before it was renamed follows
            changed.append(next(entries))
        changed.append(entry[3:])
    commit = _run(["git", "rev-parse", "--verify", "HEAD"], root)
    branch = _run(["git", "symbolic-ref", "--short", "HEAD"], root)
    return Code(
        commit=commit.stdout.strip() or None if commit.returncode == 0 else None,
        branch=branch.stdout.strip() or None if branch.returncode == 0 else None,
        changed=tuple(name for name in changed if name and name not in WRITTEN_BY_RUNS),
    )


def patch(root: Path) -> str:
    """What differs from the last commit, as git writes it: also binary files and those that git does not track yet.

    What git ignores, what runs write and files of `left_out` are not in it. Empty without a commit. Neither the index
    nor git's objects change. What git's own settings would change of it (colours, prefixes, filters of text) does not
    count; it can be applied by `apply_patch` to the commit.
    """
    if _run(["git", "rev-parse", "--verify", "HEAD"], root).returncode != 0:
        return ""
    without = [f":(exclude,literal){name}" for name in (*WRITTEN_BY_RUNS, *left_out(root))]
    with tempfile.TemporaryDirectory() as scratch:
        index, objects, binary = (Path(scratch, name) for name in ("index", "objects", "attributes"))
        objects.mkdir()
        binary.write_text("* binary\n")
        env = {
            "GIT_INDEX_FILE": str(index),
            "GIT_OBJECT_DIRECTORY": str(objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": json.dumps(str(_git_path(root, "objects"))),
        }
        own = _git_path(root, "index")
        if own.exists():
            index.write_bytes(own.read_bytes())  # with what it knows of the files, which are then not read again
        else:
            _bytes(["git", "read-tree", "HEAD"], root, env)
        _bytes(["git", "add", "--all", "--", ".", *without], root, env)
        shape = ["--cached", "--binary", "--full-index", "--unified=3", "--no-renames", "--no-color", "--no-ext-diff"]
        diff = ["diff", *shape, "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "HEAD", "--", ".", *without]
        try:
            return _bytes(["git", *diff], root, env).decode()
        except UnicodeDecodeError:  # text of another encoding: as if it were binary, which is written in ASCII
            return _bytes(["git", "-c", f"core.attributesFile={binary}", *diff], root, env).decode()


def left_out(root: Path) -> tuple[str, ...]:
    """Files that git neither tracks nor ignores and that are too large for a patch."""
    names = _git(root, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return tuple(name for name in names if name and (root / name).is_file() and _size(root / name) > LARGEST)


def patched(patch: bytes) -> frozenset[str]:
    """The files that a patch of this module's touches, relative to the repository."""
    found = re.findall(rb'^diff --git (?:a/(.*) b/\1|"a/(.*)" "b/\2")$', patch, re.MULTILINE)
    return frozenset((plain or _unquoted(quoted)).decode(errors="replace") for plain, quoted in found)


def has_commit(root: Path, commit: str) -> bool:
    """Whether this clone has a commit."""
    return _run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], root).returncode == 0


def about_commit(root: Path, commit: str) -> tuple[str, str] | None:
    """When it was made (ISO 8601) and the first line of its message; None where this clone does not have it."""
    shown = _run(["git", "show", "--no-patch", "--no-color", "--format=%cI%x00%s", f"{commit}^{{commit}}"], root)
    when, _, subject = shown.stdout.strip().partition("\0")
    return (when, subject) if shown.returncode == 0 else None


def add_worktree(root: Path, folder: Path, commit: str) -> Path:
    """The files of a commit in a folder of their own, beside the user's working copy, which is not touched.

    DVC there has this clone's remotes, and its cache is this clone's.

    Returns:
        the project's folder in it: ``folder``, or one below where the project is not the whole repository.

    Raises:
        QuickstudyError: git refuses.
    """
    _git(root, *_NO_HOOKS, "worktree", "add", "--force", "--detach", str(folder), commit)
    return _share_dvc(root, folder)


def reset_worktree(root: Path, folder: Path, commit: str) -> Path:
    """Make a worktree that `add_worktree` made what a commit says, as far as git knows it. What git ignores (data, what
    the stages built) stays, and dvc.lock, which says what that is.

    Returns:
        the project's folder in it.

    Raises:
        QuickstudyError: git refuses.
    """
    project = project_in(root, folder)
    lock = project / "dvc.lock"
    kept = lock.read_bytes() if lock.exists() else None
    for name in ("index.lock", "HEAD.lock"):  # of a git that was killed: the worktree is this run's alone
        _git_path(folder, name).unlink(missing_ok=True)
    _git(folder, *_NO_HOOKS, "checkout", "--quiet", "--force", "--detach", commit)
    _git(folder, "clean", "--quiet", "-d", "--force", "--exclude=dvc.lock")
    if kept is not None:
        write_bytes(lock, kept)
    return _share_dvc(root, folder)


def project_in(root: Path, folder: Path) -> Path:
    """The project's folder in a worktree: ``folder``, or one below where the project is not the whole repository."""
    return folder / _git(root, "rev-parse", "--show-prefix").strip()


def _share_dvc(root: Path, folder: Path) -> Path:
    """Give a worktree this clone's DVC cache and remotes; returns the project's folder in it."""
    project = project_in(root, folder)
    config = configparser.RawConfigParser(strict=False, allow_no_value=True)
    config.optionxform = str  # type: ignore[method-assign,assignment]
    for name in ("config", "config.local"):
        path = root / ".dvc" / name
        part = configparser.RawConfigParser(strict=False, allow_no_value=True)
        part.optionxform = str  # type: ignore[method-assign,assignment]
        part.read(path, encoding="utf-8")
        for section in part.sections():
            url = part.get(section, "url", fallback=None)
            if url and not re.match(r"\w+://", url) and not Path(url).is_absolute():
                part.set(section, "url", str((path.parent / url).resolve()))
        config.read_dict(part)
    config.read_dict({"cache": {"dir": str(cache_folder(root))}})
    (project / ".dvc").mkdir(exist_ok=True)
    with draft(project / ".dvc" / "config.local") as local:  # which may hold a remote's password
        local.chmod(0o600)
        with local.open("w", encoding="utf-8") as file:
            config.write(file)
    return project


def find_commit(root: Path, ref: str) -> str:
    """The commit that a name stands for in this clone: a branch, a tag, a hash. One of a remote (``origin/main``) is
    fetched before, and so is a hash that this clone does not have.

    Raises:
        QuickstudyError: there is none of this name, or the remote does not answer.
    """
    remotes = _git(root, "remote").split()
    remote, _, branch = ref.partition("/")
    if branch and remote in remotes:
        _git(root, "fetch", "--quiet", remote, branch)
    elif not has_commit(root, ref) and remotes:
        _run(["git", "fetch", "--quiet", "--all"], root)
    found = _run(["git", "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"], root)
    if found.returncode != 0:
        where = f"nor in {', '.join(remotes)}" if remotes else "and it has no remote"
        raise QuickstudyError(
            f"commit {ref[:10]} is not in this clone {where}",
            where=root,
            fix="Push it where it was made: git push",
        )
    return found.stdout.strip()


def remove_worktree(root: Path, folder: Path) -> None:
    """Remove what `add_worktree` made, in whatever state it is, and what git remembers of it."""
    shutil.rmtree(folder, ignore_errors=True)
    _git(root, "worktree", "prune")


def apply_patch(folder: Path, patch: bytes) -> None:
    """Change the files of a worktree as a patch says.

    Raises:
        QuickstudyError: it does not fit.
    """
    try:
        _bytes(["git", "apply", "--binary", "--whitespace=nowarn", "-"], folder, stdin=patch)
    except QuickstudyError as error:
        raise QuickstudyError(f"the recorded patch does not fit its commit ({error.what})") from None


def set_data(root: Path, version: str) -> None:
    """Let data.dvc name a version of the data; data/ stays as it is."""
    out = {"md5": version, "hash": "md5", "path": "data"}
    write_bytes(root / "data.dvc", yaml.safe_dump({"outs": [out]}).encode())


def hash_data(root: Path) -> str:
    """The version of data/ as it is now, into data.dvc; DVC's cache gets nothing.

    Raises:
        QuickstudyError: DVC refuses.
    """
    _dvc(root, "add", "--no-commit", "data")
    version = data_hash(root)
    assert version is not None
    return version


def overlap(a: str, b: str) -> bool:
    """Whether one of two paths is the other or lies in it."""
    one, other = Path(a).parts, Path(b).parts
    return one[: len(other)] == other or other[: len(one)] == one


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}; lists are values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def clone(url: str, folder: Path) -> None:
    """A clone of a repository.

    Raises:
        QuickstudyError: git refuses.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _git(folder.parent, "clone", "--quiet", url, str(folder))


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
    prefix = _git(root, "rev-parse", "--show-prefix").strip()
    with tempfile.TemporaryDirectory() as scratch:
        env = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        _bytes(["git", "read-tree", "HEAD"], root, env)
        for name, content in files.items():
            blob = _bytes(["git", "hash-object", "-w", "--stdin"], root, stdin=content).decode().strip()
            _bytes(["git", "update-index", "--add", "--cacheinfo", f"100644,{blob},{prefix}{name}"], root, env)
        tree = _bytes(["git", "write-tree"], root, env).decode().strip()
    who = {f"GIT_{role}_{what}": value for role in ("AUTHOR", "COMMITTER") for what, value in _RUNS_BY.items()}
    commit = _bytes(["git", "commit-tree", tree, "-p", "HEAD", "-m", message], root, who).decode().strip()
    _git(root, "update-ref", f"refs/heads/{branch}", commit, "0" * 40)
    if push:
        _git(root, *_NO_HOOKS, "push", "--quiet", "origin", f"{commit}:refs/heads/{branch}")
    return commit


# ---- dvc.yaml and dvc.lock

_RUNS_BY = {"NAME": "quickstudy", "EMAIL": "quickstudy@localhost"}
"""Who commits what a run has made: no person."""

_DVC = (sys.executable, "-m", "dvc")

# Hooks are the user's, for their working copy: `dvc install` makes one that checks out the data.
_NO_HOOKS = ("-c", "core.hooksPath=/dev/null")


def _paths(entry: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    # An item is a path, or a mapping from one path to its settings.
    items = (item for key in keys for item in entry.get(key) or [])
    return tuple(str(item if isinstance(item, str) else next(iter(item))) for item in items)


def _lock(root: Path) -> dict[str, Any]:
    _mend(root)
    return locked(root / "dvc.lock")


def _why_data(root: Path, status: Mapping[str, Any]) -> str | None:
    if not (root / "data.dvc").exists():
        return "no version yet" if (root / "data").is_dir() else "not there yet"
    words = {
        "deleted": "data/ is missing",
        "modified": "data/ differs from data.dvc",
        "new": "data/ differs from data.dvc",
        "not in cache": "not in DVC's cache yet",
    }
    for entry in status.get("data.dvc", []):
        for state in entry.get("changed outs", {}).values():
            return words.get(str(state), str(state))
    return None


def _why_stage(
    root: Path, stage: Stage, before: list[str], entries: list[Any], locked: Mapping[str, Any] | None
) -> list[str]:
    """Beside what the stale stages before it say, whose outputs are ``before``. A run that is cut off between two
    stages leaves the first up to date and the second with an input that has changed."""
    if locked is None:
        return ["never ran"]
    reasons: list[str] = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            reasons.append(str(entry).replace("changed command", "its command changed"))
            continue
        for path, state in entry.get("changed deps", {}).items():
            if path.endswith("params.yaml"):
                reasons += _why_params(root, stage, locked)
            elif overlap(path, "data") or not any(overlap(path, out) for out in before):
                reasons.append(f"{path} {'is missing' if state == 'deleted' else 'changed'}")
        for path, state in entry.get("changed outs", {}).items():
            reasons.append(f"{path} {'is missing' if state == 'deleted' else 'was changed by hand'}")
    return reasons or (["an input changed"] if entries and not before else [])


def _why_params(root: Path, stage: Stage, locked: Mapping[str, Any]) -> list[str]:
    now = flatten(yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8")) or {})
    then = flatten(locked.get("params", {}).get("params.yaml", {}))
    mine = {name for name in {*now, *then} if any(name == p or name.startswith(f"{p}.") for p in stage.params)}
    return [
        f"{name}: {then.get(name, 'nothing')} → {now.get(name, 'nothing')}"
        for name in sorted(mine)
        if now.get(name) != then.get(name)
    ]


# ---- the two commands


def _mend(root: Path) -> None:
    """Put right what DVC was writing when it was killed, as it writes in place: dvc.lock and data.dvc, then empty or
    without their last line's end, become what they were at the last call; its list of who reads and writes what is
    begun anew when it is cut off, or names the dead alone."""
    scratch = root / ".dvc" / "tmp"
    if not (root / ".dvc").is_dir():
        return
    for name in WRITTEN_BY_RUNS:
        path, kept = root / name, scratch / "last" / name
        with contextlib.suppress(OSError):  # not there, or not to be written: a reader's own error says so
            content = path.read_bytes()
            if content.endswith(b"\n"):
                if not kept.exists() or kept.read_bytes() != content:
                    write_bytes(kept, content)
                continue
            with _hold(scratch / "lock"):
                if path.read_bytes() != content:
                    continue
                if kept.exists():
                    write_bytes(path, kept.read_bytes())
                elif not content and name == "dvc.lock":
                    path.unlink()  # nothing had run
    path = scratch / "rwlock"
    with contextlib.suppress(OSError):
        content = path.read_bytes()
        if _is_of_the_dead(path, content):
            with _hold(scratch / "rwlock.lock"):
                if path.read_bytes() == content:
                    path.unlink()


@contextlib.contextmanager
def _hold(path: Path) -> Iterator[None]:
    """A lock of DVC's.

    Raises:
        OSError: a DVC holds it, and is writing now.
    """
    with path.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _is_of_the_dead(path: Path, content: bytes) -> bool:
    """Whether no process that DVC's list of who reads and writes names can have written it: it is no JSON, or a process
    of each number began after it was written, as when a machine starts again. DVC asks for the number alone, and would
    wait for a stranger."""
    written = path.stat().st_mtime
    try:
        listed = json.loads(content)
        readers = (reader for readers in listed.get("read", {}).values() for reader in readers)
        numbers = {int(who["pid"]) for who in (*readers, *listed.get("write", {}).values())}
    except (ValueError, AttributeError, KeyError, TypeError):
        return True
    return bool(numbers) and not any(_began_before(number, written) for number in numbers)


def _began_before(number: int, moment: float) -> bool:
    try:
        return psutil.Process(number).create_time() < moment + 1
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return True


def _stream(
    root: Path, arguments: Sequence[str], on_line: Callable[[str], None], env: Mapping[str, str] | None = None
) -> int:
    """A DVC command whose lines are of interest while it runs; its exit code."""
    _mend(root)
    return processes.stream([*_DVC, *arguments], root, on_line, env)


def _run(command: list[str], root: Path) -> "subprocess.CompletedProcess[str]":
    try:
        for last in (False, True):
            if command[: len(_DVC)] == [*_DVC]:
                _mend(root)
            done = subprocess.run(
                command, cwd=root, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                check=False,
            )  # fmt: skip
            if last or done.returncode != -signal.SIGKILL:  # killed, as where memory runs out: once more
                break
        return done
    except FileNotFoundError:
        raise QuickstudyError(f"{command[0]} is not installed", fix=f"Install {command[0]}") from None


def _bytes(command: list[str], root: Path, env: Mapping[str, str] | None = None, stdin: bytes | None = None) -> bytes:
    """As `_run`, for what is not text."""
    done = subprocess.run(
        command, cwd=root, capture_output=True, input=stdin, env={**os.environ, **(env or {})}, check=False
    )
    if done.returncode != 0:
        raise QuickstudyError(done.stderr.decode(errors="replace").strip().removeprefix("error: "), where=root)
    return done.stdout


def _git_path(root: Path, name: str) -> Path:
    return (root / _git(root, "rev-parse", "--git-path", name).strip()).resolve()


def _size(path: Path) -> int:
    return path.stat(follow_symlinks=False).st_size


def _unquoted(name: bytes) -> bytes:
    """As git writes unusual names: \"…\" with escapes of C."""
    escapes = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}

    def plain(found: "re.Match[bytes]") -> bytes:
        what = found[1]
        return bytes([int(what, 8)]) if what.isdigit() else escapes.get(what, what)

    return re.sub(rb"\\([0-7]{3}|.)", plain, name)


def _git(root: Path, *arguments: str) -> str:
    done = _run(["git", *arguments], root)
    if done.returncode != 0:
        _raise_known(done.stderr, root)
        raise QuickstudyError(f"git {arguments[0]} failed: {done.stderr}", where=root)
    return done.stdout


def _dvc(root: Path, *arguments: str) -> str:
    done = _run([*_DVC, *arguments], root)
    if done.returncode != 0:
        _raise_known(done.stderr, root)
        raise QuickstudyError(f"dvc {arguments[0]} failed: {done.stderr.removeprefix('ERROR: ')}", where=root)
    return done.stdout


def _raise_known(text: str, root: Path) -> None:
    if "not a git repository" in text or "you are not inside of a DVC repository" in text:
        raise QuickstudyError(
            "no git repository with DVC here, so that nothing has a version",
            where=root,
            fix="Clone the project with git, or: git init && dvc init && git add . && git commit -m start",
        )
    if "detected dubious ownership" in text:
        raise QuickstudyError(
            "git does not trust this folder, as it belongs to another user",
            where=root,
            fix=f"git config --global --add safe.directory {root}",
        )
    if " is busy, it is being blocked by" in text or "Unable to acquire lock" in text:
        holder = next((line.strip() for line in text.splitlines() if line.strip().startswith("(PID ")), "")
        raise Busy(
            f"another DVC command is at work here {holder}",
            where=root,
            fix="Wait until it ends, or stop it, and call again",
        )
    if "No space left on device" in text or "Out of diskspace" in text:  # the system's words, and git's
        raise QuickstudyError("no space left on the disk", where=root, fix="Free some and run the same again")
