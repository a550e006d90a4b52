"""A registered model's files carry digests, so that one that was changed is not loaded."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from quickstudy.errors import QuickstudyError

DIGESTS = "digests.json"
"""Beside the files of a registered model: their digests, for who loads it by MLflow alone."""


LEFT_BY_LOADING = ("registered_model_meta",)
"""Files that MLflow writes beside a model when it loads it from where it is stored; Python leaves ``__pycache__``."""


def file_digests(folder: Path) -> dict[str, str]:
    """Return the sha256 in hex of each file by its path in the folder, but for the one that holds them."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / DIGESTS:
            found[path.relative_to(folder).as_posix()] = file_digest(path)
    return found


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(artifacts: Path) -> dict[str, str]:
    """Return the sha256 of all that is stored of a model: of each file by its name, of each folder, as ``code/``, that
    of the list of what is in it. What whoever loads it leaves beside is not of it."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(artifacts.rglob("*")):
        inside = path.relative_to(artifacts)
        if path.is_file() and path.name not in LEFT_BY_LOADING and "__pycache__" not in inside.parts:
            top = f"{inside.parts[0]}/" if len(inside.parts) > 1 else inside.name
            found.setdefault(top, {})[inside.as_posix()] = file_digest(path)
    return {
        top: _listed(files) if top.endswith("/") else next(iter(files.values())) for top, files in sorted(found.items())
    }


def manifest_digest(manifest: Mapping[str, str]) -> str:
    """Return the sha256 that stands for a manifest."""
    return _listed(manifest)


def check_manifest(artifacts: Path, wanted: Mapping[str, str], where: object) -> None:
    """Check that all that is stored of a model, its code too, is what was registered.

    Args:
        wanted: see `manifest_of`. where: what the model is called.

    Raises:
        QuickstudyError: a part was changed, added or is missing.
    """
    _compare(wanted, manifest_of(artifacts), artifacts, where)


def _listed(files: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(files.items())).encode()).hexdigest()


def check_files(folder: Path, wanted: Mapping[str, str], where: object) -> None:
    """Check that a model's files are those that were registered.

    Args:
        wanted: see `file_digests`. where: what the model is called.

    Raises:
        QuickstudyError: one was changed, added or is missing.
    """
    _compare(wanted, file_digests(folder), folder, where)


def _compare(wanted: Mapping[str, str], there: Mapping[str, str], folder: Path, where: object) -> None:
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) == there.get(name):
            continue
        what = "is missing" if name not in there else "was added" if name not in wanted else "was changed"
        raise QuickstudyError(
            f"{name} {what} since the model was registered (in {folder})",
            where=where,
            fix="Restore the file from a backup of MLflow's artifacts, or take another version: quickstudy history",
        )
