"""Tasks: taught, listed, shown, exported and forgotten."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from quickstudy.kinds.targets import targets_of
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.http import bodies, inputs, replies
from quickstudy.serving.http.deps import EngineDep, TaskId, Tenant
from quickstudy.serving.http.openapi import described
from quickstudy.serving.http.refusals import found

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
        examples.contents(),
        packed,
        digest,
    )
    return JSONResponse(replies.task(kept), 201)


@router.get("", response_model=replies.TasksPublic)
async def list_tasks(
    tenant: Tenant,
    engine: EngineDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
) -> Any:
    """List all tasks, the oldest first."""
    page = await engine.pools.database.run(tenant, engine.store.tasks, tenant, limit, after)
    following = page[-1].id if len(page) == limit else None
    return JSONResponse({"tasks": [replies.task(kept) for kept in page], "next": following})


@router.get("/{id}", response_model=replies.TaskPublicWithExamples)
async def show_task(id: TaskId, tenant: Tenant, engine: EngineDep) -> Any:
    """Show a task and its examples."""
    kept = found(await engine.pools.database.run(tenant, engine.store.task, tenant, id))
    contents = found(await engine.pools.database.run(tenant, engine.store.contents, id, ""))
    return JSONResponse({**replies.task(kept), "examples": replies.examples(contents)})


@router.get("/{id}/export", response_model=replies.TaskExport)
async def export_task(id: TaskId, tenant: Tenant, engine: EngineDep) -> Any:
    """Give all of a task, for POST /tasks/import."""
    kept = found(await engine.pools.database.run(tenant, engine.store.task, tenant, id))
    return JSONResponse(
        replies.export(kept, found(await engine.pools.database.run(tenant, engine.store.contents, id, "")))
    )


@router.delete("/{id}", status_code=204)
async def delete_task(id: TaskId, tenant: Tenant, engine: EngineDep) -> Response:
    """Forget a task and all of its examples."""
    gone = await engine.pools.database.run(tenant, engine.store.delete, tenant, id)
    found(gone or None)
    return Response(status_code=204)
