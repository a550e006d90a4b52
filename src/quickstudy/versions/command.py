"""DVC and git by their command lines: how they are called, and what is mended that their death left."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil
from filelock import FileLock

from quickstudy.errors import QuickstudyError
from quickstudy.secrets import redacted
from quickstudy.system import processes
from quickstudy.system.atomic import draft, write_bytes
from quickstudy.system.private import check_private, private_folder
from quickstudy.system.progress import asking

# Files that a run itself rewrites: they say what was built, not what it was built with.
WRITTEN_BY_RUNS = ("dvc.lock", "data.dvc")


# How lines begin that DVC prints while it reproduces. They are for people, as DVC has no other output of `repro`; those
# that say what it did are read in `quickstudy.versions.dvc`, the others are of no interest.
CHATTER = (
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
        super().__init__(redacted(f"stage {stage} failed: {line}"))


class MustRun(Exception):
    """A stage is not up to date, DVC knows no outputs for its inputs, and it was not to be run."""


class Busy(QuickstudyError):
    """Another DVC command holds the workspace."""


class RemoteFailed(QuickstudyError):
    """The DVC remote cannot be reached or does not have what was asked."""


DVC = (sys.executable, "-m", "dvc")


# Hooks are the user's, for their working copy: `dvc install` makes one that checks out the data.
NO_HOOKS = ("-c", "core.hooksPath=/dev/null")


# DVC's verbs that open neither what runs write nor its list of who reads and writes.
OF_SETTINGS = ("cache", "config")

SITE = "DVC_SITE_CACHE_DIR"
OWN_SITE = Path(".dvc") / "tmp" / "site"
"""Where DVC remembers which files it has seen; as a variable and where it is, relative to the project."""

LAST = Path(".dvc") / "tmp" / "last"
"""What was in the files that runs write when the last DVC command began."""


def content(root: Path, name: str) -> bytes:
    """Return what dvc.lock or data.dvc says, and where DVC was killed while it wrote that, what it said before. Change
    nothing.

    Raises:
        FileNotFoundError: there is no such file.
    """
    found, kept = (root / name).read_bytes(), root / LAST / name
    return kept.read_bytes() if not found.endswith(b"\n") and kept.exists() else found


def _mend(root: Path, arguments: Sequence[str]) -> None:
    """Put right what DVC was writing when it was killed, as it writes in place: dvc.lock and data.dvc, then empty or
    without their last line's end, become what they were when the last command began; its list of who reads and writes
    what is begun anew when it is cut off, or names the dead alone.

    Done here alone: before a DVC command opens them, as DVC itself must find them whole. That is also before `dvc
    status`, with which everything begins after a kill, and before each further try of a stage in a flow of which DVC
    was killed. What reads the files without DVC takes `content`.
    """
    scratch = root / ".dvc" / "tmp"
    if not (root / ".dvc").is_dir() or arguments[0] in OF_SETTINGS:
        return
    for name in WRITTEN_BY_RUNS:
        path, kept = root / name, root / LAST / name
        with contextlib.suppress(OSError):  # not there, or not to be written: a reader's own error says so
            content = path.read_bytes()
            if content.endswith(b"\n"):
                if not kept.exists() or kept.read_bytes() != content:
                    write_bytes(kept, content)
                continue
            with _lock_of_dvc(scratch / "lock"):
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
            with _lock_of_dvc(scratch / "rwlock.lock"):
                if path.read_bytes() == content:
                    path.unlink()


def keep_private(root: Path) -> dict[str, str]:
    """Make the folder in which DVC keeps what it remembers of files, this project's own, and return the variables that
    say so. Its own default is a folder in /var/tmp which every user of the machine may write to, and DVC loads pickles
    from there. A ``dvc`` that a person calls is told by .dvc/config.local.

    Raises:
        QuickstudyError: another user could have put something there.
    """
    root = next((folder for folder in (root, *root.absolute().parents) if (folder / ".dvc").is_dir()), root)
    if not (root / ".dvc").is_dir():
        return {}  # DVC says so
    if named := _named_by_person(root):
        folder = root / named
        folder.mkdir(parents=True, exist_ok=True)
        check_private(folder)
    else:
        folder = private_folder(root / OWN_SITE, root, anew=True)
        _tell_dvc(root, folder.resolve())
    private_folder(folder / "repo", folder.parent, anew=not named)  # DVC would have everybody write to it
    return {SITE: str(folder.resolve())}


_SETTING = re.compile(r"^[ \t]*site_cache_dir[ \t]*=[ \t]*(.*?)[ \t]*$", re.MULTILINE)


def _named_by_person(root: Path) -> str | None:
    """What the environment or the settings of this clone say, where that is not ours: of this project, of one that
    started this process, or of before the folder was moved."""
    said = [os.environ.get(SITE)]
    for name in ("config.local", "config"):
        with contextlib.suppress(OSError):
            found = _SETTING.search((root / ".dvc" / name).read_text(encoding="utf-8"))
            said.append(found and found[1])
    return next((place for place in said if place and not Path(place).match(str(OWN_SITE))), None)


def _tell_dvc(root: Path, folder: Path) -> None:
    path = root / ".dvc" / "config.local"
    said = f"site_cache_dir = {folder}"
    with contextlib.suppress(OSError):  # a folder that cannot be written to: DVC is told by its environment alone
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if _SETTING.search(before):
            after = _SETTING.sub(lambda found: f"    {said}", before)
        elif re.search(r"^\[core\]", before, re.MULTILINE):
            after = re.sub(
                r"^\[core\].*$", lambda found: f"{found[0]}\n    {said}", before, count=1, flags=re.MULTILINE
            )
        else:
            after = f"[core]\n    {said}\n{before}"
        if after != before:
            with draft(path) as part:
                part.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o600)
                part.write_text(after, encoding="utf-8")


def _lock_of_dvc(path: Path) -> FileLock:
    """Return a lock of DVC's, which takes it by flock too. Entering it raises an OSError where a DVC is writing now."""
    return FileLock(path, blocking=False, fallback_to_soft=False)


