"""What the inbox was doing when a process ended: a delivery that ends it twice is not read a third time.

A file that is made for it takes all memory, or for ever, whatever is asked of it before it is read; the process that
reads it is then killed, by its supervisor (`quickstudy data take`) or by the system, and can tell nobody. So it is
written down before each delivery what is read now, and taken back when that ends in any other way.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quickstudy.system.atomic import write_json

FILE = Path(".cache") / "inbox.json"
MOST = 2
"""So often a delivery may end the process that reads it, or take too much memory."""


@dataclass
class Journal:
    """Of one project. A key names a delivery by its dataset, its name and what is seen of it."""

    path: Path
    at: list[str] = field(default_factory=list)
    """Keys of what is read now."""
    failed: dict[str, int] = field(default_factory=dict)
    """Key → how often reading it has ended badly."""
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    """What became of those before, where the process has ended since."""

    @classmethod
    def open(cls, project: Path) -> "Journal":
        """Return it as the last process has left it; what that was reading has failed."""
        journal = cls(project / FILE)
        try:
            said = json.loads(journal.path.read_text(encoding="utf-8"))
            journal.failed = {str(key): int(count) for key, count in said["failed"].items()}
            journal.outcomes = [dict(one) for one in said["outcomes"]]
            ended = [str(key) for key in said["at"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return journal
        for key in ended:
            journal.failed[key] = journal.failed.get(key, 0) + 1
        if ended:
            journal._write()
        return journal

    @contextlib.contextmanager
    def reading(self, keys: Sequence[str]) -> Iterator[None]:
        """Note what is read in the body; what ends it without a word has failed, and so has what takes all memory."""
        self.at = list(keys)
        self._write()
        try:
            yield
        except MemoryError:
            for key in keys:
                self.failed[key] = self.failed.get(key, 0) + 1
            raise
        finally:
            self.at = []
            self._write()

    def has_failed(self, key: str) -> bool:
        """Return whether it is not to be read any more."""
        return self.failed.get(key, 0) >= MOST

    def note(self, outcomes: Iterable[dict[str, Any]]) -> None:
        """Remember what became of some, until all are through."""
        self.outcomes += outcomes
        self._write()

    def close(self, lying: Iterable[str]) -> None:
        """Forget what became of all of them, and the failures of those that no longer lie there."""
        self.outcomes = []
        still = set(lying)
        self.failed = {key: n for key, n in self.failed.items() if key in still or (still and key.startswith(SEVERAL))}
        if self.failed:
            self._write()
        else:
            self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        said = {"process": os.getpid(), "at": self.at, "failed": self.failed, "outcomes": self.outcomes}
        write_json(self.path, said)


def at_work(project: Path, process: int) -> list[str]:
    """Return the keys of what a process reads now, or was reading when it ended."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((project / FILE).read_text(encoding="utf-8"))
        return list(said["at"]) if said["process"] == process else []
    return []


def key_of(dataset: str, name: str, look: Iterable[tuple[str, int, int]]) -> str:
    """Return what names a delivery: another file of the same name is another one."""
    seen = hashlib.sha256(repr(sorted(look)).encode()).hexdigest()[:16]
    return f"{dataset!a}/{name!a}/{seen}"


SEVERAL = "several/"


def key_of_several(keys: Iterable[str]) -> str:
    """Return what names deliveries that are read as one."""
    return SEVERAL + hashlib.sha256(repr(sorted(keys)).encode()).hexdigest()[:16]
