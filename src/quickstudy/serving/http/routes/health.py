"""How the service is, for whoever watches it. No key is asked for."""

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from quickstudy.serving.http.deps import EngineDep

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the process is alive."""
    return {"status": "alive"}


@router.get("/ready")
async def ready(engine: EngineDep) -> dict[str, Any]:
    """Say that it can answer: the model is loaded, the database is there, and requests get their turn."""
    await engine.check()
    return {
        "status": "ready",
        "version": engine.loaded.version,
        "digest": engine.loaded.digest,
        "kinds": list(engine.loaded.parts),
    }


@router.get("/metrics")
async def prometheus(engine: EngineDep) -> Response:
    """Give what Prometheus reads."""
    return Response(generate_latest(engine.metrics.registry), media_type=CONTENT_TYPE_LATEST)
