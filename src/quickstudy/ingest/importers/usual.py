"""What columns are usually called in other people's tables."""

from collections.abc import Sequence

from quickstudy.data.dataset import Reading
from quickstudy.kinds.targets import TARGETS

CONTENT_COLUMNS = {
    "text": (
        *("text", "sentence", "utterance", "query", "question", "content", "review", "message", "document", "title"),
        # These came later; what was read by the others is read by them.
        *("body", "tweet", "comment", "phrase", "headline", "description", "sms", "transcript", "prompt"),
        *("answer_from_anno", "answer_from_user"),  # NLU-Evaluation-Data's
    ),
    "image": ("image", "img", "picture"),
    "audio": ("audio", "recording", "speech"),
}
_TARGETS = frozenset(name for part in TARGETS.values() for name in part.USUAL)
_CONTENTS = frozenset(name for names in CONTENT_COLUMNS.values() for name in names)
_FILES = frozenset({"file_name", "filename", "file", "path", "filepath", "image_id", "id"})
"""Of tables that name files, or number their rows."""


def usual(columns: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the column that has the first of the known names that is there."""
    lower = {name.lower().strip(): name for name in reversed(columns)}
    return next((lower[name] for name in known if name in lower), None)


def names_columns(names: Sequence[str], reading: Reading, both: bool = False) -> bool:
    """Return whether names are those of columns: one of them is usual, or was said.

    Args:
        names: that may be.
        reading: what was said.
        both: only where there is one of examples, and one of targets.
    """
    lower = {name.lower().strip() for name in names}
    content = bool(lower & _CONTENTS) or reading.content in names
    target = bool(lower & _TARGETS) or reading.label in names
    return (content and target) if both else (content or target)


def is_header(names: Sequence[str], reading: Reading) -> bool:
    """Return whether the first row of a table names its columns, by these names alone."""
    said = {reading.content, reading.label, reading.group, reading.domain, *(reading.label_columns or ())}
    lower = {name.lower().strip() for name in names}
    known = _CONTENTS | _TARGETS | _FILES | {"group", "domain", "split"}
    return bool(lower & known) or bool(said & set(names))
