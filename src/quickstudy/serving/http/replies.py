"""What the service answers, as JSON."""

import base64
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from quickstudy.serving.engine.engine import Answered
from quickstudy.serving.engine.store import Contents, Kept


class ErrorReply(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"error": "there is no such task"}]})
    error: str


class TaskReply(BaseModel):
    id: str
    name: str
    modality: str
    classes: dict[str, int] = Field(description="examples of each class")
    revision: int = Field(description="each change of the examples makes the next one")
    created: str = Field(description="UTC, ISO 8601")


class AddedReply(TaskReply):
    added: list[int] = Field(description="ids of the new examples")


class ExampleReply(BaseModel):
    id: int
    label: str
    input: str | None = Field(description="of texts")


class TaskInFullReply(TaskReply):
    examples: list[ExampleReply]


class TasksReply(BaseModel):
    tasks: list[TaskReply]
    next: str | None = Field(description="say ?after= it for those that follow; null: there are no more")


class ModelReply(BaseModel):
    version: str
    digest: str = Field(description="sha256 of the weights")


class NearReply(BaseModel):
    example: int
    label: str
    likeness: float = Field(description="cosine, 1 for the same")
    input: str | None = Field(description="of texts")


class AnswerReply(BaseModel):
    label: str = Field(description="the likeliest class")
    known: bool = Field(description="false: the query belongs to none of the classes")
    unknown: float = Field(description="how unlike the examples it is; above the threshold it is not known")
    probabilities: dict[str, float]
    nearest: list[NearReply]


class AnswersReply(BaseModel):
    task: str
    revision: int
    model: ModelReply
    threshold: float | None = Field(description="null: nothing counts as unknown")
    answers: list[AnswerReply]


class AccuracyReply(BaseModel):
    task: str
    revision: int
    right: int
    asked: int = Field(description="examples that were left out; an only one of its class is not")


class ExportReply(BaseModel):
    format: int
    name: str
    modality: str
    examples: list[dict[str, str]]


def task(kept: Kept) -> dict[str, Any]:
    return {
        "id": kept.id,
        "name": kept.name,
        "modality": kept.modality,
        "classes": dict(kept.classes),
        "revision": kept.revision,
        "created": kept.created,
    }


def examples(contents: Contents) -> list[dict[str, Any]]:
    text = contents.modality == "text"
    return [
        {"id": one.number, "label": one.target, "input": one.content.decode() if text else None}
        for one in contents.examples
    ]


def export(kept: Kept, contents: Contents) -> dict[str, Any]:
    """Self-contained: all that another service needs to have the same task."""
    text = contents.modality == "text"
    items = [
        {"input": one.content.decode() if text else base64.b64encode(one.content).decode(), "label": one.target}
        for one in contents.examples
    ]
    return {"format": 1, "name": kept.name, "modality": kept.modality, "examples": items}


def answers(id: str, answered: Answered) -> dict[str, Any]:
    ready, given = answered.ready, answered.answers
    finite = given.threshold < float("inf")
    best = given.probabilities.argmax(1)
    rows = []
    for place, chances in enumerate(given.probabilities.tolist()):
        rows.append(
            {
                "label": given.names[best[place]],
                "known": bool(given.unknown[place] <= given.threshold),
                "unknown": float(given.unknown[place]),
                "probabilities": dict(zip(given.names, chances, strict=True)),
                "nearest": _nearest(answered, given.neighbours[place].tolist(), given.likeness[place].tolist()),
            }
        )
    return {
        "task": id,
        "revision": ready.revision,
        "model": {"version": answered.loaded.version, "digest": answered.loaded.digest},
        "threshold": float(given.threshold) if finite else None,
        "answers": rows,
    }


def _nearest(answered: Answered, places: Sequence[int], likeness: Sequence[float]) -> list[dict[str, Any]]:
    ready = answered.ready
    return [
        {
            "example": ready.numbers[place],
            "label": ready.adapted.task.targets[place],
            "likeness": alike,
            "input": ready.texts[place] if ready.texts else None,
        }
        for place, alike in zip(places, likeness, strict=True)
    ]
