"""The page at /: teach, ask, correct and talk, in a browser.

Gradio 6.31 would take Pillow from 13 back to 12, and tomlkit from 0.15 to 0.14, beneath all else that is locked here.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, Field

from quickstudy.kinds.names import one_line
from quickstudy.serving.chat.chat import Entry
from quickstudy.serving.http import inputs
from quickstudy.serving.http.bodies import Body
from quickstudy.serving.http.deps import ConversationsDep, EngineDep, SettingsDep, Tenant
from quickstudy.serving.http.ready_made import FAQ, READY_MADE
from quickstudy.serving.http.refusals import found
from quickstudy.serving.http.routes.pages import page

router = APIRouter(include_in_schema=False)


class ChatEntry(Body):
    question: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(one_line)]
    answer: str = Field(min_length=1, max_length=2000)


class ChatLine(Body):
    """A line of a conversation, and all that it rests on."""

    session: str = Field(pattern=r"^[0-9a-f-]{8,40}$")
    faq: Annotated[tuple[ChatEntry, ...], Field(fail_fast=True)]
    taught: Annotated[tuple[ChatEntry, ...], Field(fail_fast=True)] = ()
    line: str = Field(max_length=2000)


@router.get("/")
async def playground() -> Response:
    """Show the page."""
    return page("page")


@router.get("/playground/tasks/{name}")
async def ready_made(name: str, tenant: Tenant, engine: EngineDep) -> Any:
    """Give a task to try; it is made when it is first asked for."""
    task = await engine.pools.decoding.run(
        tenant, found(READY_MADE.get(name), f"there is no task {name[:50]!r} to try")
    )
    return JSONResponse({"name": task.name, "modality": task.modality, "shots": list(task.shots), "query": task.query})


@router.get("/playground/faq")
async def faq() -> Any:
    """Give the questions and answers that the chat begins with."""
    return JSONResponse([{"question": question, "answer": answer} for question, answer in FAQ])


@router.post("/playground/chat")
async def chat(
    request: Request, tenant: Tenant, settings: SettingsDep, engine: EngineDep, conversations: ConversationsDep
) -> Any:
    """Answer one line of a conversation."""
    body = await inputs.read_json(request, ChatLine, tenant, engine)
    inputs.check_count(len(body.faq) + len(body.taught), settings.examples, "questions")
    asked, taught = ([Entry(one.question, one.answer) for one in some] for some in (body.faq, body.taught))
    said = (engine.loaded, tenant, body.session, asked, taught, body.line)
    engine.allowance.spend(tenant, await engine.pools.parsing.run(tenant, conversations.cost, *said))
    reply, learned = await engine.batcher.run(conversations.say, *said, who=tenant)
    return JSONResponse(
        {
            "kind": reply.kind,
            "text": reply.text,
            "choices": list(reply.choices),
            "learned": reply.learned,
            "taught": [{"question": one.question, "answer": one.answer} for one in learned],
        }
    )
