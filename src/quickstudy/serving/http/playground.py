"""The page at /: teach, ask, correct and talk, in a browser.

Gradio 6.31 would take Pillow from 13 back to 12, and tomlkit from 0.15 to 0.14, beneath all else that is locked here.
"""

import asyncio
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field
from starlette.exceptions import HTTPException

from quickstudy.config import Chat, Serve
from quickstudy.serving.chat.chat import Entry
from quickstudy.serving.chat.conversations import Conversations
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.http import inputs, pages
from quickstudy.serving.http.access import Access
from quickstudy.serving.http.ready_made import READY_MADE


class EntryBody(inputs.Body):
    question: inputs.Name
    answer: str = Field(min_length=1, max_length=2000)


class ChatBody(inputs.Body):
    """A line of a conversation, and all that it rests on."""

    session: str = Field(pattern=r"^[0-9a-f-]{8,40}$")
    faq: tuple[EntryBody, ...]
    taught: tuple[EntryBody, ...] = ()
    line: str = Field(max_length=2000)


def add_playground(app: FastAPI, settings: Serve, engine: Engine, access: Access, talk: Chat) -> None:
    """Add the page and what it needs beyond the routes that all use."""
    Tenant = Annotated[str, Depends(access.tenant)]
    conversations = Conversations(talk.false_alarm, talk.close)

    @app.get("/playground/tasks/{name}", include_in_schema=False)
    async def ready_made(name: Annotated[str, Path()], tenant: Tenant) -> Any:
        """A task to try; made when it is first asked for."""
        if name not in READY_MADE:
            raise HTTPException(404, f"there is no task {name[:50]!r} to try")
        task = await asyncio.to_thread(READY_MADE[name])
        return JSONResponse(
            {"name": task.name, "modality": task.modality, "shots": list(task.shots), "query": task.query}
        )

    @app.get("/playground/faq", include_in_schema=False)
    async def faq() -> Any:
        return JSONResponse([{"question": question, "answer": answer} for question, answer in FAQ])

    @app.post("/playground/chat", include_in_schema=False)
    async def chat(request: Request, tenant: Tenant) -> Any:
        """One line of a conversation."""
        body = await inputs.read_json(request, ChatBody)
        inputs.check_count(len(body.faq) + len(body.taught), settings.examples, "questions")
        given, taught = ([Entry(one.question, one.answer) for one in some] for some in (body.faq, body.taught))
        reply, learned = await engine.batcher.run(
            conversations.say, engine.loaded, tenant, body.session, given, taught, body.line
        )
        return JSONResponse(
            {
                "kind": reply.kind,
                "text": reply.text,
                "choices": list(reply.choices),
                "learned": reply.learned,
                "taught": [{"question": one.question, "answer": one.answer} for one in learned],
            }
        )

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return pages.page("page")


FAQ = (
    ("When are you open?", "Monday to Friday, nine to six."),
    ("What are your opening hours?", "Monday to Friday, nine to six."),
    ("How long does delivery take?", "Two to four days; you get a link to follow the parcel."),
    ("When will my parcel arrive?", "Two to four days; you get a link to follow the parcel."),
    ("How can I send something back?", "Within 30 days, with the label that lies in the parcel."),
    ("I do not like it and want to return it.", "Within 30 days, with the label that lies in the parcel."),
    ("How can I pay?", "By card, by transfer, or by invoice within 14 days."),
    ("Do you take credit cards?", "By card, by transfer, or by invoice within 14 days."),
    ("I forgot my password.", "Press 'Forgotten' on the page where you log in; a mail brings you a new one."),
    ("I cannot log in.", "Press 'Forgotten' on the page where you log in; a mail brings you a new one."),
)
"""to begin with"""
