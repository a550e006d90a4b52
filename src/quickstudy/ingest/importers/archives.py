"""The files of a source, be it a folder, a .zip or one file, read so that no name leads out of it.

Nothing is ever unpacked to disk. Sizes are counted while bytes are read: an archive's own words are not believed.
"""

import io
import os
import re
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.zip_names import member_names

MAX_FILE = 256 << 20  # bytes of one file
MAX_TOTAL = 2 << 30  # bytes of all files that are read: they are held in memory
MAX_FILES = 1_000_000
# Deflate reaches 1032:1 on a blank picture, real archives 20:1. Only above a size that could hurt does the ratio count.
MAX_RATIO = 200
RATIO_COUNTS_FROM = 50 << 20
_CHUNK = 1 << 20
_LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"})
# Of hidden folders these are a program's own; any other, as .net among the names of languages, is taken for a class.
_HIDDEN = re.compile(
    r"\.(?:_.*|git|svn|hg|bzr|dvc|cache|config|ds_store|ipynb_checkpoints|vscode|idea|vs|settings|github|gitlab|circleci"
    r"|venv|env|virtualenv|tox|nox|eggs|mypy_cache|pytest_cache|ruff_cache|prefect|mlflow|huggingface|kaggle|streamlit"
    r"|appledouble|applesingle|spotlight-v100|fseventsd|temporaryitems|documentrevisions-v100|trash.*|thumbnails|sync"
    r"|dropbox.*|tmp.*|temp|local|ssh|aws|docker|label-studio|comments|xvpics)"
)
_POINTER = b"version https://git-lfs.github.com/spec/"


class Files(ABC):
    """Paths inside a source, ``a/b.png``, sorted; hidden files and what systems leave behind are not among them."""

    is_one = False
    """Whether the source is itself the only file."""

    def __init__(self, source: Path, paths: list[str]):
        self.source = source
        self.paths = sorted(paths)
        self.total = 0
        self.notes: list[str] = []
        """What was decided where the source leaves a choice, a line each."""

    @abstractmethod
    def _open(self, path: str) -> BinaryIO:
        """A file, for reading from its beginning."""

    def open(self, path: str) -> BinaryIO:
        """A file, for reading from its beginning.

        Raises:
            QuickstudyError: it cannot be read, or is what Git LFS leaves in a file's place.
        """
        handle = self._open(path)
        pointer = handle.read(len(_POINTER)) == _POINTER
        handle.seek(0)
        if pointer:
            handle.close()
            fix = "Fetch the files themselves: git lfs pull"
            what = "a Git LFS pointer, and not the file"
            if self.is_one:
                raise QuickstudyError(what, where=self.source, fix=fix)
            raise QuickstudyError(f"{path} is {what}", where=self.source, fix=fix)  # others will be, too
        return handle

    def path_of(self, file: Path) -> str | None:
        """What a file on disk is called among these; None where it is none of them."""
        return None

    def read(self, path: str) -> bytes:
        """All of a file."""
        with self.open(path) as handle:
            data = handle.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise QuickstudyError(f"larger than {MAX_FILE >> 20} MB", where=self.place(path), fix=_SPLIT)
        self.count(len(data))
        return data

    def count(self, size: int) -> None:
        """Add to the bytes read so far.

        Raises:
            QuickstudyError: they are more than a dataset may hold.
        """
        self.total += size
        if self.total > MAX_TOTAL:
            raise QuickstudyError(f"holds more than {MAX_TOTAL >> 20} MB", where=self.source, fix=_SPLIT)

    def place(self, path: str) -> str:
        """Where a file is, for a message."""
        return f"{self.source}/{path}"


_SPLIT = "Import a part of it"


