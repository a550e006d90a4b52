"""Logs as lines of JSON: one a request, by its id, and one for whatever else happens. No content of anybody's."""

import json
import logging
import logging.handlers
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REQUESTS = logging.getLogger("quickstudy.serving.requests")
SHADOW = logging.getLogger("quickstudy.serving.engine.shadow")


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
        return json.dumps(line, ensure_ascii=False, default=str)


def to_stderr() -> None:
    """Send everything that is worth a line to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
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