def _is_of_the_dead(path: Path, content: bytes) -> bool:
    """Return whether no process that DVC's list of who reads and writes names can have written it: it is no JSON, or a
    process of each number began after it was written, as when a machine starts again. DVC asks for the number alone,
    and would wait for a stranger."""
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


def stream(
    root: Path, arguments: Sequence[str], on_line: Callable[[str], None], env: Mapping[str, str] | None = None
) -> int:
    """Run a DVC command whose lines are of interest while it runs, and return its exit code. What the stages in it tell
    are events (`quickstudy.system.progress`); DVC itself prints text."""
    own = keep_private(root)
    _mend(root, arguments)
    return processes.stream([*DVC, *arguments], root, on_line, {**asking(), **own, **(env or {})})


def run(command: list[str], root: Path) -> "subprocess.CompletedProcess[str]":
    """Run git or DVC to its end, and once more where it was killed; both outputs are kept as text.

    Raises:
        QuickstudyError: it is not installed.
    """
    is_dvc = command[: len(DVC)] == [*DVC]
    own = keep_private(root) if is_dvc else {}
    try:
        for last in (False, True):
            if is_dvc:
                _mend(root, command[len(DVC) :])
            done = subprocess.run(
                command,
                cwd=root,
                env={**os.environ, **own},
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                check=False,
            )
            if last or done.returncode != -signal.SIGKILL:  # killed, as where memory runs out: once more
                break
        return done
    except FileNotFoundError:
        raise QuickstudyError(f"{command[0]} is not installed", fix=f"Install {command[0]}") from None


def run_bytes(
    command: list[str], root: Path, env: Mapping[str, str] | None = None, stdin: bytes | None = None
) -> bytes:
    """Run git to its end and return what it prints, where that is not text.

    Raises:
        QuickstudyError: it fails; says what it has said.
    """
    done = subprocess.run(
        command, cwd=root, capture_output=True, input=stdin, env={**os.environ, **(env or {})}, check=False
    )
    if done.returncode != 0:
        raise QuickstudyError(done.stderr.decode(errors="replace").strip().removeprefix("error: "), where=root)
    return done.stdout


def git_path(root: Path, name: str) -> Path:
    """Return where git keeps something of a repository or worktree ("index", "objects")."""
    return (root / run_git(root, "rev-parse", "--git-path", name).strip()).resolve()


def run_git(root: Path, *arguments: str) -> str:
    """Run git and return what it prints.

    Raises:
        QuickstudyError: it fails.
    """
    done = run(["git", *arguments], root)
    if done.returncode != 0:
        raise_known(done.stderr, root)
        raise QuickstudyError(f"git {arguments[0]} failed: {done.stderr}", where=root)
    return done.stdout


def run_dvc(root: Path, *arguments: str) -> str:
    """Run DVC and return what it prints.

    Raises:
        QuickstudyError: it fails.
        Busy: another DVC command holds the workspace.
    """
    done = run([*DVC, *arguments], root)
    if done.returncode != 0:
        raise_known(done.stderr, root)
        raise QuickstudyError(f"dvc {arguments[0]} failed: {done.stderr.removeprefix('ERROR: ')}", where=root)
    return done.stdout


def raise_known(text: str, root: Path) -> None:
    """Raise what git or DVC has said, where it is a failure that a user can mend; else return.

    Raises:
        QuickstudyError: no repository, a folder of another user's, no space left.
        Busy: another DVC command holds the workspace.
    """
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
