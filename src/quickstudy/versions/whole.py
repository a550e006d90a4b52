"""Whether files still are what DVC wrote down of them, byte by byte.

DVC itself asks the file system when a file was last changed, and trusts what lies read-only in its cache: a flipped bit
is restored like any other, and then is the model that everybody judges and registers.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from quickstudy.data.contents import FILE
from quickstudy.data.written import is_remembered, md5_of, remember_written, unknown
from quickstudy.errors import QuickstudyError
from quickstudy.versions.command import run_dvc
from quickstudy.versions.stale import read_lock

ASIDE = Path(".dvc") / "tmp" / "damaged"
"""Where broken objects of DVC's cache are kept, for whoever wants to see what became of them."""


def damaged(root: Path, stage: str | None = None) -> list[str]:
    """Return the outputs of a stage, or of all stages, that are there and are not what dvc.lock says."""
    return [path for path, md5 in _locked(root, stage) if (root / path).exists() and hash_of(root / path) != md5]


def check_outputs(root: Path) -> None:
    """Check that what the stages have made is what dvc.lock says, before others are told that it is.

    Raises:
        QuickstudyError: a file was changed since.
    """
    for path in damaged(root):
        raise QuickstudyError(
            "is not what its stage made: the bytes differ from those that dvc.lock names",
            where=root / path,
            fix="`quickstudy run` brings it back",
        )


def throw_out(root: Path, outputs: list[str]) -> list[str]:
    """Remove outputs that are damaged, and take what is broken of them out of DVC's cache, so that they are restored
    from elsewhere or made anew.

    Returns:
        the md5 of each broken object.
    """
    wanted = dict(_locked(root, None))
    broken: list[str] = []
    for path in outputs:
        broken += set_objects_aside(root, wanted[path])
        if (root / path).is_dir():
            shutil.rmtree(root / path)
        else:
            (root / path).unlink(missing_ok=True)
    return broken


def set_objects_aside(root: Path, md5: str) -> list[str]:
    """Take what is broken of a file or folder out of DVC's cache.

    Args:
        md5: by which DVC knows it; of a folder with ``.dir``.

    Returns:
        the md5 of each broken object.
    """
    cache = cache_folder(root)
    broken = []
    for name in (md5, *dict(listed(cache, md5)).values()):
        path = object_at(cache, name)
        if path.exists() and md5_of(path) != name.removesuffix(".dir"):
            (root / ASIDE).mkdir(parents=True, exist_ok=True)
            shutil.move(path, root / ASIDE / name)
            broken.append(name)
    return broken


def check_data(root: Path) -> None:
    """Check that the examples of each dataset are of bytes that somebody has written: our own verbs, or DVC from a
    version. Those of a dataset that was never seen before are taken as they are.

    Raises:
        QuickstudyError: they were changed in any other way.
    """
    for name, md5 in unknown(root / "data"):
        folder = root / "data" / name
        versions = set(_versions_of(root, f"{name}/{FILE}"))
        if md5 not in versions and (versions or is_remembered(folder)):
            raise QuickstudyError(
                "its bytes are not those that were imported: the file is damaged, or was changed by hand",
                where=folder / FILE,
                fix=f"Bring it back (dvc checkout --force data.dvc), or: quickstudy data accept {name}",
            )
        remember_written(folder)


def check_restored(root: Path, version: str) -> list[str]:
    """Return the files of data/ that are not those of a version which DVC has just brought here; what is broken of it
    is taken out of DVC's cache."""
    cache = cache_folder(root)
    wrong = [
        path
        for path, md5 in listed(cache, version)
        if (root / "data" / path).exists() and md5_of(root / "data" / path) != md5
    ]
    if wrong or not object_at(cache, version).exists():
        set_objects_aside(root, version)
    for path in wrong:
        (root / "data" / path).unlink()
    return wrong


def hash_of(path: Path) -> str:
    """Return DVC's hash of a file, or of a folder: the md5 of the list of its files."""
    if not path.is_dir():
        return md5_of(path)
    files = sorted(
        (file.relative_to(path).as_posix(), file)
        for file in path.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc"  # .dvcignore
    )
    entries = [
        {"md5": md5_of(file), "relpath": name} for name, file in sorted(files, key=lambda one: one[0].split("/"))
    ]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest() + ".dir"


def cache_folder(root: Path) -> Path:
    """Return where DVC's cache of this clone is."""
    return (root / run_dvc(root, "cache", "dir").strip()).resolve()


def object_at(cache: Path, md5: str) -> Path:
    """Return where DVC's cache keeps what has this md5."""
    return cache / "files" / "md5" / md5[:2] / md5[2:]


def listed(cache: Path, md5: str) -> list[tuple[str, str]]:
    """Return path and md5 of each file of a folder that DVC's cache holds; nothing where it lacks it, or of a file."""
    if not md5.endswith(".dir"):
        return []
    try:
        entries = json.loads(object_at(cache, md5).read_text(encoding="utf-8"))
        return [(str(entry["relpath"]), str(entry["md5"])) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _versions_of(root: Path, path: str) -> Iterator[str]:
    """The md5 that a file of data/ has in each version in DVC's cache."""
    cache = cache_folder(root)
    for found in (cache / "files" / "md5").glob("*/*.dir"):
        yield from (md5 for name, md5 in listed(cache, found.parent.name + found.name) if name == path)


def _locked(root: Path, stage: str | None) -> list[tuple[str, str]]:
    """Path and hash of the outputs of a stage, or of all."""
    lock: Mapping[str, Any] = read_lock(root)
    found = (entry for name, entry in lock.items() if stage in (None, name))
    return [
        (os.fspath(out["path"]), str(out["md5"]))
        for entry in found
        for out in entry.get("outs", [])
        if out.get("hash") == "md5" and "md5" in out
    ]
