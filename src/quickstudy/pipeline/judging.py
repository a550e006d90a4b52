"""The code that answers and judges episodes: what was judged by other code is judged anew."""

from functools import cache
from hashlib import blake2b
from pathlib import Path

ROOMS = (
    "adaptation",
    "encoders",
    "evaluation/answers.py",
    "evaluation/features.py",
    "evaluation/scratch.py",
    "kinds",
    "kinds/{kind}",
    "learners",
    "model",
    "tasks",
)
"""Files, and folders whose files are meant, not what lies deeper."""


def judging_files(kind: str) -> list[Path]:
    """Return the files that the answers to a kind's episodes, and their scores, depend on."""
    package = Path(__file__).parents[1]
    places = [package / room.format(kind=kind) for room in ROOMS]
    return sorted(path for place in places for path in (place.glob("*.py") if place.is_dir() else [place]))


@cache
def judging_code(kind: str) -> str:
    """Return a digest of them. They are read once: what is edited later does not run in this process."""
    digest = blake2b(digest_size=8)
    for path in judging_files(kind):
        digest.update(blake2b(path.read_bytes()).digest())
    return digest.hexdigest()
