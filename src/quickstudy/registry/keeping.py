"""What goes into MLflow beside a run, and what does not: no secret, and no file that nobody asked for."""

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from quickstudy.secrets import is_secret_file, masked, redacted
from quickstudy.versions import git, lineage

TEXTS = (".csv", ".htm", ".html", ".ini", ".json", ".jsonl", ".md", ".svg", ".toml", ".tsv", ".txt", ".yaml", ".yml")
"""How the names of files end that are text."""

LARGEST_TEXT = 20_000_000
"""Bytes of a text that is looked through."""


def log_file(client: Any, run_id: str, path: Path) -> None:
    """Bring a text file beside a run, as `quickstudy.versions.lineage.kept` reads it."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name
        copy.write_bytes(lineage.kept(path))
        client.log_artifact(run_id, str(copy))


def log_folder(client: Any, run_id: str, folder: Path, name: str) -> None:
    """Bring what a stage has made beside a run, its texts without the passwords in the addresses that they name."""
    if not any(_differs(path) for path in folder.rglob("*") if path.is_file()):
        client.log_artifacts(run_id, str(folder), name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy_folder(folder, Path(scratch) / name)
        client.log_artifacts(run_id, str(Path(scratch) / name), name)


def copy_folder(folder: Path, to: Path) -> None:
    """Copy what a stage has made; files named as secrets are do not come along, and texts name no passwords."""
    shutil.copytree(folder, to, ignore=lambda _, names: [name for name in names if is_secret_file(name)])
    for path in to.rglob("*"):
        if path.is_file() and _differs(path):
            path.write_bytes(lineage.kept(path))


def copy_code(package: Path, to: Path, suspect: Collection[str]) -> None:
    """Copy the code that loads a model: what git tracks of the package, and new code that git does not ignore. Of an
    installed package, which is in no repository, all but what is named as secrets are.

    Args:
        suspect: names of files, as `Path.name`, in which secrets were seen: they are blanked out.
    """
    for name in git.files_of(package) or _installed(package):
        source, copy = package / name, to / name
        if is_secret_file(name) or not source.is_file():
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        if copy.name in suspect:
            copy.write_text(masked(copy.read_text(encoding="utf-8", errors="replace"), name), encoding="utf-8")


def _installed(package: Path) -> list[str]:
    found = (path.relative_to(package) for path in sorted(package.rglob("*")) if path.is_file())
    return [path.as_posix() for path in found if "__pycache__" not in path.parts]


def _differs(path: Path) -> bool:
    if is_secret_file(path.name):
        return True
    if path.suffix.lower() not in TEXTS or path.stat().st_size > LARGEST_TEXT:
        return False
    text = path.read_bytes().decode(errors="surrogateescape")
    return redacted(text) != text