class Folder(Files):
    """A folder on disk. A link is followed where it leads to what lies inside, or inside the hub's cache.

    Args:
        only: the folders directly in it that count; None: all that lies in it.
        follow_links: follow all others, too.
    """

    def __init__(self, source: Path, only: Collection[str] | None = None, follow_links: bool = False):
        self.root = _snapshot(source.resolve())
        self._only = only
        self._within = None if follow_links else [self.root, *_blobs(self.root)]
        super().__init__(source, [])
        self.paths = sorted(self._walk(self.root, "", (self.root,)))
        if len(self.paths) > MAX_FILES:
            raise QuickstudyError(f"more than {MAX_FILES:,} files", where=source, fix=_SPLIT)

    def _walk(self, folder: Path, path: str, above: tuple[Path, ...]) -> Iterator[str]:
        """The paths of the files below a folder.

        Args:
            path: of it, from the root; "" is the root. above: where it and the folders that it lies in really are.
        """
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise QuickstudyError(f"cannot be read ({error.strerror})", where=error.filename) from None
        for entry in entries:
            here = f"{path}/{entry.name}" if path else entry.name
            if _is_litter(entry.name):
                continue
            try:
                here.encode("utf-8")
            except UnicodeEncodeError:
                raise QuickstudyError("a file name is not UTF-8", where=ascii(here), fix="Rename it") from None
            real = self._followed(Path(entry.path), here) if entry.is_symlink() else None
            if entry.is_dir():
                if self._only is not None and folder == self.root and entry.name not in self._only:
                    continue
                if real in above:
                    fix = "Remove it"
                    raise QuickstudyError("a link to a folder that it lies in", where=self.place(here), fix=fix)
                yield from self._walk(Path(entry.path), here, (*above, real or Path(entry.path)))
            elif entry.name.startswith(".") or (self._only is not None and folder == self.root):
                continue
            elif not stat.S_ISREG(entry.stat().st_mode):
                raise QuickstudyError("not a regular file", where=self.place(here), fix="Remove it")
            else:
                yield here

    def _followed(self, link: Path, path: str) -> Path:
        """Where a link leads.

        Raises:
            QuickstudyError: to nothing, or out of the source.
        """
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):  # a loop of links
            raise QuickstudyError("a link to nothing", where=self.place(path), fix="Remove it") from None
        if self._within is not None and not any(target.is_relative_to(root) for root in self._within):
            kind = "folder" if target.is_dir() else "file"
            what = f"a link to a {kind} outside the source"
            fix = "Put the files themselves in its place, or follow such links by --follow-links"
            raise QuickstudyError(what, where=self.place(path), fix=fix)
        return target

    def path_of(self, file: Path) -> str | None:
        full = file.resolve()
        return full.relative_to(self.root).as_posix() if full.is_relative_to(self.root) else None

    def _open(self, path: str) -> BinaryIO:
        try:
            return open(self.root / path, "rb")
        except OSError as error:
            raise QuickstudyError(f"cannot be read ({error.strerror})", where=self.place(path)) from None


