"""Logs as lines of JSON: one a request, by its id, and one for whatever else happens. No content of anybody's."""

import json
import logging
import logging.handlers
import time
import warnings
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REQUESTS = logging.getLogger("quickstudy.serving.requests")
SHADOW = logging.getLogger("quickstudy.serving.engine.shadow")
MINUTE = 60.0
MESSAGES = 1000
"""Different ones that are remembered."""


class JsonLines(logging.Formatter):
    """Formats a record as a line of JSON; `logger.info("…", extra={"about": {…}})` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "about", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(
            line, default=str
        )  # in ASCII: nothing of it can steer a terminal, or write from right to left


class Sparingly:
    """Lets so many lines a minute be written, and counts the others, which a line of the next minute tells.

    Args:
        most: lines a minute.
    """

    def __init__(self, most: int):
        self._most, self._count, self._begun = most, 0, -MINUTE
        self._left: Counter[str] = Counter()

    def one_more(self, what: str) -> bool:
        """Return whether there may be one more line."""
        now = time.monotonic()
        if now - self._begun >= MINUTE:
            if self._left:
                REQUESTS.info("left out of the log", extra={"about": {"count": dict(self._left)}})
                self._left.clear()
            self._begun, self._count = now, 0
        self._count += 1
        if self._count <= self._most:
            return True
        self._left[what] += 1
        return False


class Seldom(logging.Filter):
    """Lets the same warning pass once a minute, with how often it was meanwhile; requests have bounds of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        if record.levelno < logging.WARNING or record.name == REQUESTS.name:
            return True
        own = record.name.startswith("quickstudy")  # other people's say the same of each connection
        kind = (
            f"{record.name} {record.getMessage()[:200] if own else record.msg} {record.exc_info and record.exc_info[0]}"
        )
        until, left = self._seen.get(kind, (-MINUTE, 0))
        now = time.monotonic()
        if now < until:
            self._seen[kind] = (until, left + 1)
            return False
        if len(self._seen) >= MESSAGES:
            self._seen.clear()
        self._seen[kind] = (now + MINUTE, 0)
        if left:
            record.about = {**getattr(record, "about", {}), "times": left + 1}
        return True


def to_stderr() -> None:
    """Send everything that is worth a line to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    handler.addFilter(Seldom())
    warnings.filterwarnings("ignore", module="PIL")  # of damaged metadata in somebody's files
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("quickstudy", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)


def shadow_to(path: Path) -> None:
    """Write disagreements to a file too, which is begun anew at 16 MB; three old ones are kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=16_000_000, backupCount=3, encoding="utf-8")
    handler.setFormatter(JsonLines())
    SHADOW.addHandler(handler)
