"""The newest revision of a task: who asks together asks once, nobody sees another's, and nothing is taken for newer."""

import asyncio
from collections.abc import Collection, Iterator

import pytest

from quickstudy.serving.engine.revisions import Revisions
from quickstudy.serving.engine.store import Store, Unavailable


class Counted(Store):
    """A database that tells what it was asked, and can go away."""

    def __init__(self, url: str):
        super().__init__(url)
        self.asked: list[set[str]] = []
        self.away = False

    def revisions(self, ids: Collection[str]):
        self.asked.append(set(ids))
        if self.away:
            raise Unavailable("the database does not answer")
        return super().revisions(ids)


@pytest.fixture
def store(database: str) -> Iterator[Counted]:
    made = Counted(database)
    yield made
    made.close()


def task(store: Store, tenant: str) -> str:
    return store.create(tenant, "t", "classify", "text", ["a", "b"], [b"x", b"y"], [b"", b""], "0" * 64).id


def test_who_asks_together_asks_once_and_sees_what_is_his(store: Counted) -> None:
    ann, bob = task(store, "ann"), task(store, "bob")

    async def work() -> None:
        revisions = Revisions(store)
        asked = [("ann", ann), ("bob", ann), ("bob", bob), ("ann", "0" * 32), *[("ann", ann)] * 20]
        found = await asyncio.gather(*(revisions.newest(tenant, id) for tenant, id in asked))
        assert found == [(1, "classify", "text"), None, (1, "classify", "text"), None, *[(1, "classify", "text")] * 20]
        assert len(store.asked) <= 2

    asyncio.run(work())


def test_a_question_is_never_answered_by_one_that_began_before_it(store: Counted) -> None:
    id = task(store, "ann")

    async def work() -> None:
        revisions = Revisions(store)
        early = asyncio.create_task(revisions.newest("ann", id))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # the question is on its way
        store.add("ann", id, ["a"], [b"z"], [b""], "0" * 64, lambda classes: None)
        assert await revisions.newest("ann", id) == (2, "classify", "text")
        assert (await early) in ((1, "classify", "text"), (2, "classify", "text"))

    asyncio.run(work())


def test_all_who_ask_hear_that_the_database_is_away_and_a_caller_who_left_harms_nobody(store: Counted) -> None:
    id = task(store, "ann")

    async def work() -> None:
        revisions = Revisions(store)
        store.away = True
        told = await asyncio.gather(*(revisions.newest("ann", id) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in told] == [Unavailable] * 3
        store.away = False
        gone, stays = (asyncio.create_task(revisions.newest("ann", id)) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == (1, "classify", "text")

    asyncio.run(work())
