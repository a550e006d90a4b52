"""Examples of a task: more of them, or fewer."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from quickstudy.serving.engine.store import Kept
from quickstudy.serving.http import bodies, inputs, replies
from quickstudy.serving.http.deps import EngineDep, ExampleId, RevisionsDep, SettingsDep, TaskId, Tenant
from quickstudy.serving.http.openapi import described
from quickstudy.serving.http.quotas import quotas
from quickstudy.serving.http.refusals import found

router = APIRouter(prefix="/tasks/{id}/examples")


@router.post(
    "",
    status_code=201,
    response_model=replies.TaskPublicWithAdded,
    openapi_extra=described(bodies.ExamplesCreate, label="strings", file="files"),
)
async def add_examples(
    id: TaskId, request: Request, tenant: Tenant, settings: SettingsDep, engine: EngineDep, revisions: RevisionsDep
) -> Any:
    """Teach a task more: only the new examples are encoded."""
    _, kind, modality = found(await revisions.newest(tenant, id))
    examples = await inputs.read_examples(request, kind, modality, tenant, engine)
    digest, packed = await engine.encode(kind, modality, examples.inputs, examples.costs, tenant)

    def check(grown: Kept) -> None:
        inputs.check_size(len(grown.classes), grown.examples, settings)
        engine.check_task(kind, grown.examples, len(grown.classes))

    contents = await engine.pools.parsing.run(tenant, examples.contents)
    kept, numbers = found(
        await engine.pools.database.run(
            tenant, engine.store.add, tenant, id, examples.targets, contents, packed, digest, check, quotas(settings)
        )
    )
    return JSONResponse({**replies.task(kept), "added": numbers}, 201)


@router.delete("/{example}", response_model=replies.TaskPublic)
async def remove_example(id: TaskId, example: ExampleId, tenant: Tenant, engine: EngineDep) -> Any:
    """Take an example back."""
    kept = await engine.pools.database.run(tenant, engine.store.remove, tenant, id, example)
    return JSONResponse(replies.task(found(kept, "there is no such task or example")))
