"""Folders that nobody else on this machine can put anything into.

A name that can be guessed, in a folder that everybody may write to, is whoever's came first. What is found there is
believed by libraries that load it as code (pickles), follow it as a link or wait for its lock.
"""

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from quickstudy.errors import QuickstudyError


def private_folder(path: Path, within: Path, anew: bool = False) -> Path:
    """Return a folder that only this user can read and write, made where it is missing.

    Args:
        path: the folder.
        within: one of those above it; this, and all between, may be changed by this user, its owner and root alone.
        anew: one of this user's that others can write to is emptied, as what lies there may be theirs; else refused.

    Raises:
        QuickstudyError: it, or one above it, belongs to another user, can be written to by others, or is a link.
    """
    owner = within.stat().st_uid
    between = [folder for folder in reversed(path.parents) if folder == within or within in folder.parents]
    for folder in between:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o755)
        _check(folder, owner, link=folder == within)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    about = path.lstat()
    if anew and stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and about.st_mode & 0o022:
        shutil.rmtree(path)
        path.mkdir(mode=0o700)
    _check(path, os.geteuid())
    if path.lstat().st_mode & 0o077:
        path.chmod(0o700)
    return path


def check_private(path: Path) -> None:
    """Check a folder that a person has named, and all above it, as `private_folder` does.

    Raises:
        QuickstudyError: as there.
    """
    for folder in [*reversed(path.absolute().parents), path]:
        _check(folder, os.geteuid(), link=True)


def temporary_folder() -> Path | None:
    """Return this user's own folder for temporary files: the one that is set, where nobody else may write to it, else
    one within it, or in the home where its name is taken. None where there can be none."""
    usual = Path(tempfile.gettempdir())
    with contextlib.suppress(OSError):
        about = usual.stat()
        if about.st_uid == os.geteuid() and not about.st_mode & 0o022:
            return usual
        if not about.st_mode & stat.S_ISVTX and about.st_mode & 0o022:
            return _in_home()  # whoever may write there may put another folder in the place of ours
    return _own(usual / f"quickstudy-{os.geteuid()}") or _in_home()


def _in_home() -> Path | None:
    with contextlib.suppress(RuntimeError, OSError):
        return _own(Path.home() / ".cache" / "quickstudy" / "tmp")
    return None


def _own(path: Path) -> Path | None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return private_folder(path, path.parent)
    except (OSError, QuickstudyError):
        return None


def _check(folder: Path, owner: int, link: bool = False) -> None:
    about = folder.stat() if link else folder.lstat()
    if not stat.S_ISDIR(about.st_mode):
        what = "is a link" if stat.S_ISLNK(about.st_mode) else "is no folder"
    elif about.st_uid not in (os.geteuid(), owner, 0):
        what = f"belongs to another user ({about.st_uid})"
    elif about.st_mode & stat.S_IWOTH and not about.st_mode & stat.S_ISVTX:
        what = "can be written to by every user of this machine"
    else:
        return
    raise QuickstudyError(
        f"{what}, who could have this project run code of theirs",
        where=folder,
        fix=f"If you trust what lies there: chown and chmod o-w {folder}; else remove it",
    )


@contextlib.contextmanager
def shared_lock_file(path: Path) -> Iterator[int | None]:
    """Give a file for flock that users of this machine share, in a folder that everybody may write to. Its content is
    never read or changed, and no link is followed.

    Returns:
        its descriptor; None where another user has put something there that cannot be locked.
    """
    handle = None
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for create in (False, True, False):  # twice, as another may make it in between
        try:
            # For reading alone: that is enough for flock, and the right to do so whoever has made the file.
            handle = os.open(path, flags | (os.O_RDONLY | os.O_CREAT | os.O_EXCL if create else os.O_RDONLY), 0o644)
            break
        except (FileNotFoundError, FileExistsError):
            continue
        except OSError:
            break
    if handle is not None and not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        handle = None
    if handle is None:
        yield None
        return
    try:
        if os.fstat(handle).st_uid == os.geteuid():
            os.fchmod(handle, 0o644)  # whatever this user's umask is
        yield handle
    finally:
        os.close(handle)
