"""Tasks: taught, listed, shown, exported and forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from quickstudy.config import Serve
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import targets_of
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.store import Example, Kept, Listed, Store
from quickstudy.serving.http import bodies, inputs, replies
from quickstudy.serving.http.deps import EngineDep, SettingsDep, StoreDep, TaskId, Tenant
from quickstudy.serving.http.openapi import described
from quickstudy.serving.http.quotas import MEGABYTE, quotas
from quickstudy.serving.http.refusals import found

STEP = 50
"""Tasks of a list that are looked up at once."""

router = APIRouter(prefix="/tasks")


@router.post(
    "",
    status_code=201,
    response_model=replies.TaskPublic,
    openapi_extra=described(bodies.TaskCreate, name="string", modality="string", label="strings", file="files"),
)
async def create_task(request: Request, tenant: Tenant, settings: SettingsDep, engine: EngineDep) -> Any:
    """Teach a task by its examples."""
    return await _create(tenant, await inputs.read_task(request, settings), settings, engine)


@router.post("/import", status_code=201, response_model=replies.TaskPublic, openapi_extra=described(bodies.TaskImport))
async def import_task(request: Request, tenant: Tenant, settings: SettingsDep, engine: EngineDep) -> Any:
    """Teach a task that was exported, here or elsewhere."""
    return await _create(tenant, await inputs.read_export(request, settings), settings, engine)


async def _create(tenant: str, task: inputs.NewTask, settings: Serve, engine: Engine) -> Response:
    examples = task.examples
    inputs.check_size(len(targets_of(task.kind).count(examples.targets)), len(examples.targets), settings)
    digest, packed = await engine.encode(task.kind, task.modality, examples.inputs)
    kept = await asyncio.to_thread(
        engine.store.create,
        tenant,
        task.name,
        task.kind,
        task.modality,
        examples.targets,
        await asyncio.to_thread(examples.contents),
        packed,
        digest,
        quotas(settings),
    )
    return JSONResponse(replies.task(kept), 201)


@router.get("", response_model=replies.TasksPublic)
async def list_tasks(
    tenant: Tenant,
    store: StoreDep,
    settings: SettingsDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
) -> Any:
    """List all tasks, the oldest first; fewer than were asked for where they have very many classes."""
    parts: list[bytes] = []
    more, size = True, 0
    while more and len(parts) < limit and size < settings.answer * MEGABYTE:
        step = min(STEP, limit - len(parts))
        page = await asyncio.to_thread(store.tasks, tenant, step, after)
        parts += await asyncio.to_thread(_written, page)
        size, more = sum(map(len, parts)), len(page) == step
        after = page[-1].id if page else after
    following = replies.written(after if more else None)
    return Response(b'{"tasks":[%s],"next":%s}' % (b",".join(parts), following), media_type="application/json")


def _written(page: Sequence[Kept]) -> list[bytes]:
    return [replies.written(replies.task(kept)) for kept in page]


@router.get("/{id}", response_model=replies.TaskPublicWithExamples)
async def show_task(id: TaskId, tenant: Tenant, store: StoreDep) -> Any:
    """Show a task and its examples."""
    listed = found(await asyncio.to_thread(store.listed, tenant, id))
    return await _in_pieces(store, listed, replies.task(listed.task), replies.example, listed.task.modality == "text")


@router.get("/{id}/export", response_model=replies.TaskExport)
async def export_task(id: TaskId, tenant: Tenant, store: StoreDep) -> Any:
    """Give all of a task, for POST /tasks/import."""
    listed = found(await asyncio.to_thread(store.listed, tenant, id))
    return await _in_pieces(store, listed, replies.export(listed.task), replies.exported, True)


async def _in_pieces(
    store: Store, listed: Listed, head: dict[str, Any], write: Callable[[Kept, Example], dict[str, Any]], files: bool
) -> Response:
    """Return a task with its examples, of which no more are in memory than a piece, however many there are.

    Args:
        write: an example as JSON. files: whether it has the example's content.
    """

    def piece(first: int, last: int, count: int) -> bytes:
        examples = store.some(listed.task.id, first, last, files)
        if len(examples) != count:  # of what was promised something has gone; the answer ends unfinished
            raise QuickstudyError("the task has changed while it was read", fix="Ask again")
        return b",".join(replies.written(write(listed.task, one)) for one in examples)

    start, end = replies.written({**head, "examples": []})[: -len(b"]}")], b"]}"
    pieces = list(listed.pieces())
    first = await asyncio.to_thread(piece, *pieces[0]) if pieces else b""
    if len(pieces) < 2:
        return Response(start + first + end, media_type="application/json")

    async def whole() -> AsyncIterator[bytes]:
        yield start + first
        for one in pieces[1:]:
            yield b"," + await asyncio.to_thread(piece, *one)
        yield end

    return StreamingResponse(whole(), media_type="application/json")


@router.delete("/{id}", status_code=204)
async def delete_task(id: TaskId, tenant: Tenant, store: StoreDep) -> Response:
    """Forget a task and all of its examples."""
    gone = await asyncio.to_thread(store.delete, tenant, id)
    found(gone or None)
    return Response(status_code=204)
