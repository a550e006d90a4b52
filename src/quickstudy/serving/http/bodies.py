"""What a request may bring, field by field. How it is read, and how much of it, is in inputs.py.

Lists end with their first mistake: only that one is told, and a million of them would take minutes to find.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model

from quickstudy.errors import QuickstudyError
from quickstudy.kinds.names import Name
from quickstudy.kinds.targets import TARGETS, targets_of

FORM = "multipart/form-data"


_EXAMPLES: list[JsonValue] = [
    {"input": "My card was charged twice.", "label": "billing"},
    {"input": "Please send me the invoice again.", "label": "billing"},
    {"input": "The parcel has not arrived.", "label": "delivery"},
    {"input": "Where is my order now?", "label": "delivery"},
]


class Body(BaseModel):
    """What all bodies have in common: no field that is unknown, no value of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Example(Body):
    """What an example has whatever its kind; `ExampleCreate` has the field of each kind's targets besides."""

    input: str = Field(description="the text itself, or the base64 of an image's or a recording's file")

    def target(self, kind: str, where: str) -> Any:
        """Return what it is taught as, in a task of this kind.

        Raises:
            QuickstudyError: the field is missing, or another kind's is there.
        """
        part = targets_of(kind)
        given = {other.COLUMN for other in TARGETS.values() if getattr(self, other.COLUMN) is not None}
        if part.COLUMN not in given:
            raise QuickstudyError("field required", where=f"{where}.{part.COLUMN}")
        if others := given - {part.COLUMN}:
            raise QuickstudyError(f"is no field of a task of kind {kind}", where=f"{where}.{min(others)}")
        return part.from_json(getattr(self, part.COLUMN), f"{where}.{part.COLUMN}")


FIELDS: dict[str, Any] = {
    part.COLUMN: (part.BODY | None, Field(default=None, description=f"of kind {kind}"))
    for kind, part in TARGETS.items()
}
"""Of each kind, how targets stand in JSON."""

ExampleCreate = create_model("ExampleCreate", __base__=Example, **FIELDS)


class ExamplesCreate(Body):
    """More examples of a task."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"examples": _EXAMPLES[:1]}]})
    examples: tuple[ExampleCreate, ...] = Field(min_length=1, fail_fast=True)  # type: ignore[valid-type]


class TaskHead(Body):
    """What a task is, beside its examples: in a form these are fields."""

    name: Name
    kind: str = Field(default="classify", description="what a target is: classify, one class; tag, any number of tags")
    modality: Literal["text", "image", "audio"]


class TaskCreate(TaskHead):
    """A new task."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "tickets", "modality": "text", "examples": _EXAMPLES}]}
    )
    examples: tuple[ExampleCreate, ...] = Field(min_length=1, fail_fast=True)  # type: ignore[valid-type]


class TaskImport(TaskCreate):
    """A task as it is exported."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"format": 1, "name": "tickets", "modality": "text", "examples": _EXAMPLES}]}
    )
    format: Literal[1]


class Queries(Body):
    """Queries of a task."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"queries": ["I was billed two times."]}]})
    queries: tuple[str, ...] = Field(min_length=1, fail_fast=True)
