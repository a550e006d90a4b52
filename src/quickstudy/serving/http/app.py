"""The service as an ASGI app. docs/serving.md is the contract of its routes; /docs shows them and lets one try."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from quickstudy.config import Chat, Serve
from quickstudy.serving.chat.conversations import Conversations
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.revisions import Revisions
from quickstudy.serving.http import refusals, replies
from quickstudy.serving.http.access import Access
from quickstudy.serving.http.frame import Frame
from quickstudy.serving.http.routes import answers, examples, health, pages, playground, tasks
from quickstudy.serving.http.watch import Watch


def make_app(settings: Serve, engine: Engine, chat: Chat | None = None, open: bool = True) -> FastAPI:
    """Return the service around an engine, whose life is that of the app.

    Args:
        chat: of params.yaml, for the playground; None: there is none. open: see `Access`.
    """
    app = FastAPI(
        title="Quickstudy",
        summary="Teach a task by a handful of examples, then ask.",
        version="1",
        lifespan=_life,
        docs_url=None,
        redoc_url=None,  # they fetch scripts from elsewhere
        exception_handlers=refusals.HANDLERS,
        responses={code: {"model": replies.Refusal} for code in (401, 403, 404, 408, 413, 422, 429, 503, 507)},
    )
    app.state.settings, app.state.engine = settings, engine  # see deps.py
    app.state.access, app.state.revisions = Access(settings, engine.store, open), Revisions(engine.store)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["*"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id"],
        )
    app.add_middleware(Watch, settings=settings)
    app.add_middleware(Frame, settings=settings, metrics=engine.metrics)
    for routes in (tasks, examples, answers, health, pages):
        app.include_router(routes.router)
    if chat is not None:
        app.state.conversations = Conversations(chat.false_alarm, chat.close)
        app.include_router(playground.router)
    return app


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    engine: Engine = app.state.engine
    await engine.start()
    yield
    await engine.stop()
