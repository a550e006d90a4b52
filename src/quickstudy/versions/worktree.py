"""Git worktrees in which a recorded commit is brought back, with DVC's cache."""

import configparser
import re
import shutil
from pathlib import Path

from quickstudy.system.atomic import draft, write_bytes
from quickstudy.versions.command import NO_HOOKS, git_path, run_git
from quickstudy.versions.git import check_ref
from quickstudy.versions.whole import cache_folder


def add_worktree(root: Path, folder: Path, commit: str) -> Path:
    """Bring the files of a commit into a folder of their own, beside the user's working copy, which is not touched.

    DVC there has this clone's remotes, and its cache is this clone's.

    Returns:
        the project's folder in it: ``folder``, or one below where the project is not the whole repository.

    Raises:
        QuickstudyError: git refuses.
    """
    check_ref(root, commit)
    run_git(root, *NO_HOOKS, "worktree", "add", "--force", "--detach", "--", str(folder), commit)
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
        git_path(folder, name).unlink(missing_ok=True)
    check_ref(root, commit)
    run_git(folder, *NO_HOOKS, "checkout", "--quiet", "--force", "--detach", commit, "--")
    run_git(folder, "clean", "--quiet", "-d", "--force", "--exclude=dvc.lock")
    if kept is not None:
        write_bytes(lock, kept)
    return _share_dvc(root, folder)


def project_in(root: Path, folder: Path) -> Path:
    """Return the project's folder in a worktree: ``folder``, or one below where the project is not the whole
    repository."""
    return folder / run_git(root, "rev-parse", "--show-prefix").strip()


def _share_dvc(root: Path, folder: Path) -> Path:
    """Give a worktree this clone's DVC cache and remotes, and return the project's folder in it."""
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


def remove_worktree(root: Path, folder: Path) -> None:
    """Remove what `add_worktree` made, in whatever state it is, and what git remembers of it."""
    shutil.rmtree(folder, ignore_errors=True)
    run_git(root, "worktree", "prune")
