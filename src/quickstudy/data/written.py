"""Which bytes we have written as the examples of a dataset: what they are otherwise, nobody has said.

DVC makes a new version of whatever lies in data/, a file with a flipped bit as well. A person who changes a file by
hand says so: `quickstudy data accept`.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quickstudy.data.contents import FILE, stored_at
from quickstudy.system.atomic import write_json

FOLDER = Path(".cache") / "written"
"""Where a project remembers it, a file for each dataset; `make clean` leaves it."""

KEPT = 16
"""So many of the latest are remembered: what was there before comes back when somebody goes back to another version."""


def md5_of(path: Path) -> str:
    """Return the md5 of a file in hex, by which DVC knows it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def remember_written(folder: Path, part: Path | None = None) -> None:
    """Remember the examples of a dataset as they are now, or as they will be when ``part`` takes their place.

    Args:
        folder: data/NAME.
    """
    stamp = None if part else list(stored_at(folder).stamp)
    _remember(folder, md5_of(part or folder / FILE), stamp)


def unknown(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the name of each dataset whose examples are not those that we have written, and their md5. A file that the
    file system says is the one of the last time is not read again.

    Args:
        root: of the data.
    """
    for path in sorted(root.glob(f"*/{FILE}")):
        folder, stamp = path.parent, list(stored_at(path.parent).stamp)
        record = _recall(folder)
        if record["stamp"] == stamp:
            continue
        found = md5_of(path)
        if found in record["known"]:
            _remember(folder, found, stamp)
        else:
            yield folder.name, found


def is_remembered(folder: Path) -> bool:
    """Return whether anything was ever remembered of a dataset."""
    return bool(_recall(folder)["known"])


def _remember(folder: Path, md5: str, stamp: list[int] | None) -> None:
    known = [md5, *(other for other in _recall(folder)["known"] if other != md5)][:KEPT]
    write_json(_record_of(folder), {"known": known, "stamp": stamp})


def _recall(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads(_record_of(folder).read_text(encoding="utf-8"))
        return {"known": [str(md5) for md5 in record["known"]], "stamp": record["stamp"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {"known": [], "stamp": None}


def _record_of(folder: Path) -> Path:
    return folder.parent.parent / FOLDER / f"{folder.name}.json"
