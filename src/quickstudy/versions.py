"""What is stale, and which version is this: the only caller of git and DVC, by their command lines.

The command line, because in-process DVC lets a stage's output bypass whoever wants to read it. A call costs a second.
"""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Literal

import yaml

from quickstudy import processes
from quickstudy.errors import QuickstudyError

Outcome = Literal["ran", "up to date", "restored"]

# Files that a run itself rewrites: they say what was built, not what it was built with.
WRITTEN_BY_RUNS = ("dvc.lock", "data.dvc")

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
            if other != name and any(_overlap(dep, out) for dep in _paths(entry, "deps") for out in outs[other])
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
    for stage in stages(root):
        reasons = _why_stage(root, stage, status.get(stage.name, []), lock.get(stage.name))
        if "data" in found and any(_overlap(dep, "data") for dep in stage.deps):
            reasons.append("data changed")
        reasons += [f"after {name}" for name in stage.after if name in found]
        if reasons:
            found[stage.name] = tuple(dict.fromkeys(reasons))
    return found


def repro(root: Path, stage: str, on_line: Callable[[str], None]) -> Outcome:
    """Bring one stage up to date; those before it are taken as they are. A stage that fails leaves its former outputs.

    Whatever ends this call, a signal or an exception in ``on_line`` included, the stage's processes are then gone.

    Args:
        on_line: gets each line that the stage prints, while it runs.

    Raises:
        QuickstudyError: the stage told the user what is wrong and ended with exit code 2.
        Busy: another DVC command holds the workspace.
        StageFailed: it ended in any other way.
    """
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        if line and not line.startswith(_CHATTER):
            on_line(line)

    code = processes.stream([*_DVC, "repro", "--single-item", stage], root, listen)
    text = "\n".join(lines)
    if code == 0:
        if f"Stage '{stage}' is cached - skipping run" in text:
            return "restored"
        return "ran" if f"Running stage '{stage}'" in text else "up to date"
    if stage in _lock(root):  # DVC deleted the former outputs when the stage started
        _run([*_DVC, "checkout", "--quiet", "--force", stage], root)
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


def data_hash(root: Path) -> str | None:
    """The version of data/: the DVC hash in data.dvc (36 characters with its ``.dir``), None where there is none."""
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


def in_cache(root: Path, version: str) -> bool:
    """Whether DVC's cache in this clone knows the files of a version of the data."""
    folder = Path(_dvc(root, "cache", "dir").strip())
    return (root / folder / "files" / "md5" / version[:2] / version[2:]).exists()


def checkout_data(root: Path) -> None:
    """Make data/ what data.dvc says, from DVC's cache. Changes that are in no version are not overwritten."""
    _dvc(root, "checkout", "data.dvc")


def has_remote(root: Path) -> bool:
    """Whether a default DVC remote is configured."""
    return bool(_run([*_DVC, "config", "core.remote"], root).stdout.strip())


def pull_data(root: Path, on_line: Callable[[str], None]) -> None:
    """Fetch the version of the data that data.dvc names from the DVC remote.

    Raises:
        RemoteFailed: the remote cannot be reached or does not have it.
    """
    lines: list[str] = []

    def listen(line: str) -> None:
        lines.append(line)
        on_line(line)

    if processes.stream([*_DVC, "pull", "data.dvc"], root, listen) != 0:
        _raise_known("\n".join(lines), root)
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        raise RemoteFailed(
            f"the DVC remote did not give the data: {' '.join(errors or lines[-1:])}",
            fix="Check `dvc remote list`, or make the starter data: quickstudy data build",
        )


def lock_hashes(root: Path) -> dict[str, str]:
    """Path of every stage output → its hash in dvc.lock."""
    return {out["path"]: out["md5"] for stage in _lock(root).values() for out in stage.get("outs", []) if "md5" in out}


def code_state(root: Path) -> Code:
    """Commit, branch and what differs from the commit.

    Raises:
        QuickstudyError: git is not installed or this is no repository.
    """
    changed = tuple(
        line[3:]
        for line in _git(root, "status", "--porcelain", "--untracked-files=normal").splitlines()
        if line[3:] not in WRITTEN_BY_RUNS
    )
    commit = _run(["git", "rev-parse", "--verify", "HEAD"], root)
    branch = _run(["git", "symbolic-ref", "--short", "HEAD"], root)
    return Code(
        commit=commit.stdout.strip() or None if commit.returncode == 0 else None,
        branch=branch.stdout.strip() or None if branch.returncode == 0 else None,
        changed=changed,
    )


def patch(root: Path) -> str:
    """What differs from the last commit in the tracked files, as git writes it; empty without a commit."""
    return _run(["git", "diff", "HEAD", "--", ".", *(f":!{name}" for name in WRITTEN_BY_RUNS)], root).stdout


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} → {"a.b": 1}; lists are values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


# ---- dvc.yaml and dvc.lock

_DVC = (sys.executable, "-m", "dvc")


def _paths(entry: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    # An item is a path, or a mapping from one path to its settings.
    items = (item for key in keys for item in entry.get(key) or [])
    return tuple(str(item if isinstance(item, str) else next(iter(item))) for item in items)


def _overlap(dep: str, out: str) -> bool:
    a, b = Path(dep).parts, Path(out).parts
    return a[: len(b)] == b or b[: len(a)] == a


def _lock(root: Path) -> dict[str, Any]:
    path = root / "dvc.lock"
    try:
        return dict((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("stages") or {})
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
        raise QuickstudyError("is not readable", where=path, fix="Restore it: git checkout dvc.lock") from None


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
            return words.get(state, state)
    return None


def _why_stage(root: Path, stage: Stage, entries: list[Any], locked: Mapping[str, Any] | None) -> list[str]:
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
            elif _overlap(path, "data") or not any(_overlap(path, out) for out in _outs_before(root, stage)):
                reasons.append(f"{path} {'is missing' if state == 'deleted' else 'changed'}")
        for path, state in entry.get("changed outs", {}).items():
            reasons.append(f"{path} {'is missing' if state == 'deleted' else 'was changed by hand'}")
    return reasons or (["an input changed"] if entries and not stage.after else [])


def _outs_before(root: Path, stage: Stage) -> list[str]:
    return [out for other in stages(root) if other.name in stage.after for out in other.outs]


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


def _run(command: list[str], root: Path) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, cwd=root, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, check=False
        )
    except FileNotFoundError:
        raise QuickstudyError(f"{command[0]} is not installed", fix=f"Install {command[0]}") from None


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
    if "No space left on device" in text:
        raise QuickstudyError("no space left on the disk", where=root, fix="Free some and run the same again")
