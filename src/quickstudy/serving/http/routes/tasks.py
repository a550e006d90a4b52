"""Tasks: taught, listed, shown, exported and forgotten."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import targets_of
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.store import Example, Kept, Listed
from quickstudy.serving.http import bodies, inputs, replies
from quickstudy.serving.http.deps import EngineDep, TaskId, Tenant
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
async def create_task(request: Request, tenant: Tenant, engine: EngineDep) -> Any:
    """Teach a task by its examples."""
    return await _create(tenant, await inputs.read_task(request, tenant, engine), engine)


@router.post("/import", status_code=201, response_model=replies.TaskPublic, openapi_extra=described(bodies.TaskImport))
async def import_task(request: Request, tenant: Tenant, engine: EngineDep) -> Any:
    """Teach a task that was exported, here or elsewhere."""
    return await _create(tenant, await inputs.read_export(request, tenant, engine), engine)


async def _create(tenant: str, task: inputs.NewTask, engine: Engine) -> Response:
    examples = task.examples
    names, size = len(targets_of(task.kind).count(examples.targets)), len(examples.targets)
    inputs.check_size(names, size, engine.settings)
    engine.check_task(task.kind, size, names)
    digest, packed = await engine.encode(task.kind, task.modality, examples.inputs, examples.costs, tenant)
    kept = await engine.pools.database.run(
        tenant,
        engine.store.create,
        tenant,
        task.name,
        task.kind,
        task.modality,
        examples.targets,
        await engine.pools.parsing.run(tenant, examples.contents),
        packed,
        digest,
        quotas(engine.settings),
    )
    return JSONResponse(replies.task(kept), 201)


@router.get("", response_model=replies.TasksPublic)
async def list_tasks(
    tenant: Tenant,
    engine: EngineDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
) -> Any:
    """List all tasks, the oldest first; fewer than were asked for where they have very many classes."""
    parts: list[bytes] = []
    more, size = True, 0
    while more and len(parts) < limit and size < engine.settings.answer * MEGABYTE:
        step = min(STEP, limit - len(parts))
        page = await engine.pools.database.run(tenant, engine.store.tasks, tenant, step, after)
        parts += await engine.pools.parsing.run(tenant, _written, page)
        size, more = sum(map(len, parts)), len(page) == step
        after = page[-1].id if page else after
    following = replies.written(after if more else None)
    return Response(b'{"tasks":[%s],"next":%s}' % (b",".join(parts), following), media_type="application/json")


def _written(page: Sequence[Kept]) -> list[bytes]:
    return [replies.written(replies.task(kept)) for kept in page]


@router.get("/{id}", response_model=replies.TaskPublicWithExamples)
async def show_task(id: TaskId, tenant: Tenant, engine: EngineDep) -> Any:
    """Show a task and its examples."""
    listed = found(await engine.pools.database.run(tenant, engine.store.listed, tenant, id))
    return await _in_pieces(
        engine, tenant, listed, replies.task(listed.task), replies.example, listed.task.modality == "text"
    )


@router.get("/{id}/export", response_model=replies.TaskExport)
async def export_task(id: TaskId, tenant: Tenant, engine: EngineDep) -> Any:
    """Give all of a task, for POST /tasks/import."""
    listed = found(await engine.pools.database.run(tenant, engine.store.listed, tenant, id))
    return await _in_pieces(engine, tenant, listed, replies.export(listed.task), replies.exported, True)


async def _in_pieces(
    engine: Engine,
    tenant: str,
    listed: Listed,
    head: dict[str, Any],
    write: Callable[[Kept, Example], dict[str, Any]],
    files: bool,
) -> Response:
    """Return a task with its examples, of which no more are in memory than a piece, however many there are.

    Args:
        write: an example as JSON. files: whether it has the example's content.
    """

    def piece(first: int, last: int, count: int) -> bytes:
        examples = engine.store.some(listed.task.id, first, last, files)
        if len(examples) != count:  # of what was promised something has gone; the answer ends unfinished
            raise QuickstudyError("the task has changed while it was read", fix="Ask again")
        return b",".join(replies.written(write(listed.task, one)) for one in examples)

    start, end = replies.written({**head, "examples": []})[: -len(b"]}")], b"]}"
    pieces = list(listed.pieces())
    first = await engine.pools.database.run(tenant, piece, *pieces[0]) if pieces else b""
    if len(pieces) < 2:
        return Response(start + first + end, media_type="application/json")

    async def whole() -> AsyncIterator[bytes]:
        yield start + first
        for one in pieces[1:]:
            yield b"," + await engine.pools.database.run(tenant, piece, *one)
        yield end

    return StreamingResponse(whole(), media_type="application/json")


@router.delete("/{id}", status_code=204)
async def delete_task(id: TaskId, tenant: Tenant, engine: EngineDep) -> Response:
    """Forget a task and all of its examples."""
    gone = await engine.pools.database.run(tenant, engine.store.delete, tenant, id)
    found(gone or None)
    return Response(status_code=204)
