"""What a task answers, and how well."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from quickstudy.kinds.scores import SCORES
from quickstudy.serving.http import bodies, inputs, replies
from quickstudy.serving.http.deps import EngineDep, RevisionsDep, TaskId, Tenant
from quickstudy.serving.http.openapi import described
from quickstudy.serving.http.quotas import MEGABYTE
from quickstudy.serving.http.refusals import found

AT_ONCE, NEAREST = 2000, 20
"""Numbers that are written while others wait, and what those of the nearest examples count for."""

router = APIRouter(prefix="/tasks/{id}")


@router.post("/predict", response_model=replies.AnswersPublic, openapi_extra=described(bodies.Queries, file="files"))
async def predict(
    id: TaskId,
    request: Request,
    tenant: Tenant,
    engine: EngineDep,
    revisions: RevisionsDep,
    top: Annotated[int | None, Query(ge=1, description="of how many classes, the likeliest, to give chances")] = None,
) -> Any:
    """Answer queries of a task."""
    with engine.batcher.coming():
        revision, kind, modality = found(await revisions.newest(tenant, id))
    queries = await inputs.read_queries(request, modality, tenant, engine)
    answered = found(await engine.answer(id, revision, kind, modality, queries.inputs, queries.costs, tenant))
    said, most = answered.answers, engine.settings.answer * MEGABYTE
    if len(queries.inputs) * (len(said.names) + NEAREST) > AT_ONCE:
        body = await engine.pools.parsing.run(tenant, replies.answers, id, answered, top, most)
    else:
        body = replies.answers(id, answered, top, most)
    known = int(said.known.sum())
    engine.metrics.queries.labels("unknown").inc(len(queries.inputs) - known)
    engine.metrics.queries.labels("known").inc(known)
    request.state.about = {"task": id, "queries": len(queries.inputs), "version": answered.loaded.version}
    return Response(body, media_type="application/json")


@router.get("/accuracy", response_model=replies.AccuracyPublic)
async def accuracy(id: TaskId, tenant: Tenant, engine: EngineDep, revisions: RevisionsDep) -> Any:
    """Say how often the task's own examples, each left out in turn, are told from the others."""
    revision, kind, _ = found(await revisions.newest(tenant, id))
    now, score, asked = found(await engine.held_out(id, revision, kind, tenant))
    told = {"metric": SCORES[kind].NAME, "score": score, "right": round(score * asked), "asked": asked}
    return JSONResponse({"task": id, "revision": now, **told})
