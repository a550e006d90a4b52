"""Which revision of a task is the newest, asked before each use of it. Requests that arrive together ask once."""

import asyncio
from typing import cast

from quickstudy.data.dataset import Modality
from quickstudy.serving.engine.store import Store

Found = tuple[int, str, Modality] | None


class Revisions:
    """Belongs to an event loop. While one question is on its way to the database, all others gather for the next."""

    def __init__(self, store: Store):
        self._store = store
        self._waiting: list[tuple[str, str, asyncio.Future[Found]]] = []
        self._asking: asyncio.Task[None] | None = None

    async def newest(self, tenant: str, id: str) -> Found:
        """A task's revision, kind and modality, as the database has them after this call; None where there is none.

        Raises:
            Unavailable: the database does not answer.
        """
        answer: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
        self._waiting.append((tenant, id, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await answer

    async def _ask(self) -> None:
        try:
            while self._waiting:
                asked, self._waiting = self._waiting, []
                try:
                    found = await asyncio.to_thread(self._store.revisions, {id for _, id, _ in asked})
                except Exception as error:
                    for _, _, answer in asked:
                        if not answer.done():  # else whoever asked has gone
                            answer.set_exception(error)
                    continue
                for tenant, id, answer in asked:
                    owner, *newest = found.get(id, (None,))
                    if not answer.done():
                        answer.set_result(cast(Found, tuple(newest)) if owner == tenant else None)
        finally:
            self._asking = None
