"""Is there anything to look into: new data, deliveries? Cheap enough to ask every few seconds.

`quickstudy up` asks, and starts the deployment watch (flows/watch.py) where there is; that does the work.
"""

import hashlib
import json
from pathlib import Path

from quickstudy.system.atomic import write_json

SEEN = Path(".cache") / "watch.json"
"""How data/ looked when it last got a version, and that version."""


def reasons(root: Path, inbox: str) -> dict[str, str]:
    """Return what there is to look into, and a digest of how it is now: "data" or "inbox"."""
    found = {}
    now = signature(root / "data")
    if now is not None and version_of(root, now) is None:
        found["data"] = now
    if deliveries(root / inbox):
        found["inbox"] = signature(root / inbox) or ""
    return found


def deliveries(inbox: Path) -> bool:
    """Return whether something lies in a folder of a dataset in the inbox."""
    return any(
        not entry.name.startswith(".")
        for folder in (inbox.iterdir() if inbox.is_dir() else ())
        if folder.is_dir() and not folder.name.startswith(".")
        for entry in folder.iterdir()
    )


def signature(folder: Path) -> str | None:
    """Return a digest of the names, sizes and times of the files in a folder; None where there are none."""
    digest, files = hashlib.sha256(), 0
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except FileNotFoundError:  # it goes away while we look
            continue
        if path.is_file():
            files += 1
            digest.update(f"{path.relative_to(folder)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest() if files else None


def version_of(root: Path, now: str) -> str | None:
    """Return the version that data/ got when it looked like this; None where it never did."""
    try:
        seen = json.loads((root / SEEN).read_text(encoding="utf-8"))
        return str(seen["version"]) if seen["signature"] == now else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(root: Path, now: str, version: str) -> None:
    """Say that data/ has this version while it looks like this."""
    write_json(root / SEEN, {"signature": now, "version": version})