def _snapshot(root: Path) -> Path:
    """The files themselves, where a folder is a dataset in the hub's cache: snapshots/REVISION, of its newest one."""
    snapshots = root / "snapshots"
    if not (snapshots.is_dir() and (root / "blobs").is_dir()):
        return root
    try:
        named = snapshots / (root / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        named = snapshots
    if named != snapshots and named.parent == snapshots and named.is_dir():
        return named
    there = [folder for folder in snapshots.iterdir() if folder.is_dir()]
    return max(there, key=lambda folder: (folder.stat().st_mtime, folder.name), default=root)


def _blobs(root: Path) -> list[Path]:
    """Where the links of a snapshot in the hub's cache lead: blobs, beside the folder of the snapshots."""
    above = [folder.parent / "blobs" for folder in (root, *root.parents) if folder.name == "snapshots"]
    return [blobs for blobs in above[:1] if blobs.is_dir()]


class Single(Files):
    """One file that is a source of its own."""

    is_one = True

    def __init__(self, source: Path):
        super().__init__(source, [source.name])

    def _open(self, path: str) -> BinaryIO:
        try:
            return open(self.source, "rb")
        except OSError as error:
            raise QuickstudyError(f"cannot be read ({error.strerror})", where=self.source) from None

    def place(self, path: str) -> str:
        return str(self.source)


class Zip(Files):
    """The members of a .zip.

    Args:
        encoding: of the names that do not say theirs; None: it is found out.
    """

    def __init__(self, source: Path, archive: zipfile.ZipFile, encoding: str | None = None):
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._size = source.stat().st_size
        self._packed = 0
        if len(archive.infolist()) > MAX_FILES:
            raise QuickstudyError(f"more than {MAX_FILES:,} files", where=source, fix=_SPLIT)
        names, note = member_names(archive.infolist(), encoding, source)
        for member, name in zip(archive.infolist(), names, strict=True):
            path = name.replace("\\", "/")  # packed by a program that writes the separator of Windows
            parts = path.split("/")
            if ".." in parts or path.startswith("/") or "\0" in path or ":" in parts[0]:
                fix = "Pack the folder again with plain relative paths"
                raise QuickstudyError(f"member {name!r} leads out of the archive", where=source, fix=fix)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise QuickstudyError(f"member {path!r} is a link", where=source, fix="Pack the file itself")
            if member.is_dir() or path.endswith("/") or any(map(_is_litter, parts)) or parts[-1].startswith("."):
                continue
            if path in self._members:
                raise QuickstudyError(f"two members are named {path!r}", where=source, fix="Pack the folder again")
            if member.flag_bits & 1:
                fix = "Unpack it with its password and import the folder"
                raise QuickstudyError(f"member {path!r} is encrypted", where=source, fix=fix)
            self._members[path] = member
        super().__init__(source, list(self._members))
        if note is not None:
            self.notes.append(note)

    def _open(self, path: str) -> BinaryIO:
        return io.BytesIO(self._unpack(path))

    def _unpack(self, path: str) -> bytes:
        member = self._members[path]
        self._packed = min(self._packed + member.compress_size, self._size)
        blocks: list[bytes] = []
        size = 0
        try:
            with self._archive.open(member) as handle:
                while block := handle.read(_CHUNK):
                    blocks.append(block)
                    size += len(block)
                    self._refuse_bomb(size, path)
        except NotImplementedError as error:
            fix = "Pack the folder again, by `zip -r`"
            raise QuickstudyError(f"cannot be unpacked ({error})", where=self.place(path), fix=fix) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            if isinstance(error, QuickstudyError):
                raise
            raise QuickstudyError(f"damaged in the archive ({error or 'cut short'})", where=self.place(path)) from None
        return b"".join(blocks)

    def _refuse_bomb(self, size: int, path: str) -> None:
        unpacked = self.total + size
        if unpacked > RATIO_COUNTS_FROM and unpacked > MAX_RATIO * self._packed:
            what = f"unpacks to more than {MAX_RATIO} times its size (at {path}), as archives made to fill a disk do"
            raise QuickstudyError(what, where=self.source, fix="If you trust it, unpack it and import the folder")
        if size > MAX_FILE:
            raise QuickstudyError(f"larger than {MAX_FILE >> 20} MB", where=self.place(path), fix=_SPLIT)


@contextmanager
def open_source(
    source: Path,
    only: Collection[str] | None = None,
    *,
    encoding: str | None = None,
    follow_links: bool = False,
) -> Iterator[Files]:
    """The files of a folder, of a .zip, or the one file that ``source`` is.

    Args:
        source: that is read.
        only: of a folder, the folders directly in it that count.
        encoding: of the names in a .zip that do not say theirs; None: it is found out.
        follow_links: of a folder, follow also links that lead out of it.

    Raises:
        QuickstudyError: there is nothing, or it cannot be opened, or a path in it leads out of it.
    """
    if not source.exists():
        raise QuickstudyError("there is no such file or folder", where=source, fix="Check the path")
    if source.is_dir():
        yield Folder(source, only, follow_links)
        return
    if not source.is_file():
        raise QuickstudyError("not a regular file", where=source, fix="Name a file, a .zip or a folder")
    Single(source).open(source.name).close()  # what Git LFS leaves is told before it is taken for anything
    if source.suffix.lower() == ".zip":
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            what = f"not a complete .zip archive ({str(error).lower() or 'cut short'})"
            raise QuickstudyError(what, where=source, fix="Download or pack it again") from None
        except OSError as error:
            raise QuickstudyError(f"cannot be read ({error.strerror or error})", where=source) from None
        with archive:
            yield Zip(source, archive, encoding)
    else:
        yield Single(source)


def _is_litter(name: str) -> bool:
    return name in _LITTER or _HIDDEN.fullmatch(name.lower()) is not None
