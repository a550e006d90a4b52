"""What a request may bring, field by field. How it is read, and how much of it, is in inputs.py."""

import unicodedata
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

FORM = "multipart/form-data"


def _is_a_name(value: str) -> str:
    # Control characters would break the lines of logs; a NUL no database of text can hold.
    if not value.strip() or any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise ValueError("is empty or holds control characters")
    return value


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_is_a_name)]
Label = Name
"""What an example is taught as: a field of `ExampleCreate` in JSON and of `FormLabels` in a form, and nowhere else."""

_EXAMPLES: list[JsonValue] = [
    {"input": "My card was charged twice.", "label": "billing"},
    {"input": "Please send me the invoice again.", "label": "billing"},
    {"input": "The parcel has not arrived.", "label": "delivery"},
    {"input": "Where is my order now?", "label": "delivery"},
]


class Body(BaseModel):
    """What all bodies have in common: no field that is unknown, no value of another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ExampleCreate(Body):
    input: str = Field(description="the text itself, or the base64 of an image's or a recording's file")
    label: Label


class ExamplesCreate(Body):
    """More examples of a task."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"examples": _EXAMPLES[:1]}]})
    examples: tuple[ExampleCreate, ...] = Field(min_length=1)


class TaskHead(Body):
    """What a task is, beside its examples: in a form these are fields."""

    name: Name
    modality: Literal["text", "image", "audio"]


class FormLabels(Body):
    """The labels of a form's files, in order."""

    label: tuple[Label, ...]


class TaskCreate(TaskHead):
    """A new task."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "tickets", "modality": "text", "examples": _EXAMPLES}]}
    )
    examples: tuple[ExampleCreate, ...] = Field(min_length=1)


class TaskImport(TaskCreate):
    """A task as it is exported."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"format": 1, "name": "tickets", "modality": "text", "examples": _EXAMPLES}]}
    )
    format: Literal[1]


class Queries(Body):
    """Queries of a task."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"queries": ["I was billed two times."]}]})
    queries: tuple[str, ...] = Field(min_length=1)
