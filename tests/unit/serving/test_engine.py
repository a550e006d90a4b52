"""What happens at once: batches, an alias that moves under load, the challenger's shadow, several replicas."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from quickstudy.adaptation.adapted import encode
from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model
from quickstudy.serving.engine.engine import Answered, Engine
from quickstudy.serving.engine.loaded import fast_dtype, folder_source
from quickstudy.serving.engine.packing import pack
from quickstudy.serving.engine.shadow import compare
from quickstudy.serving.engine.store import Store
from quickstudy.serving.http.logs import SHADOW, JsonLines
from quickstudy.serving.http.metrics import Metrics
from tests.unit.serving.conftest import TICKETS, running, until

BODY = {"name": "tickets", "modality": "text", "examples": TICKETS}


async def make_task(client: httpx.AsyncClient) -> str:
    reply = await client.post("/tasks", json=BODY)
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


async def ask(client: httpx.AsyncClient, id: str, *queries: str) -> dict[str, Any]:
    reply = await client.post(f"/tasks/{id}/predict", json={"queries": queries or ["Where is it?"]})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_requests_that_arrive_together_are_encoded_together(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine = make_engine(wait=50)
        sizes: list[int] = []
        async with running(engine) as client:
            id = await make_task(client)
            alone = [await ask(client, id, f"query {i}") for i in range(8)]
            engine.batcher._observe = sizes.append
            together = await asyncio.gather(*(ask(client, id, f"query {i}") for i in range(8)))
        assert sum(sizes) == 8 and len(sizes) <= 2
        for one, other in zip(alone, together, strict=True):  # and nobody gets another's answer
            near = [[n["likeness"] for n in reply["answers"][0]["nearest"]] for reply in (one, other)]
            assert near[0] == pytest.approx(near[1], abs=1e-4)

    asyncio.run(work())


@pytest.mark.parametrize(("wait", "is_known_to_come"), [(500, False), (20, True)])
def test_who_was_answered_before_is_waited_for(
    make_engine: Callable[..., Engine], wait: float, is_known_to_come: bool
) -> None:
    async def work() -> None:
        engine = make_engine(wait=wait)
        sizes: list[int] = []
        async with running(engine):
            batcher = engine.batcher
            batcher._observe = sizes.append

            def ask(text: str) -> "asyncio.Future[list[bytes]]":
                return asyncio.ensure_future(batcher.encode(engine.loaded, "text", [text], pack))

            held = asyncio.get_running_loop().run_in_executor(batcher._thread, time.sleep, 0.2)
            first = ask("the first is alone")
            await asyncio.sleep(0.05)
            others = [ask(f"the others wait, as {i}") for i in range(3)]
            await asyncio.gather(held, first)
            with batcher.coming() if is_known_to_come else contextlib.nullcontext():
                await asyncio.sleep(0.1)
                again = ask("and the first asks again")
                await asyncio.sleep(0)
            await asyncio.gather(*others, again)
        assert sizes == [1, 4]

    asyncio.run(work())


def test_a_batch_answers_each_task_once_and_one_bad_input_harms_nobody_else(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine = make_engine(wait=50)
        asked: list[int] = []
        async with running(engine):
            batcher, loaded = engine.batcher, engine.loaded

            def finish(name: str) -> Callable[[torch.Tensor], list[str]]:
                def rows(vectors: torch.Tensor) -> list[str]:
                    asked.append(len(vectors))
                    if name == "broken":
                        raise ValueError(name)
                    return [f"{name} {vectors.shape[1]}"] * len(vectors)

                return rows

            one, other, broken = finish("one"), finish("other"), finish("broken")
            await batcher.run(time.sleep, 0.2)  # meanwhile all of these come to wait
            given = [("a", one), ("b", other), (b"no image", one), ("c", broken), ("d", one)]
            replies = await asyncio.gather(
                *(batcher.encode(loaded, "image" if x == b"no image" else "text", [x], f) for x, f in given),
                return_exceptions=True,
            )
        size = loaded.model.shape.dimension
        assert [replies[0], replies[1], replies[4]] == [[[f"one {size}"]], [[f"other {size}"]], [[f"one {size}"]]]
        assert isinstance(replies[2], QuickstudyError) and isinstance(replies[3], ValueError)
        assert sorted(asked) in ([1, 1, 1, 1], [1, 1, 2])  # the first may go alone

    asyncio.run(work())


def test_texts_may_be_encoded_in_bfloat16(tiny: Settings, tmp_path: Path) -> None:
    save_model(MetaModel(tiny.inputs, tiny.model, {"text"}), tmp_path, {})
    source, texts = folder_source(tmp_path), [f"query number {i} of a few" for i in range(12)]
    found = {}
    for precision in ("float32", "bfloat16", "auto"):
        model = source.load("1", precision).model
        found[precision] = encode(model, "text", texts)
        assert found[precision].dtype == torch.float32
    assert not torch.equal(found["bfloat16"], found["float32"])
    assert torch.nn.functional.cosine_similarity(found["bfloat16"], found["float32"]).min() > 0.999
    assert torch.equal(found["auto"], found["bfloat16" if fast_dtype() == torch.bfloat16 else "float32"])


def test_long_requests_are_cut_so_that_others_get_their_turn(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine = make_engine(batch=4)
        sizes: list[int] = []
        async with running(engine) as client:
            id = await make_task(client)
            engine.batcher._observe = sizes.append
            reply = await ask(client, id, *(f"query {i}" for i in range(10)))
        assert sizes == [4, 4, 2] and len(reply["answers"]) == 10

    asyncio.run(work())


def test_the_next_model_takes_over_without_a_dropped_request(
    make_engine: Callable[..., Engine], alias: dict[str, str | None], store: Store
) -> None:
    async def work() -> None:
        engine = make_engine()
        async with running(engine) as client:
            ids = [await make_task(client) for _ in range(4)]
            old = engine.loaded
            before = await ask(client, ids[0])
            stop = False
            replies: list[dict[str, Any]] = []

            async def load() -> None:
                while not stop:
                    replies.append(await ask(client, ids[0]))

            clients = [asyncio.create_task(load()) for _ in range(4)]
            await asyncio.sleep(0.1)
            alias["champion"] = "2"
            await until(lambda: engine.loaded.version == "2")
            await until(lambda: store.unseen(engine.loaded.digest, "classify", "", 10) == [])
            await asyncio.sleep(0.1)
            stop = True
            await asyncio.gather(*clients)
            after = await ask(client, ids[0])
            # Each answer is that of the version it names, and nobody goes back.
            for reply in replies:
                assert alike(reply, before) or alike(reply, after)
            assert not alike(before, after)
            versions = [reply["model"]["version"] for reply in replies]
            assert set(versions) == {"1", "2"}
            assert after["model"]["digest"] == engine.loaded.digest
            # A task that nobody asked was adapted in the background; the old model's vectors serve a rollback.
            for digest in (old.digest, engine.loaded.digest):
                contents = store.contents(ids[3], digest)
                assert contents is not None and len(contents.packed) == 4
            alias["champion"] = "1"
            await until(lambda: engine.loaded.version == "1")
            assert alike(await ask(client, ids[0]), before)

    asyncio.run(work())


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """The same version said the same; how many were encoded at once shows in the last digits."""
    chances = [list(reply["answers"][0]["probabilities"].values()) for reply in (one, other)]
    return one["model"] == other["model"] and chances[0] == pytest.approx(chances[1], abs=1e-5)


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(
    make_engine: Callable[..., Engine], alias: dict[str, str | None], folders, tmp_path
) -> None:
    async def work() -> None:
        engine = make_engine()
        tried: list[str] = []
        fetch = engine._champion.fetch

        def missing(version: str):
            tried.append(version)
            if version == "3":
                raise QuickstudyError("there is no such model")
            return fetch(version)

        object.__setattr__(engine._champion, "fetch", missing)
        async with running(engine) as client:
            id = await make_task(client)
            alias["champion"] = "3"
            await until(lambda: "3" in tried)
            await asyncio.sleep(0.4)
            assert (await ask(client, id))["model"]["version"] == "1" and tried == ["3"]  # and not again and again
            alias["champion"] = "2"
            await until(lambda: engine.loaded.version == "2")

    asyncio.run(work())


def test_a_registry_that_is_away_stops_nothing(make_engine: Callable[..., Engine], alias) -> None:
    async def work() -> None:
        engine = make_engine()
        async with running(engine) as client:
            id = await make_task(client)
            del alias["champion"]  # to look raises
            await asyncio.sleep(0.3)
            assert (await ask(client, id))["model"]["version"] == "1"
            alias["champion"] = "2"
            await until(lambda: engine.loaded.version == "2")

    asyncio.run(work())


def test_what_one_replica_changes_another_sees_at_once(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        async with running(make_engine()) as one, running(make_engine()) as two:
            id = await make_task(one)
            assert alike(await ask(two, id), await ask(one, id))
            more = {"examples": [{"input": "I forgot my password.", "label": "login"}]}
            assert (await one.post(f"/tasks/{id}/examples", json=more)).status_code == 201
            reply = await ask(two, id, "I forgot my password.")
            assert reply["revision"] == 2 and "login" in reply["answers"][0]["probabilities"]
            assert (await two.delete(f"/tasks/{id}")).status_code == 204
            assert (await one.post(f"/tasks/{id}/predict", json={"queries": ["a"]})).status_code == 404

    asyncio.run(work())


def test_examples_added_at_once_are_all_there(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        async with running(make_engine()) as one, running(make_engine()) as two:
            id = await make_task(one)
            bodies = [{"examples": [{"input": f"number {i}", "label": f"class {i % 3}"}]} for i in range(12)]
            replies = await asyncio.gather(
                *((one, two)[i % 2].post(f"/tasks/{id}/examples", json=body) for i, body in enumerate(bodies))
            )
            assert sorted(reply.json()["added"][0] for reply in replies) == list(range(5, 17))
            assert (await one.get(f"/tasks/{id}")).json()["revision"] == 13

    asyncio.run(work())


def test_tasks_at_hand_are_bounded_and_adapted_once(make_engine: Callable[..., Engine], monkeypatch) -> None:
    async def work() -> None:
        engine = make_engine()
        async with running(engine) as client:
            ids = [await make_task(client) for _ in range(3)]
            await asyncio.gather(*(ask(client, ids[0]) for _ in range(6)))
            assert engine.metrics.adapted._value.get() == 1
            size = engine._at_hand[ids[0], engine.loaded.digest].size
            engine.settings = engine.settings.model_copy(update={"memory": 2.5 * size / 1_000_000})
            for id in ids:
                await ask(client, id)
            assert [key[0] for key in engine._at_hand] == ids[1:]
            assert engine._bytes == sum(ready.size for ready in engine._at_hand.values())

    asyncio.run(work())


def test_the_challenger_answers_in_the_shadow(
    make_engine: Callable[..., Engine], alias: dict[str, str | None], caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    told: list[tuple[str, Answered, Answered]] = []

    def both(task: str, champion: Answered, challenger: Answered) -> None:
        told.append((task, champion, challenger))
        compare(metrics, task, champion, challenger)

    async def work() -> None:
        engine = make_engine(shadow=True, compare=both)
        async with running(engine) as client:
            id = await make_task(client)
            await ask(client, id)
            assert not told
            alias["challenger"] = "2"
            await until(lambda: engine.shadow is not None)
            queries = [f"query {i}" for i in range(30)]
            reply = await ask(client, id, *queries)
            await until(lambda: len(told) == 1)
            assert reply["model"]["version"] == "1" and told[0][2].loaded.version == "2"
            alias["challenger"] = None
            await until(lambda: engine.shadow is None)

    with caplog.at_level(logging.INFO, SHADOW.name):
        asyncio.run(work())
    agree, disagree = (metrics.shadow.labels(outcome)._value.get() for outcome in ("agree", "disagree"))
    assert agree + disagree == 30 and disagree > 0
    (record,) = [record for record in caplog.records if record.name == SHADOW.name]
    line = JsonLines().format(record)
    assert len(json.loads(line)["disagreements"]) == disagree
    for content in ("query", "billing", "delivery", *(one["input"] for one in TICKETS)):
        assert content not in line


def test_a_database_that_is_away_is_told_and_waited_for(make_engine: Callable[..., Engine], monkeypatch) -> None:
    import sqlalchemy.exc

    async def work() -> None:
        engine = make_engine()
        async with running(engine) as client:
            id = await make_task(client)
            connect, failures = engine.store._engine.connect, [3]

            def away() -> Any:
                if failures[0]:
                    failures[0] -= 1
                    raise sqlalchemy.exc.OperationalError("", {}, Exception("the server closed the connection"))
                return connect()

            monkeypatch.setattr(engine.store._engine, "connect", away)
            assert len((await ask(client, id))["answers"]) == 1  # it came back in time
            failures[0] = 10**9
            reply = await client.post(f"/tasks/{id}/predict", json={"queries": ["a"]})
            assert reply.status_code == 503 and "the database does not answer" in reply.json()["error"]
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/health")).status_code == 200
            failures[0] = 0

    asyncio.run(work())
