"""The routes. docs/serving.md is their contract; /docs shows them and lets one try."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from quickstudy.config import Chat, Serve
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.revisions import Revisions
from quickstudy.serving.engine.store import Kept, Unavailable
from quickstudy.serving.http import inputs, pages, replies
from quickstudy.serving.http.access import Access
from quickstudy.serving.http.frame import Frame
from quickstudy.serving.http.playground import add_playground

TaskId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="of a task")]
Number = Annotated[int, Path(ge=1, lt=2**31, description="of an example")]


def make_app(settings: Serve, engine: Engine, chat: Chat | None = None) -> FastAPI:
    """The service around an engine, whose life is that of the app.

    Args:
        chat: of params.yaml, for the playground; None: there is none.
    """
    store, metrics, revisions = engine.store, engine.metrics, Revisions(engine.store)
    access = Access(settings, store)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        yield
        await engine.stop()

    app = FastAPI(
        title="Quickstudy",
        summary="Teach a task by a handful of examples, then ask.",
        version="1",
        lifespan=life,
        docs_url=None,
        redoc_url=None,  # they fetch scripts from elsewhere
        responses={code: {"model": replies.ErrorReply} for code in (401, 403, 404, 408, 413, 422, 429, 503)},
    )
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["*"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id"],
        )
    app.add_middleware(Frame, settings=settings, metrics=metrics)
    _answer_mistakes(app)
    Tenant = Annotated[str, Depends(access.tenant)]

    async def known(tenant: str, id: str) -> Kept:
        return _found(await asyncio.to_thread(store.task, tenant, id))

    async def create(tenant: str, name: str, modality: Modality, given: inputs.Given) -> dict[str, Any]:
        inputs.check_classes(dict.fromkeys(given.labels, 1), settings)
        digest, packed = await engine.encode("classify", modality, given.inputs)
        kept = await asyncio.to_thread(
            store.create, tenant, name, "classify", modality, given.labels, given.contents(), packed, digest
        )
        return replies.task(kept)

    @app.post(
        "/tasks",
        status_code=201,
        response_model=replies.TaskReply,
        openapi_extra=_body(inputs.TaskBody, name="string", modality="string", label="strings", file="files"),
    )
    async def create_task(request: Request, tenant: Tenant) -> Any:
        """Teach a task by its examples."""
        name, modality, given = await inputs.read_examples(request, None, settings)
        return JSONResponse(await create(tenant, name, modality, given), 201)

    @app.post(
        "/tasks/import", status_code=201, response_model=replies.TaskReply, openapi_extra=_body(inputs.ExportBody)
    )
    async def import_task(request: Request, tenant: Tenant) -> Any:
        """Teach a task that was exported, here or elsewhere."""
        body = await inputs.read_json(request, inputs.ExportBody)
        given = await asyncio.to_thread(inputs.given, body.examples, body.modality, settings)
        return JSONResponse(await create(tenant, body.name, body.modality, given), 201)

    @app.get("/tasks", response_model=replies.TasksReply)
    async def list_tasks(
        tenant: Tenant,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
    ) -> Any:
        """All tasks, the oldest first."""
        found = await asyncio.to_thread(store.tasks, tenant, limit, after)
        following = found[-1].id if len(found) == limit else None
        return JSONResponse({"tasks": [replies.task(kept) for kept in found], "next": following})

    @app.get("/tasks/{id}", response_model=replies.TaskInFullReply)
    async def show_task(id: TaskId, tenant: Tenant) -> Any:
        """A task and its examples."""
        kept = await known(tenant, id)
        contents = _found(await asyncio.to_thread(store.contents, id, ""))
        return JSONResponse({**replies.task(kept), "examples": replies.examples(contents)})

    @app.delete("/tasks/{id}", status_code=204)
    async def delete_task(id: TaskId, tenant: Tenant) -> Response:
        """Forget a task and all of its examples."""
        if not await asyncio.to_thread(store.delete, tenant, id):
            _found(None)
        return Response(status_code=204)

    @app.post(
        "/tasks/{id}/examples",
        status_code=201,
        response_model=replies.AddedReply,
        openapi_extra=_body(inputs.ExamplesBody, label="strings", file="files"),
    )
    async def add_examples(id: TaskId, request: Request, tenant: Tenant) -> Any:
        """Teach a task more: only the new examples are encoded."""
        _, kind, modality = _found(await revisions.newest(tenant, id))
        _, _, given = await inputs.read_examples(request, modality, settings)
        digest, packed = await engine.encode(kind, modality, given.inputs)

        def check(kept: Kept) -> None:
            inputs.check_classes(kept.classes, settings)

        kept, numbers = _found(
            await asyncio.to_thread(store.add, tenant, id, given.labels, given.contents(), packed, digest, check)
        )
        return JSONResponse({**replies.task(kept), "added": numbers}, 201)

    @app.delete("/tasks/{id}/examples/{example}", response_model=replies.TaskReply)
    async def remove_example(id: TaskId, example: Number, tenant: Tenant) -> Any:
        """Take an example back."""
        kept = await asyncio.to_thread(store.remove, tenant, id, example)
        return JSONResponse(replies.task(_found(kept, "there is no such task or example")))

    @app.post(
        "/tasks/{id}/predict",
        response_model=replies.AnswersReply,
        openapi_extra=_body(inputs.QueriesBody, file="files"),
    )
    async def predict(id: TaskId, request: Request, tenant: Tenant) -> Any:
        """Answer queries of a task."""
        with engine.batcher.coming():
            revision, kind, modality = _found(await revisions.newest(tenant, id))
        queries = await inputs.read_queries(request, modality, settings)
        answered = _found(await engine.answer(id, revision, kind, modality, queries))
        answer = replies.answers(id, answered)
        unknown = sum(not row["known"] for row in answer["answers"])
        metrics.queries.labels("unknown").inc(unknown)
        metrics.queries.labels("known").inc(len(queries) - unknown)
        request.state.about = {"task": id, "queries": len(queries), "version": answered.loaded.version}
        return JSONResponse(answer)

    @app.get("/tasks/{id}/accuracy", response_model=replies.AccuracyReply)
    async def accuracy(id: TaskId, tenant: Tenant) -> Any:
        """How often the task's own examples, each left out in turn, are told from the others."""
        revision, kind, _ = _found(await revisions.newest(tenant, id))
        found, score, asked = _found(await engine.held_out(id, revision, kind))
        return JSONResponse({"task": id, "revision": found, "right": round(score * asked), "asked": asked})

    @app.get("/tasks/{id}/export", response_model=replies.ExportReply)
    async def export_task(id: TaskId, tenant: Tenant) -> Any:
        """All of a task, for POST /tasks/import."""
        kept = await known(tenant, id)
        return JSONResponse(replies.export(kept, _found(await asyncio.to_thread(store.contents, id, ""))))

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "alive"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        """It can answer: the model is loaded and the database is there."""
        await asyncio.to_thread(store.ping)
        return {"status": "ready", "version": engine.loaded.version, "digest": engine.loaded.digest}

    @app.get("/metrics")
    async def prometheus() -> Response:
        """For Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return pages.page("docs")

    @app.get("/page/{name}", include_in_schema=False)
    async def asset(name: str) -> Response:
        return pages.asset(name)

    if chat is not None:
        add_playground(app, settings, engine, access, chat)
    return app


def _found(thing: Any, otherwise: str = "there is no such task") -> Any:
    """404 for what is not there, and for what is somebody else's."""
    if thing is None:
        raise HTTPException(404, otherwise)
    return thing


