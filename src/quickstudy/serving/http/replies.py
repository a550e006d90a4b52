"""What the service answers, as JSON.

The classes are what OpenAPI says of it. What is sent is written by the functions, from parts that are known to be
sound, and goes out as it is, without FastAPI checking it row by row once more.
"""

import base64
import json
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.exceptions import HTTPException

from quickstudy.adaptation.adapted import Answers
from quickstudy.kinds.targets import targets_of
from quickstudy.serving.engine.engine import Answered
from quickstudy.serving.engine.store import Example, Kept
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


def example(kept: Kept, one: Example) -> dict[str, Any]:
    """Write an example of a task, as in `ExamplePublic`; files are not sent back."""
    text, field = kept.modality == "text", targets_of(kept.kind).COLUMN
    return {"id": one.number, field: one.target, "input": one.content.decode() if text else None}


def exported(kept: Kept, one: Example) -> dict[str, Any]:
    """Write an example as another service needs it, as in `TaskExport`."""
    text, field = kept.modality == "text", targets_of(kept.kind).COLUMN
    return {"input": one.content.decode() if text else base64.b64encode(one.content).decode(), field: one.target}


def export(kept: Kept) -> dict[str, Any]:
    """Write all that another service needs to have the same task, but for its examples, as in `TaskExport`."""
    return {"format": 1, "name": kept.name, "kind": kept.kind, "modality": kept.modality}


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
    probabilities: dict[str, float] = Field(description="of all classes, or of the likeliest ?top= of them")
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


def answers(id: str, answered: Answered, top: int | None, most: int) -> bytes:
    """Write the answers to a task's queries, as in `AnswersPublic`, as JSON.

    Args:
        top: probabilities of an answer, the likeliest ones; None: all. most: bytes.

    Raises:
        HTTPException: 413, there would be more.
    """
    said, kind = answered.answers, answered.loaded.kind
    finite = said.threshold < float("inf")
    head = {
        "task": id,
        "revision": answered.ready.revision,
        "model": {"version": answered.loaded.version, "digest": answered.loaded.digest},
        "threshold": float(said.threshold) if finite else None,
        "answers": [],
    }
    parts, size = [], 0
    for query in range(len(said.unknown)):
        # One by one: nothing is written of which it is known that nobody gets it, and another thread has its turn.
        parts.append(written({**_answer(kind, said, query, top), "nearest": _nearest(answered, query)}))
        size += len(parts[-1])
        if size > most:
            what = f"the answers would have more than the {most // 1_000_000} MB allowed (serve.answer)"
            fix = "ask fewer queries at once, or for the likeliest classes alone, as by ?top=5"
            raise HTTPException(413, f"{what}: {fix}")
    return written(head)[: -len(b"]}")] + b",".join(parts) + b"]}"


def written(value: Any) -> bytes:
    """Return a value as JSON, as a `JSONResponse` has it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _answer(kind: str, said: Answers, query: int, top: int | None) -> dict[str, Any]:
    """What a task says of a query."""
    chances = said.probabilities[query]
    names, shown = said.names, chances.tolist()
    if top is not None and top < len(names):
        places = np.argsort(-chances, kind="stable")[:top].tolist()
        names, shown = tuple(names[place] for place in places), [shown[place] for place in places]
    return {
        targets_of(kind).COLUMN: said.targets[query],
        "probability": float(said.confidence[query]),
        "known": bool(said.known[query]),
        "unknown": float(said.unknown[query]),
        "probabilities": dict(zip(names, shown, strict=True)),
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
