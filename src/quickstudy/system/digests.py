"""A registered model's files carry digests, so that one that was changed is not loaded."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from quickstudy.errors import QuickstudyError

DIGESTS = "digests.json"
"""Beside the files of a registered model: their digests, for who loads it by MLflow alone."""


def file_digests(folder: Path) -> dict[str, str]:
    """Return the sha256 in hex of each file by its path in the folder, but for the one that holds them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / DIGESTS:
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check_files(folder: Path, wanted: Mapping[str, str], where: object) -> None:
    """Check that a model's files are those that were registered.

    Args:
        wanted: see `file_digests`. where: what the model is called.

    Raises:
        QuickstudyError: one was changed, added or is missing.
    """
    there = file_digests(folder)
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) == there.get(name):
            continue
        what = "is missing" if name not in there else "was added" if name not in wanted else "was changed"
        raise QuickstudyError(
            f"{name} {what} since the model was registered (in {folder})",
            where=where,
            fix="Restore the file from a backup of MLflow's artifacts, or take another version: quickstudy history",
        )
