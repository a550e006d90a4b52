"""How long each step took the last time, in ``.cache/durations.json``: what `plan` tells and nothing depends on."""

import json
from pathlib import Path

from quickstudy.system.atomic import write_json

FILE = Path(".cache") / "durations.json"


def read_durations(root: Path) -> dict[str, float]:
    """Return step → seconds; empty where nothing was recorded or the file is damaged."""
    try:
        return {str(step): float(seconds) for step, seconds in json.loads((root / FILE).read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def record_duration(root: Path, step: str, seconds: float) -> None:
    """Remember how many seconds a step took."""
    write_json(root / FILE, read_durations(root) | {step: round(seconds, 2)})
