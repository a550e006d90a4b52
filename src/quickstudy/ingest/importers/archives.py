"""The files of a source, be it a folder, a .zip or one file, read so that no name leads out of it.

Nothing is ever unpacked to disk. Sizes are counted while bytes are read: an archive's own words are not believed.
"""

import io
import os
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from quickstudy.errors import QuickstudyError

MAX_FILE = 256 << 20  # bytes of one file
MAX_TOTAL = 2 << 30  # bytes of all files that are read: they are held in memory
MAX_FILES = 1_000_000
# Deflate reaches 1032:1 on a blank picture, real archives 20:1. Only above a size that could hurt does the ratio count.
MAX_RATIO = 200
RATIO_COUNTS_FROM = 50 << 20
_CHUNK = 1 << 20
_LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})


class Files(ABC):
    """Paths inside a source, ``a/b.png``, sorted; hidden files and what systems leave behind are not among them."""

    is_one = False
    """Whether the source is itself the only file."""

    def __init__(self, source: Path, paths: list[str]):
        self.source = source
        self.paths = sorted(paths)
        self.total = 0

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """A file, for reading from its beginning."""

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
    """A folder on disk. A link may point to a file inside; one that leads out, or to a folder, is refused.

    Args:
        only: the folders directly in it that count; None: all that lies in it.
    """

    def __init__(self, source: Path, only: Collection[str] | None = None):
        self.root = source.resolve()
        self._only = only
        super().__init__(source, [])
        self.paths = sorted(self._walk())

    def _walk(self) -> Iterator[str]:
        count = 0
        for folder, folders, files in os.walk(self.root, onerror=self._cannot):
            folders[:] = [name for name in folders if not _is_litter(name)]
            if self._only is not None and Path(folder) == self.root:
                folders[:], files = [name for name in folders if name in self._only], []
            for name in [*folders, *files]:  # a link to a folder is listed among the folders, and not walked
                full = Path(folder, name)
                if _is_litter(name) or (full.is_dir() and not full.is_symlink()):
                    continue
                path = full.relative_to(self.root).as_posix()
                try:
                    path.encode("utf-8")
                except UnicodeEncodeError:
                    raise QuickstudyError("a file name is not UTF-8", where=ascii(path), fix="Rename it") from None
                self._check(full, path)
                count += 1
                if count > MAX_FILES:
                    raise QuickstudyError(f"more than {MAX_FILES:,} files", where=self.source, fix=_SPLIT)
                yield path

    def _check(self, full: Path, path: str) -> None:
        if full.is_symlink():
            target = full.resolve()
            if not target.exists():
                raise QuickstudyError("a link to nothing", where=self.place(path), fix="Remove it")
            if target.is_dir() or not target.is_relative_to(self.root):
                kind = "folder" if target.is_dir() else "file outside the source"
                fix = "Put the files themselves in its place"
                raise QuickstudyError(f"a link to a {kind}", where=self.place(path), fix=fix)
        if not stat.S_ISREG(full.stat().st_mode):
            raise QuickstudyError("not a regular file", where=self.place(path), fix="Remove it")

    def _cannot(self, error: OSError) -> None:
        raise QuickstudyError(f"cannot be read ({error.strerror})", where=error.filename)

    def path_of(self, file: Path) -> str | None:
        full = file.resolve()
        return full.relative_to(self.root).as_posix() if full.is_relative_to(self.root) else None

    def open(self, path: str) -> BinaryIO:
        try:
            return open(self.root / path, "rb")
        except OSError as error:
            raise QuickstudyError(f"cannot be read ({error.strerror})", where=self.place(path)) from None


class Single(Files):
    """One file that is a source of its own."""

    is_one = True

    def __init__(self, source: Path):
        super().__init__(source, [source.name])

    def open(self, path: str) -> BinaryIO:
        try:
            return open(self.source, "rb")
        except OSError as error:
            raise QuickstudyError(f"cannot be read ({error.strerror})", where=self.source) from None

    def place(self, path: str) -> str:
        return str(self.source)


class Zip(Files):
    """The members of a .zip."""

    def __init__(self, source: Path, archive: zipfile.ZipFile):
        self._archive = archive
        self._members: dict[str, zipfile.ZipInfo] = {}
        self._size = source.stat().st_size
        self._packed = 0
        if len(archive.infolist()) > MAX_FILES:
            raise QuickstudyError(f"more than {MAX_FILES:,} files", where=source, fix=_SPLIT)
        for member in archive.infolist():
            path = member.filename
            parts = path.split("/")
            # Python reads "a\b" as a name on one system and as a path on another; neither is wanted.
            if ".." in parts or path.startswith("/") or "\\" in path or "\0" in path or ":" in parts[0]:
                fix = "Pack the folder again with plain relative paths"
                raise QuickstudyError(f"member {path!r} leads out of the archive", where=source, fix=fix)
            if stat.S_ISLNK(member.external_attr >> 16):
                raise QuickstudyError(f"member {path!r} is a link", where=source, fix="Pack the file itself")
            if member.is_dir() or any(_is_litter(part) for part in parts):
                continue
            if path in self._members:
                raise QuickstudyError(f"two members are named {path!r}", where=source, fix="Pack the folder again")
            if member.flag_bits & 1:
                fix = "Unpack it with its password and import the folder"
                raise QuickstudyError(f"member {path!r} is encrypted", where=source, fix=fix)
            self._members[path] = member
        super().__init__(source, list(self._members))

    def open(self, path: str) -> BinaryIO:
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
def open_source(source: Path, only: Collection[str] | None = None) -> Iterator[Files]:
    """The files of a folder, of a .zip, or the one file that ``source`` is.

    Args:
        source: that is read.
        only: of a folder, the folders directly in it that count.

    Raises:
        QuickstudyError: there is nothing, or it cannot be opened, or a path in it leads out of it.
    """
    if not source.exists():
        raise QuickstudyError("there is no such file or folder", where=source, fix="Check the path")
    if source.is_dir():
        yield Folder(source, only)
    elif not source.is_file():
        raise QuickstudyError("not a regular file", where=source, fix="Name a file, a .zip or a folder")
    elif source.suffix.lower() == ".zip":
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
            what = f"not a complete .zip archive ({str(error).lower() or 'cut short'})"
            raise QuickstudyError(what, where=source, fix="Download or pack it again") from None
        except OSError as error:
            raise QuickstudyError(f"cannot be read ({error.strerror or error})", where=source) from None
        with archive:
            yield Zip(source, archive)
    else:
        yield Single(source)


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name in _LITTER
