"""What the service answers, as JSON.

The classes are what OpenAPI says of it. What is sent is written by the functions, from parts that are known to be
sound, and goes out as a `JSONResponse`, which FastAPI does not check row by row once more.
"""

import base64
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from quickstudy.adaptation.adapted import Answers
from quickstudy.serving.engine.engine import Answered
from quickstudy.serving.engine.store import Contents, Kept


class Refusal(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"error": "there is no such task"}]})
    error: str


# ---- tasks


class TaskPublic(BaseModel):
    id: str
    name: str
    modality: str
    classes: dict[str, int] = Field(description="examples of each class")
    revision: int = Field(description="each change of the examples makes the next one")
    created: str = Field(description="UTC, ISO 8601")


class TaskPublicWithAdded(TaskPublic):
    added: list[int] = Field(description="ids of the new examples")


class ExamplePublic(BaseModel):
    id: int
    label: str
    input: str | None = Field(description="of texts")


class TaskPublicWithExamples(TaskPublic):
    examples: list[ExamplePublic]


class TasksPublic(BaseModel):
    tasks: list[TaskPublic]
    next: str | None = Field(description="say ?after= it for those that follow; null: there are no more")


class TaskExport(BaseModel):
    format: int
    name: str
    modality: str
    examples: list[dict[str, str]]


def task(kept: Kept) -> dict[str, Any]:
    """Write a task, as in `TaskPublic`."""
    return {
        "id": kept.id,
        "name": kept.name,
        "modality": kept.modality,
        "classes": dict(kept.classes),
        "revision": kept.revision,
        "created": kept.created,
    }


def examples(contents: Contents) -> list[dict[str, Any]]:
    """Write a task's examples, each as in `ExamplePublic`; files are not sent back."""
    text = contents.modality == "text"
    return [
        {"id": one.number, "label": one.label, "input": one.content.decode() if text else None}
        for one in contents.examples
    ]


def export(kept: Kept, contents: Contents) -> dict[str, Any]:
    """Write all that another service needs to have the same task, as in `TaskExport`."""
    text = contents.modality == "text"
    items = [
        {"input": one.content.decode() if text else base64.b64encode(one.content).decode(), "label": one.label}
        for one in contents.examples
    ]
    return {"format": 1, "name": kept.name, "modality": kept.modality, "examples": items}


# ---- answers


class ModelPublic(BaseModel):
    version: str
    digest: str = Field(description="sha256 of the weights")


class NearestPublic(BaseModel):
    example: int
    label: str
    likeness: float = Field(description="cosine, 1 for the same")
    input: str | None = Field(description="of texts")


class AnswerPublic(BaseModel):
    label: str = Field(description="the likeliest class")
    known: bool = Field(description="false: the query belongs to none of the classes")
    unknown: float = Field(description="how unlike the examples it is; above the threshold it is not known")
    probabilities: dict[str, float]
    nearest: list[NearestPublic]


class AnswersPublic(BaseModel):
    task: str
    revision: int
    model: ModelPublic
    threshold: float | None = Field(description="null: nothing counts as unknown")
    answers: list[AnswerPublic]


class AccuracyPublic(BaseModel):
    task: str
    revision: int
    right: int
    asked: int = Field(description="examples that were left out; an only one of its class is not")


def answers(id: str, answered: Answered) -> dict[str, Any]:
    """Write the answers to a task's queries, as in `AnswersPublic`."""
    said = answered.answers
    finite = said.threshold < float("inf")
    return {
        "task": id,
        "revision": answered.ready.revision,
        "model": {"version": answered.loaded.version, "digest": answered.loaded.digest},
        "threshold": float(said.threshold) if finite else None,
        "answers": [
            {**_answer(said, query), "nearest": _nearest(answered, query)} for query in range(len(said.unknown))
        ],
    }


def count_known(reply: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many of the answers are known, and how many are not."""
    known = sum(one["known"] for one in reply["answers"])
    return known, len(reply["answers"]) - known


def _answer(said: Answers, query: int) -> dict[str, Any]:
    """What a task of classes says of a query."""
    chances = said.probabilities[query]
    return {
        "label": said.classes[chances.argmax()],
        "known": bool(said.unknown[query] <= said.threshold),
        "unknown": float(said.unknown[query]),
        "probabilities": dict(zip(said.classes, chances.tolist(), strict=True)),
    }


def _nearest(answered: Answered, query: int) -> list[dict[str, Any]]:
    """What of the task a query lies nearest, the nearest first."""
    ready, said = answered.ready, answered.answers
    return [
        {
            "example": ready.numbers[place],
            "label": ready.adapted.task.labels[place],
            "likeness": alike,
            "input": ready.texts[place] if ready.texts else None,
        }
        for place, alike in zip(said.neighbours[query].tolist(), said.likeness[query].tolist(), strict=True)
    ]
