"""What a route may ask for: who calls, and the parts of the service, which lie on `app.state`.

They are coroutines although they wait for nothing: FastAPI runs a plain function on another thread, which takes longer.
"""

from typing import Annotated, cast

from fastapi import Depends, Path, Request

from quickstudy.config import Serve
from quickstudy.serving.chat.conversations import Conversations
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.revisions import Revisions
from quickstudy.serving.http.access import Access

TaskId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="of a task")]
ExampleId = Annotated[int, Path(ge=1, lt=2**31, description="of an example")]


async def get_tenant(request: Request) -> str:
    """Return whose tasks a request may see.

    Raises:
        HTTPException: see `Access.tenant`.
    """
    access: Access = request.app.state.access
    return await access.tenant(request)


async def get_settings(request: Request) -> Serve:
    """Return the limits of the service."""
    return cast(Serve, request.app.state.settings)


async def get_engine(request: Request) -> Engine:
    """Return what encodes and answers."""
    return cast(Engine, request.app.state.engine)


async def get_revisions(request: Request) -> Revisions:
    """Return what looks tasks up before they are used."""
    return cast(Revisions, request.app.state.revisions)


async def get_conversations(request: Request) -> Conversations:
    """Return the chats of the playground."""
    return cast(Conversations, request.app.state.conversations)


Tenant = Annotated[str, Depends(get_tenant)]
SettingsDep = Annotated[Serve, Depends(get_settings)]
EngineDep = Annotated[Engine, Depends(get_engine)]
RevisionsDep = Annotated[Revisions, Depends(get_revisions)]
ConversationsDep = Annotated[Conversations, Depends(get_conversations)]
