"""What the service answers, as JSON.

The classes are what OpenAPI says of it. What is sent is written by the functions, from parts that are known to be
sound, and goes out as a `JSONResponse`, which FastAPI does not check row by row once more.
"""

import base64
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from quickstudy.adaptation.adapted import Answers
from quickstudy.kinds.targets import targets_of
from quickstudy.serving.engine.engine import Answered
from quickstudy.serving.engine.store import Contents, Kept
from quickstudy.serving.http.bodies import FIELDS


class Refusal(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"error": "there is no such task"}]})
    error: str


# ---- tasks


class TaskPublic(BaseModel):
    id: str
    name: str
    kind: str = Field(description="what a target is: classify, tag")
    modality: str
    classes: dict[str, int] = Field(description="examples of each class, or tag")
    size: int = Field(description="how many examples there are")
    revision: int = Field(description="each change of the examples makes the next one")
    created: str = Field(description="UTC, ISO 8601")


class TaskPublicWithAdded(TaskPublic):
    added: list[int] = Field(description="ids of the new examples")


class _Example(BaseModel):
    id: int
    input: str | None = Field(description="of texts")


ExamplePublic = create_model("ExamplePublic", __base__=_Example, **FIELDS)


class TaskPublicWithExamples(TaskPublic):
    examples: list[ExamplePublic]  # type: ignore[valid-type]


class TasksPublic(BaseModel):
    tasks: list[TaskPublic]
    next: str | None = Field(description="say ?after= it for those that follow; null: there are no more")


class TaskExport(BaseModel):
    format: int
    name: str
    kind: str
    modality: str
    examples: list[dict[str, Any]]


def task(kept: Kept) -> dict[str, Any]:
    """Write a task, as in `TaskPublic`."""
    return {
        "id": kept.id,
        "name": kept.name,
        "kind": kept.kind,
        "modality": kept.modality,
        "classes": dict(kept.classes),
        "size": kept.examples,
        "revision": kept.revision,
        "created": kept.created,
    }


def examples(contents: Contents) -> list[dict[str, Any]]:
    """Write a task's examples, each as in `ExamplePublic`; files are not sent back."""
    text, field = contents.modality == "text", targets_of(contents.kind).COLUMN
    return [
        {"id": one.number, field: one.target, "input": one.content.decode() if text else None}
        for one in contents.examples
    ]


def export(kept: Kept, contents: Contents) -> dict[str, Any]:
    """Write all that another service needs to have the same task, as in `TaskExport`."""
    text, field = contents.modality == "text", targets_of(contents.kind).COLUMN
    items = [
        {"input": one.content.decode() if text else base64.b64encode(one.content).decode(), field: one.target}
        for one in contents.examples
    ]
    return {"format": 1, "name": kept.name, "kind": kept.kind, "modality": kept.modality, "examples": items}


# ---- answers


class ModelPublic(BaseModel):
    version: str
    digest: str = Field(description="sha256 of the weights")


class _Nearest(BaseModel):
    example: int
    likeness: float = Field(description="cosine, 1 for the same")
    input: str | None = Field(description="of texts")


NearestPublic = create_model("NearestPublic", __base__=_Nearest, **FIELDS)


class _Answer(BaseModel):
    probability: float = Field(description="of the class; of tags, of the one that is least sure")
    known: bool = Field(description="false: the query belongs to none of the classes")
    unknown: float = Field(description="how unlike the examples it is; above the threshold it is not known")
    probabilities: dict[str, float]
    nearest: list[NearestPublic]  # type: ignore[valid-type]


AnswerPublic = create_model("AnswerPublic", __base__=_Answer, **FIELDS)


class AnswersPublic(BaseModel):
    task: str
    revision: int
    model: ModelPublic
    threshold: float | None = Field(description="null: nothing counts as unknown")
    answers: list[AnswerPublic]  # type: ignore[valid-type]


class AccuracyPublic(BaseModel):
    task: str
    revision: int
    metric: str = Field(description="what the score is called: accuracy, micro F1")
    score: float = Field(description="0 … 1, of the examples that were asked")
    right: int
    asked: int = Field(description="examples that were left out; an only one of its class is not")


def answers(id: str, answered: Answered) -> dict[str, Any]:
    """Write the answers to a task's queries, as in `AnswersPublic`."""
    said, kind = answered.answers, answered.loaded.kind
    finite = said.threshold < float("inf")
    return {
        "task": id,
        "revision": answered.ready.revision,
        "model": {"version": answered.loaded.version, "digest": answered.loaded.digest},
        "threshold": float(said.threshold) if finite else None,
        "answers": [
            {**_answer(kind, said, query), "nearest": _nearest(answered, query)} for query in range(len(said.unknown))
        ],
    }


def count_known(reply: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many of the answers are known, and how many are not."""
    known = sum(one["known"] for one in reply["answers"])
    return known, len(reply["answers"]) - known


def _answer(kind: str, said: Answers, query: int) -> dict[str, Any]:
    """What a task says of a query."""
    return {
        targets_of(kind).COLUMN: said.targets[query],
        "probability": float(said.confidence[query]),
        "known": bool(said.known[query]),
        "unknown": float(said.unknown[query]),
        "probabilities": dict(zip(said.names, said.probabilities[query].tolist(), strict=True)),
    }


def _nearest(answered: Answered, query: int) -> list[dict[str, Any]]:
    """What of the task a query lies nearest, the nearest first."""
    ready, said = answered.ready, answered.answers
    field = targets_of(answered.loaded.kind).COLUMN
    return [
        {
            "example": ready.numbers[place],
            field: ready.adapted.task.targets[place],
            "likeness": alike,
            "input": ready.texts[place] if ready.texts else None,
        }
        for place, alike in zip(said.neighbours[query].tolist(), said.likeness[query].tolist(), strict=True)
    ]
