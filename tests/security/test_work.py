"""No tenant keeps the others waiting by what it asks for (finding 5): work is counted, cut, queued fairly and ended."""

import asyncio
import base64
import io
import json
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from quickstudy.adaptation.adapted import Task, adapt
from quickstudy.adaptation.held_out import held_out
from quickstudy.config import Settings
from quickstudy.data.coded import decoded
from quickstudy.data.media import Extent
from quickstudy.encoders.image import ImageEncoder
from quickstudy.errors import QuickstudyError
from quickstudy.kinds import left_out, openset
from quickstudy.learners import adapt as adapt_learner
from quickstudy.learners import make_learner
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model
from quickstudy.serving.chat.chat import Entry
from quickstudy.serving.chat.conversations import Conversations
from quickstudy.serving.engine import batcher, cost
from quickstudy.serving.engine import engine as engines
from quickstudy.serving.engine.allowance import Allowance, Overdrawn
from quickstudy.serving.engine.batcher import Room, cut
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.line import Busy, Line
from quickstudy.serving.engine.loaded import folder_source
from quickstudy.serving.engine.packing import pack
from quickstudy.serving.engine.pools import Pool
from quickstudy.serving.engine.store import Store
from quickstudy.serving.http.app import make_app
from quickstudy.serving.http.bodies import TaskCreate
from quickstudy.serving.http.inputs import _parsed
from quickstudy.serving.http.metrics import Metrics
from quickstudy.serving.http.shape import check_shape
from quickstudy.serving.http.watch import Watch
from quickstudy.system.turns import Turns, give_way

TICKETS = [
    {"input": "My card was charged twice.", "label": "billing"},
    {"input": "Please send me the invoice again.", "label": "billing"},
    {"input": "The parcel has not arrived.", "label": "delivery"},
    {"input": "Where is my order now?", "label": "delivery"},
]
BODY = {"name": "t", "modality": "text", "examples": TICKETS}
MOST = 5000