def _answer_mistakes(app: FastAPI) -> None:
    """Every mistake is one line of JSON."""

    @app.exception_handler(QuickstudyError)
    async def mistaken(request: Request, error: QuickstudyError) -> JSONResponse:
        away = isinstance(error, Unavailable)
        return _mistake(503 if away else 422, str(error), {"retry-after": "5"} if away else {})

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code in (408, 413):
            headers["connection"] = "close"  # the rest of the body is not read
        return _mistake(error.status_code, str(error.detail), headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        in_path = first["loc"][0] == "path"  # an id that cannot be is one that is not there
        line = "there is no such task or example" if in_path else f"{first['loc'][-1]}: {first['msg'].lower()}"
        return _mistake(404 if in_path else 422, line, {})


def _mistake(status: int, line: str, headers: dict[str, str]) -> JSONResponse:
    return JSONResponse({"error": " ".join(line.split())[:500]}, status, headers)


def _body(kind: type[BaseModel], **fields: str) -> dict[str, Any]:
    """What OpenAPI says of a body that is read by hand: JSON, and a form with files where there are fields."""
    content: dict[str, Any] = {"application/json": {"schema": _inlined(kind.model_json_schema())}}
    if fields:
        types = {
            "string": {"type": "string"},
            "strings": {"type": "array", "items": {"type": "string"}},
            "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        }
        properties = {name: types[what] for name, what in fields.items()}
        form = {"type": "object", "required": list(fields), "properties": properties}
        content[inputs.FORM] = {"schema": form}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without references, which in OpenAPI's document would lead nowhere."""
    parts = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolved(parts[node["$ref"].rpartition("/")[2]])
        return {name: resolved(one) for name, one in node.items()}

    return cast(dict[str, Any], resolved(schema))