@pytest.fixture(scope="session")
def folder(tiny: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    encoders = tiny.model.encoders.model_copy(update={"text": "bytes-cnn"})
    shape = tiny.model.model_copy(update={"encoders": encoders, "learner": "adapt"})
    path = tmp_path_factory.mktemp("served")
    save_model(MetaModel(tiny.inputs, shape, {"text", "image", "audio"}), path, {})
    return path


@pytest.fixture
def make_engine(folder: Path, tiny: Settings, tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    store = Store(f"sqlite:///{tmp_path / 'serve.db'}", patience=1.0)

    def make(**changes: Any) -> Engine:
        return Engine(tiny.serve.model_copy(update=changes), store, folder_source(folder), Metrics())

    yield make
    store.close()


@asynccontextmanager
async def running(engine: Engine, chat: Any = None) -> AsyncIterator[httpx.AsyncClient]:
    app = make_app(engine.settings, engine, chat)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
            yield client


async def made(client: httpx.AsyncClient, body: dict[str, Any] = BODY) -> str:
    reply = await client.post("/tasks", json=body)
    assert reply.status_code == 201, reply.text
    return str(reply.json()["id"])


def predict(client: httpx.AsyncClient, id: str, *queries: str) -> "asyncio.Task[httpx.Response]":
    body = {"queries": queries or ("Where is it?",)}
    return asyncio.create_task(client.post(f"/tasks/{id}/predict", json=body))


def one_line(reply: httpx.Response, status: int, words: str) -> None:
    assert reply.status_code == status, reply.text
    assert words in reply.json()["error"] and "\n" not in reply.json()["error"]


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


# ---- what work costs, before it is begun


def test_texts_cost_what_is_read_of_them() -> None:
    short, long, endless = (cost.of_text(text, 64) for text in ("two words", "word " * 60, "word " * 4000))
    assert short < 2 and 5 * short < long < 15 and long < endless < 100
    assert cost.of_text("語" * 62, 64) == pytest.approx(cost.of_text("a " * 62, 64), rel=0.1)


def test_files_cost_what_their_headers_say() -> None:
    def of(form: str, pixels: int, **more: int) -> float:
        return cost.of_file(Extent(form, pixels=pixels, **more), 700)

    assert of("WEBP", 16_000_000) == pytest.approx(2000, rel=0.1)
    assert of("JPEG", 16_000_000) < of("JPEG", 16_000_000, passes=10) < of("WEBP", 160_000_000)
    assert of("PNG", 28 * 28) < 2 < cost.of_file(Extent("FLAC", samples=48_000 * 60), 700)
    assert of("A NEW ONE", 1_000_000) == of("WEBP", 1_000_000)  # what is not known is not taken for cheap


def test_tasks_cost_examples_times_classes(folder: Path) -> None:
    model = folder_source(folder).load("1", "float32").model
    small, wide, large = (cost.of_adapting(model, *size) for size in ((25, 5), (1000, 500), (5000, 500)))
    assert small < 3 and small < wide / 10 < large / 100
    assert cost.of_held_out(model, 5000, 500) < 50_000  # of a large task fewer are left out
    assert cost.of_answering(model, 5000, 500) > 50 * cost.of_answering(model, 25, 5)


def test_images_of_a_request_are_summed_up_before_any_is_decoded(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (1000, 1000)).save(buffer, "WEBP")
    coded = base64.b64encode(buffer.getvalue()).decode()
    examples = [{"input": coded, "label": "ab"[i % 2]} for i in range(5)]
    monkeypatch.setattr(ImageEncoder, "decoded", lambda *arguments: pytest.fail("it was decoded"))

    async def work() -> None:
        async with running(make_engine(request_pixels=4_000_000)) as client:
            reply = await client.post("/tasks", json={"name": "n", "modality": "image", "examples": examples})
            one_line(reply, 422, "examples.4.input: more than the 4,000,000 pixels allowed in one request")

    asyncio.run(work())


def test_a_task_that_nobody_may_learn_is_not_kept(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine = make_engine(credit=100.0)
        async with running(engine) as client:
            many = [{"input": "x", "label": f"{i % 200}"} for i in range(2000)]
            one_line(await client.post("/tasks", json=BODY | {"examples": many}), 422, "would cost")
            id = await made(client)
            one_line(await client.post(f"/tasks/{id}/examples", json={"examples": many}), 422, "would cost")
            assert (await client.get("/tasks")).json()["tasks"][0]["size"] == 4

    asyncio.run(work())


# ---- how much a tenant may ask for


def test_an_allowance_fills_up_and_may_be_overdrawn_once() -> None:
    now = [0.0]
    allowance = Allowance(budget=10, credit=100, held=1, clock=lambda: now[0])
    with pytest.raises(QuickstudyError, match=r"101 units of work, more than the 100 allowed \(serve.credit\)"):
        allowance.spend("a", 101)
    allowance.spend("a", 90)
    allowance.spend("a", 40)  # the last may be more than there is
    with pytest.raises(Overdrawn) as refused:
        allowance.spend("a", 1)
    assert refused.value.seconds == 4  # 30 units and one
    allowance.spend("b", 100)  # another's is another one
    now[0] = 4.0
    allowance.spend("a", 1)
    allowance.settle("a", 1000)
    now[0] = 5.0
    with pytest.raises(Overdrawn):
        allowance.spend("a", 1)
    Allowance(budget=None, credit=1, held=1).spend("a", 1e9)


def test_bodies_of_a_tenant_are_bounded_together() -> None:
    allowance = Allowance(budget=1, credit=1, held=1)
    with allowance.holding("a") as first:
        first(900_000)
        first(900_000)  # one body alone is bounded by serve.body
        with allowance.holding("a") as second, pytest.raises(Overdrawn, match="1 MB together"):
            second(200_000)
        with allowance.holding("b") as other:
            other(200_000)
    with allowance.holding("a") as again:
        again(1_000_000)


def test_who_has_overdrawn_is_told_when_to_come_back(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine = make_engine(budget=1.0, credit=20.0)
        async with running(engine) as client:
            id = await made(client)
            replies = [await predict(client, id, *["a text of some words"] * 8) for _ in range(4)]
        refused = next(reply for reply in replies if reply.status_code != 200)
        one_line(refused, 429, "more than 1 units of work a second (serve.budget)")
        assert int(refused.headers["retry-after"]) >= 1

    asyncio.run(work())


# ---- who is next


class Thing:
    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.Future()


def test_tenants_take_turns_whoever_has_asked_for_more() -> None:
    async def work() -> None:
        line: Line[Thing] = Line(10)
        for who in "aaaabbc":
            line.put(who, Thing())
        assert "".join(line.take()[0] for _ in range(7)) == "abcabaa"  # type: ignore[index]
        assert line.take() is None and not len(line)

    asyncio.run(work())


def test_who_may_not_be_taken_keeps_the_place_and_who_has_gone_has_none() -> None:
    async def work() -> None:
        line: Line[Thing] = Line(10)
        gone = Thing()
        line.put("a", gone)
        for who in "abb":
            line.put(who, Thing())
        gone.done.cancel()
        assert line.take(lambda who, _: who != "a")[0] == "b"  # type: ignore[index]
        assert line.take()[0] == "a" and len(line) == 1  # type: ignore[index]

    asyncio.run(work())


def test_a_line_is_bounded_for_each_and_for_all() -> None:
    async def work() -> None:
        line: Line[Thing] = Line(2)
        for who in "aa":
            line.put(who, Thing())
        with pytest.raises(Busy, match="2 requests of yours wait already"):
            line.put("a", Thing())
        for who in "bbccdd":
            line.put(who, Thing())
        assert line.is_full
        with pytest.raises(Busy, match="more to do than it can"):
            line.put("e", Thing())

    asyncio.run(work())


def test_inputs_are_cut_by_what_they_cost() -> None:
    parts = cut("abcdefgh", [10, 10, 40, 60, 1, 1, 1, 1], lambda: 50, 3)
    assert ["".join(part) for part, _ in parts] == ["ab", "c", "d", "efg", "h"]
    assert not list(cut("", [], lambda: 50, 3))


def test_pieces_for_an_encoder_that_takes_long_are_small(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(model: Any, modality: str, inputs: list[str]) -> torch.Tensor:
        until = time.thread_time() + 0.05 * len(inputs)
        while time.thread_time() < until:
            pass
        return torch.zeros(len(inputs), model.shape.dimension)

    async def work() -> None:
        engine, sizes = make_engine(), []
        async with running(engine):
            engine.batcher._observe = sizes.append
            texts = ["a text"] * 60
            await engine.batcher.encode(engine.loaded, "text", texts, pack, [1.0] * 60)
            usual = sizes[1:]  # before the first it is not known
            assert sizes[0] <= 5 and max(usual) > 20
            monkeypatch.setattr(batcher, "encode_decoded", slow)
            sizes.clear()
            for _ in range(8):
                await engine.batcher.encode(engine.loaded, "text", texts[:10], pack, [1.0] * 10)
        assert sizes[0] == 10 and max(sizes[-3:]) <= 6

    asyncio.run(work())


def test_no_tenant_has_all_threads_of_a_pool() -> None:
    async def work() -> None:
        pool, end, order = Pool("test", 3, 10), threading.Event(), []
        held = [asyncio.create_task(pool.run("a", end.wait, 60)) for _ in range(5)]
        await asyncio.sleep(0.05)
        order.append(await asyncio.wait_for(pool.run("b", lambda: "b"), 30))
        end.set()
        await asyncio.gather(*held)
        pool.stop()
        assert order == ["b"]

    asyncio.run(work())


def test_files_are_read_on_threads_of_their_own(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are, keys and revisions are looked up and texts are answered."""
    end, names = threading.Event(), []
    before = ImageEncoder.decoded

    def held(self: ImageEncoder, raw: bytes) -> Any:
        names.append(threading.current_thread().name)
        end.wait(60)
        return before(self, raw)

    monkeypatch.setattr(ImageEncoder, "decoded", held)
    buffer = io.BytesIO()
    Image.new("L", (20, 20)).save(buffer, "PNG")
    coded = base64.b64encode(buffer.getvalue()).decode()
    assert decoded(coded, "") == buffer.getvalue()
    images = [{"input": coded, "label": "ab"[i % 2]} for i in range(4)]

    async def work() -> None:
        async with running(make_engine()) as client:
            id = await made(client)
            body = {"name": "n", "modality": "image", "examples": images}
            slow = [asyncio.create_task(client.post("/tasks", json=body)) for _ in range(20)]
            await until(lambda: names)
            assert (await asyncio.wait_for(predict(client, id), 30)).status_code == 200
            assert (await client.get("/ready")).status_code == 200
            assert not any(task.done() for task in slow)
            end.set()
            assert {reply.status_code for reply in await asyncio.gather(*slow)} == {201}
        assert {name.partition("_")[0] for name in names} == {"decoding"}

    asyncio.run(work())


def test_what_is_decoded_and_waits_is_bounded() -> None:
    async def work() -> None:
        room, inside = Room(100), []

        async def enter(who: str, units: float, end: asyncio.Event) -> None:
            async with room.of(who, units):
                inside.append((who, units))
                await end.wait()

        first, rest = asyncio.Event(), asyncio.Event()
        rest.set()
        tasks = [asyncio.create_task(enter("a", 300, first))]  # one alone may be more
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(enter("a", 1, rest)), asyncio.create_task(enter("b", 60, rest))]
        await asyncio.sleep(0.02)
        assert inside == [("a", 300), ("b", 60)]
        first.set()
        await asyncio.gather(*tasks)
        assert inside[-1] == ("a", 1)

    asyncio.run(work())


# ---- long work gives way


def test_work_in_turns_goes_on_where_it_stopped() -> None:
    done: list[int] = []

    def deep(number: int) -> None:
        done.append(number)
        give_way()

    turns = Turns(lambda: [deep(number) for number in range(5)] and sum(done))
    stops = 0
    while not turns.go_on(0.0):
        stops += 1
    assert turns.result == 10 and stops == 5
    give_way()  # of nobody's turns: nothing happens


def test_others_have_their_turn_while_one_never_ends(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine, ended = make_engine(), threading.Event()
        order: list[str] = []

        def endless(name: str) -> str:
            while not ended.is_set():
                order.append(name)
                time.sleep(0.01)
                give_way()
            return name

        async with running(engine) as client:
            id = await made(client)
            long = [asyncio.create_task(engine.batcher.run(endless, who, who=who)) for who in ("a", "a", "b")]
            await until(lambda: len(set(order)) == 2)
            for _ in range(3):
                assert (await asyncio.wait_for(predict(client, id), 30)).status_code == 200
            assert not any(task.done() for task in long)
            ended.set()
            assert await asyncio.gather(*long) == ["a", "a", "b"]
        assert 0.2 < order.count("b") / order.count("a") < 5

    asyncio.run(work())


def switches(work: Callable[[], Any]) -> tuple[int, Any]:
    """How often work can stop, and what it comes to."""
    turns, count = Turns(work), 0
    while not turns.go_on(0.0):
        count += 1
    return count, turns.result


@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_leaving_examples_out_and_adapting_give_way(kind: str, tiny: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tiny.of(kind)
    encoders = own.model.encoders.model_copy(update={"text": "bytes-cnn"})
    model = MetaModel(own.inputs, own.model.model_copy(update={"encoders": encoders}), {"text"}, kind).eval()
    torch.manual_seed(0)
    names = [f"{i % 4}" for i in range(40)]
    targets = tuple(names if kind == "classify" else [[name] for name in names])
    task = Task(kind, "text", targets, torch.randn(40, own.model.dimension), "")
    whole = adapt(model, task, 0.05), held_out(model, task)
    for place, name, small in ((left_out, "PRODUCTS", 1), (adapt_learner, "AT_ONCE", 16)):
        monkeypatch.setattr(place, name, small)
    monkeypatch.setattr("quickstudy.adaptation.adapted.PRODUCTS", 1)
    stops, adapted = switches(lambda: adapt(model, task, 0.05))
    assert stops >= 4
    for name, tensor in adapted.learned.items():
        torch.testing.assert_close(tensor, whole[0].learned[name], rtol=1e-3, atol=1e-4, equal_nan=True)
    stops, again = switches(lambda: held_out(model, task))
    assert stops >= 40 and again == pytest.approx(whole[1])


def test_a_large_kernel_matrix_is_inverted_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    support, targets = torch.randn(90, 16), torch.arange(90) % 7
    whole = openset.fit(support, targets, 0.05)
    monkeypatch.setattr(openset, "AT_ONCE", 8)
    monkeypatch.setattr(openset, "BLOCK", 16)
    stops, parts = switches(lambda: openset.fit(support, targets, 0.05))
    assert stops > 30 and parts.threshold == pytest.approx(whole.threshold, abs=1e-9)
    torch.testing.assert_close(parts.weights, whole.weights)


def test_a_chat_gives_way_while_it_reads_its_questions(folder: Path) -> None:
    loaded, chats = folder_source(folder).load("1", "float32"), Conversations(0.05, 0.4)
    entries = [Entry(f"{i} " + "question " * 20, f"answer {i % 50}") for i in range(200)]
    said = (loaded, "tenant", "session", entries, [], "what is it")
    before = chats.cost(*said)
    stops, _ = switches(lambda: chats.say(*said))
    assert stops >= 10 and before > 500
    assert chats.cost(*said) < before / 100  # it is remembered


def test_every_learner_says_what_it_does(tiny: Settings) -> None:
    for name in ("protonet", "adapt", "ridge", "kernel", "anil", "incontext"):
        learner = make_learner(tiny.model.model_copy(update={"learner": name}), torch.nn.ModuleDict()).on_vectors
        assert learner is not None
        assert 25 * 5 * 64 <= learner.effort(25, 5, 64) < learner.effort(50, 5, 64) < learner.effort(500, 50, 64) / 10


# ---- what nobody waits for is not done


def test_long_work_ends_when_whoever_asked_has_gone(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine, closed, count = make_engine(), [], [0]

        def endless() -> None:
            try:
                while True:
                    count[0] += 1
                    time.sleep(0.01)
                    give_way()
            finally:
                closed.append(True)

        async with running(engine):
            asked = asyncio.create_task(engine.batcher.run(endless, who="a"))
            await until(lambda: count[0])
            asked.cancel()
            await until(lambda: closed)
            seen = count[0]
            assert await engine.batcher.run(lambda: 1, who="a") == 1
        assert count[0] == seen

    asyncio.run(work())


def test_pieces_are_not_begun_when_whoever_asked_has_gone(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine, sizes = make_engine(batch=4), []
        async with running(engine):
            engine.batcher._observe = sizes.append
            held = asyncio.get_running_loop().run_in_executor(engine.batcher._thread, time.sleep, 0.2)
            asked = [
                asyncio.create_task(engine.batcher.encode(engine.loaded, "text", ["a text"] * 40, pack, who="a"))
                for _ in range(20)
            ]
            await asyncio.sleep(0.05)
            for task in asked:
                task.cancel()
            await held
            await engine.batcher.encode(engine.loaded, "text", ["another"], pack, who="b")
        assert sum(sizes) <= 8  # of 800: what was at work already, and the other's

    asyncio.run(work())


def test_a_task_that_nobody_waits_for_is_not_adapted(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine = make_engine()
        async with running(engine) as client:
            id = await made(client)
            held = asyncio.get_running_loop().run_in_executor(engine.batcher._thread, time.sleep, 0.3)
            asked = [predict(client, id) for _ in range(2)]
            await until(lambda: engine._adapting)
            await asyncio.sleep(0.05)
            asked[0].cancel()
            await asyncio.sleep(0.05)
            assert engine._adapting  # the other still waits
            asked[1].cancel()
            await until(lambda: not engine._adapting)
            await held
            assert not engine._at_hand
            assert (await predict(client, id)).status_code == 200

    asyncio.run(work())


async def called(app: Any, settings: Any, messages: "asyncio.Queue[dict[str, Any]]") -> list[dict[str, Any]]:
    """What a caller is sent by an app that is watched."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await Watch(app, settings)({"type": "http", "headers": [(b"content-length", b"1")]}, messages.get, send)  # type: ignore[arg-type]
    return sent


def test_a_request_ends_when_its_caller_has_gone_and_at_its_deadline(tiny: Settings) -> None:
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def work() -> None:
        messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for gone, deadline, words in ((True, 60.0, b"the caller has gone"), (False, 0.1, b"0.1 seconds (serve.dead")):
            messages.put_nowait({"type": "http.request", "body": b"x", "more_body": False})
            if gone:
                messages.put_nowait({"type": "http.disconnect"})
            settings = tiny.serve.model_copy(update={"deadline": deadline})
            sent = await asyncio.wait_for(called(app, settings, messages), 30)
            assert sent[0]["status"] == 503 and words in sent[1]["body"]
        assert ended == ["cancelled"] * 2

    asyncio.run(work())


def test_a_deadline_is_told_in_a_line(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine = make_engine(deadline=0.2)
        async with running(engine) as client:
            id = await made(client)
            held = asyncio.get_running_loop().run_in_executor(engine.batcher._thread, time.sleep, 1.5)
            one_line(await predict(client, id), 503, "more than 0.2 seconds (serve.deadline)")
            await held

    asyncio.run(work())


# ---- when there is too much, and whoever watches is told


def test_a_full_line_answers_503_and_others_are_let_in(make_engine: Callable[..., Engine]) -> None:
    async def work() -> None:
        engine = make_engine(waiting=2)
        async with running(engine) as client:
            id = await made(client)
            assert (await predict(client, id)).status_code == 200
            held = asyncio.get_running_loop().run_in_executor(engine.batcher._thread, time.sleep, 1.0)
            asked = [predict(client, id)]
            await until(lambda: engine.batcher.at_work)  # it waits for the thread, the others for their turn
            asked += [predict(client, id) for _ in range(8)]
            await until(lambda: len(engine.batcher.pieces) == 2)
            other = asyncio.create_task(engine.batcher.encode(engine.loaded, "text", ["x"], pack, who="another"))
            codes = [reply.status_code for reply in await asyncio.gather(*asked)]
            assert len(await other) == 1
            await held
            refused = next(task.result() for task in asked if task.result().status_code == 503)
        one_line(refused, 503, "requests of yours wait already (serve.waiting)")
        assert refused.headers["retry-after"] == "1"
        assert set(codes) == {200, 503} and codes.count(200) >= 2

    asyncio.run(work())


def test_ready_notices_a_stuck_thread_a_full_line_and_a_dead_database(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        engine, end = make_engine(stuck=0.05, waiting=1), threading.Event()
        async with running(engine) as client:
            assert (await client.get("/ready")).status_code == 200
            held = asyncio.create_task(engine.batcher.run(end.wait, 60, who="a"))
            await asyncio.sleep(0.3)
            one_line(await client.get("/ready"), 503, "the thread that computes has been at one piece of work")
            assert (await client.get("/health")).status_code == 200
            end.set()
            await held
            assert (await client.get("/ready")).status_code == 200

            monkeypatch.setattr(engine.batcher, "long", Line(1))
            for who in "abcd":
                engine.batcher.long.put(who, Thing())  # type: ignore[arg-type]
            one_line(await client.get("/ready"), 503, "as much waits as may")
            monkeypatch.undo()

            monkeypatch.setattr(engines, "PING", 0.1)
            again = threading.Event()
            monkeypatch.setattr(engine.store, "ping", lambda: again.wait(60))
            one_line(await client.get("/ready"), 503, "the database does not answer")
            again.set()

    asyncio.run(work())


# ---- bodies are counted while they are read

HEAD = b'{"name":"a","modality":"text","examples":'
HOSTILE = {
    "empty examples": HEAD + b"[" + b"{}," * 1_250_000 + b"{}]}",
    "unknown fields": HEAD[:-11] + b",".join(b'"f%d":1' % i for i in range(400_000)) + b"}",
    "one field again and again": b"{" + b'"name":"a",' * 400_000 + b'"modality":"text","examples":[{}]}',
    "fields of an example": HEAD + b"[{" + b",".join(b'"f%d":1' % i for i in range(400_000)) + b"}]}",
    "nested lists": HEAD + b"[" * 4_000_000,
    "nested objects": HEAD + b'{"a":' * 800_000,
    "tags": HEAD + b'[{"input":"a","labels":[' + b'"a",' * 1_000_000 + b'"a"]}]}',
    "tags of many": HEAD + b"[" + (b'{"labels":[' + b'"a",' * 200 + b'"a"]},') * 4000 + b"{}]}",
    "a number": HEAD + b"[]," + b'"format":' + b"9" * 4_000_000 + b"}",
    "a fraction": HEAD + b"[]," + b'"format":1.' + b"9" * 4_000_000 + b"}",
    "blanks": HEAD + b" " * 4_000_000 + b"[]}",
    "a text that does not end": HEAD + b'[{"input":"' + b'\\"' * 2_000_000,
    "texts that do not begin": HEAD + b'[{"input":"' + b'\\"' * 2_000_000 + b'"' * 100_000,
    "numbers": HEAD + b"[" + b"1," * 2_000_000 + b"1]}",
}


@pytest.fixture(scope="module")
def accepted() -> tuple[float, int]:
    """Seconds and bytes of memory that reading the largest body of a task takes, which is accepted."""
    body = {"name": "a", "modality": "text"}
    examples = [{"input": "word " * 150, "label": f"class {i % 500}"} for i in range(MOST)]
    return measured(json.dumps(body | {"examples": examples}).encode(), is_sound=True)


def measured(data: bytes, is_sound: bool) -> tuple[float, int]:
    def read() -> None:
        try:
            check_shape(data, MOST)
            _parsed(TaskCreate, data)
            assert is_sound
        except QuickstudyError as error:
            assert not is_sound and "\n" not in str(error)

    started = time.perf_counter()
    read()
    seconds = time.perf_counter() - started
    tracemalloc.start()
    read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return seconds, peak


@pytest.mark.parametrize("name", HOSTILE)
def test_a_body_that_is_refused_costs_no_more_than_one_that_is_accepted(name: str, accepted: tuple[float, int]) -> None:
    seconds, peak = measured(HOSTILE[name], is_sound=False)
    assert seconds < 20 * accepted[0] and peak < 3 * accepted[1]


@pytest.mark.parametrize("name", ["empty examples", "unknown fields", "nested lists", "a number"])
def test_hostile_bodies_are_refused_in_a_line(name: str, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine()
    with TestClient(
        make_app(engine.settings, engine), base_url="http://127.0.0.1", client=("127.0.0.1", 50000)
    ) as client:
        reply = client.post("/tasks", content=HOSTILE[name], headers={"content-type": "application/json"})
        assert reply.status_code == 422 and "\n" not in reply.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        BODY | {"examples": [{"input": 'a "quoted" {text}, [with] marks \\ and ,,,,' * 400, "label": "x"}] * MOST},
        BODY | {"kind": "tag", "examples": [{"input": "a", "labels": [f"{k}" for k in range(500)]}] * 200},
    ],
)
@pytest.mark.parametrize("indent", [None, 4])
def test_sound_bodies_keep_their_shape(body: dict[str, Any], indent: int | None) -> None:
    check_shape(json.dumps(body, indent=indent).encode(), MOST)


def test_what_is_no_json_is_left_to_the_parser() -> None:
    for data in (b"", b"]]]]", b"}{", b'"', b"nul", b'{"a":"\xff"}', b"[,]"):
        check_shape(data, MOST)
