"""The same words against a service: what it answers, refuses and loses."""

import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quickstudy import Quickstudy
from quickstudy.client import remote
from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.loaded import Source
from quickstudy.serving.engine.store import Store
from quickstudy.serving.http.app import make_app
from quickstudy.serving.http.metrics import Metrics
from tests.unit.serving.conftest import listening

Fault = Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]]


class Service:
    """The real one, and the line to it: `faults` is what becomes of the next requests."""

    def __init__(self, app: ASGIApp, key: str):
        self.app, self.key, self.url = app, key, ""
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = through
        if scope["type"] == "http":
            self.seen.append((scope["method"], scope["path"]))
            fault = self.faults.pop(0) if self.faults else through
        await fault(self.app, scope, receive, send)


async def through(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


async def lost(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """The request is done, and the connection breaks before the answer is there."""

    async def head_alone(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)

    await app(scope, receive, head_alone)


async def silent(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def somebody_else(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse(["a page of somebody else"])(scope, receive, send)


@pytest.fixture
def make_service(
    tiny: Settings, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Service]]:
    """A service whose settings are changed so."""
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    store = Store(f"sqlite:///{tmp_path / 'serve.db'}")
    with ExitStack() as stack:
        stack.callback(store.close)

        def make(**changes: Any) -> Service:
            settings = tiny.serve.model_copy(update=changes)
            engine = Engine(settings, store, Source(lambda: "3", lambda _: model_folder), Metrics())
            service = Service(make_app(settings, engine), store.add_key("ann"))
            service.url = stack.enter_context(listening(service, settings))
            return service

        yield make


@pytest.fixture
def service(make_service: Callable[..., Service]) -> Service:
    return make_service()


@pytest.fixture
def there(service: Service) -> Quickstudy:
    return Quickstudy.connect(service.url, service.key)


@pytest.fixture
def pictures(toys) -> tuple[list[bytes], list[str]]:
    dataset = toys("image", classes=3, each=4)
    return dataset.raw(), dataset.column("label")


TEXTS, LABELS = ["Where is my parcel?", "When will it arrive?", "Money back!", "A refund, please"], list("ssrr")
ROUNDED = 0.01  # a service keeps vectors in 8 bits


def test_it_answers_as_the_model_in_this_process_does(
    qs: Quickstudy, service: Service, there, pictures, monkeypatch
) -> None:
    monkeypatch.setattr(remote, "QUERIES", 5)  # so that one call of ours is three of the service's
    here, far = qs.adapt(*pictures), there.adapt(*pictures, name="shapes")
    assert far.classes == here.classes and len(far) == 12 and far.name == "shapes" and far.modality == "image"
    service.seen.clear()
    assert np.allclose(far.predict_proba(pictures[0]), here.predict_proba(pictures[0]), atol=ROUNDED)
    assert service.seen == [("POST", f"/tasks/{far.id}/predict")] * 3
    assert far.predict(pictures[0]).tolist() == here.predict(pictures[0]).tolist()
    mine, answer = here.answer(pictures[0][5]), far.answer(pictures[0][5])
    assert (answer.label, answer.unknown) == (mine.label, mine.unknown)
    assert (answer.unlikeness, answer.threshold) == pytest.approx((mine.unlikeness, mine.threshold), abs=ROUNDED)
    assert answer.nearest[0].example.id == mine.nearest[0].example.id == "6"
    assert answer.nearest[0].example.name == "image 6" and answer.model == "3"


def test_sounds_by_the_same_words(there, wav) -> None:
    task = there.adapt([wav(1), wav(2), wav(3)], ["x", "y", "z"])
    assert task.modality == "audio" and task.predict([wav(2), wav(3)]).tolist() == ["y", "z"]
    assert task.answer(wav(1)).threshold == float("inf")  # too few to tell what is unknown


def test_teach_more_and_take_back(there) -> None:
    task = there.adapt(TEXTS, LABELS)
    ids = task.add(["Hello", "Good morning"], "greeting")
    assert ids == ["5", "6"] and task.classes == ("greeting", "r", "s") and task.predict("Hello!") == "greeting"
    assert [example.name for example in task.examples] == [*TEXTS, "Hello", "Good morning"]
    for gone, line in ((["5", "99"], "no example '99'"), (["3", "4", "5", "6"], "two classes or more")):
        with pytest.raises(QuickstudyError, match=line):
            task.remove(gone)
    assert len(task.examples) == 6  # what fails changes nothing
    task.remove(ids)
    assert task.classes == ("r", "s") and len(task) == len(task.examples) == 4


def test_what_others_taught_is_noticed(there) -> None:
    task = there.adapt(TEXTS, LABELS)
    there.open(task.id).add("Hello", "greeting")
    assert task.predict_proba(["Hello"]).shape == (1, 3) and task.classes == ("greeting", "r", "s")


def test_tasks_are_listed_opened_saved_and_deleted(there, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(remote, "PAGE", 2)
    made = [there.adapt(TEXTS, LABELS, name=f"task {i}") for i in range(5)]
    assert there.tasks() == {task.id: f"task {i}" for i, task in enumerate(made)}
    made[0].save(tmp_path / "saved.json")
    made[0].delete()
    for gone, line in ((made[0].id, "there is no such task"), ("../nothing", "neither a file nor the id of a task")):
        with pytest.raises(QuickstudyError, match=line):
            there.open(gone)
    back = there.open(tmp_path / "saved.json")
    assert back.name == "task 0" and [example.name for example in back.examples] == TEXTS
    (tmp_path / "other").write_bytes(b"\xff")
    with pytest.raises(QuickstudyError, match="other: is no task that a service can read"):
        there.open(tmp_path / "other")


def test_a_lost_connection_is_tried_again_where_that_does_no_harm(service: Service, there) -> None:
    task = there.adapt(TEXTS, LABELS)
    service.faults = [lost, lost, lost]
    assert task.predict("Money") == "r"
    service.faults = [through, lost]
    task.remove("1")  # it was done at once; the second try finds nothing left to do
    assert len(task) == len(task.examples) == 3
    service.seen.clear()
    service.faults = [lost]
    with pytest.raises(QuickstudyError, match=r"the connection was lost .* It may have arrived or not"):
        task.add("Hello", "greeting")
    assert len(service.seen) == 1 and len(task.examples) == 4  # it had arrived, and once
    service.faults = [lost] * remote.TRIES
    with pytest.raises(QuickstudyError, match="the connection was lost"):
        task.predict("Money")
    assert not service.faults


def test_what_is_asked_to_come_later_comes_later(make_service: Callable[..., Service], monkeypatch) -> None:
    service = make_service(rate=0.7, burst=1)
    waits: list[float] = []
    sleep = time.sleep
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: sleep(seconds) or waits.append(seconds))
    task = Quickstudy.connect(service.url, service.key).adapt(TEXTS, LABELS)
    assert len(task) == 4 and len(waits) < 2  # whoever comes when he was told to is answered
    monkeypatch.setattr(remote.time, "sleep", waits.append)
    service.seen.clear()
    with pytest.raises(QuickstudyError, match=r"more than 0\.7 requests a second"):
        task.predict("Money")
    assert len(service.seen) == remote.TRIES


def test_nobody_waits_longer_than_an_answer_may_take(make_service: Callable[..., Service]) -> None:
    service = make_service(rate=0.001, burst=1)
    there = Quickstudy.connect(service.url, service.key)
    with pytest.raises(QuickstudyError, match=r"more than 0\.001 requests a second"):
        there.tasks()
    assert len(service.seen) == 2


def test_refusals_are_one_line(service: Service, there, monkeypatch) -> None:
    with pytest.raises(QuickstudyError, match=r"http://.*: say a key that is known.*\. Give it by key="):
        Quickstudy.connect(service.url, "wrong")
    monkeypatch.setenv("QUICKSTUDY_KEY", service.key)
    task = Quickstudy.connect(service.url + "/").adapt(TEXTS, LABELS)
    with pytest.raises(QuickstudyError, match="two classes or more"):
        there.adapt(["a", "b"], ["x", "x"])
    with pytest.raises(QuickstudyError, match="a service chooses the false-alarm rate"):
        there.adapt(TEXTS, LABELS, false_alarm=0.1)
    with pytest.raises(QuickstudyError, match=r"examples\.1\.label: is empty or holds control characters"):
        there.adapt(["a", "b"], ["x", "\0"])
    with pytest.raises(QuickstudyError, match="no example '9'"):
        task.remove("9")
    with pytest.raises(QuickstudyError, match="holds characters that no key has"):
        Quickstudy.connect(service.url, "k\n")


def test_many_large_queries_go_in_several_requests(make_service: Callable[..., Service], png, monkeypatch) -> None:
    service = make_service(body=1)
    pictures = [png(number, size=(400, 400)) for number in range(9)]  # 0.2 MB each
    there = Quickstudy.connect(service.url, service.key)
    task = there.adapt(pictures[:2], ["a", "b"])
    with pytest.raises(QuickstudyError, match="the body has more than the 1 MB allowed"):
        task.add(pictures, "c")
    monkeypatch.setattr(remote, "CHARACTERS", 500_000)
    assert task.predict(pictures)[:2].tolist() == ["a", "b"] and len(task.examples) == 2


def test_where_there_is_no_service(service: Service) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(QuickstudyError, match=r"nothing answers there .* `quickstudy serve` starts a service"):
            Quickstudy.connect(f"http://127.0.0.1:{free.getsockname()[1]}")
    for url in ("127.0.0.1:8000", "ftp://host", "http://", "nonsense"):
        with pytest.raises(QuickstudyError, match="is no address of a service"):
            Quickstudy.connect(url)
    service.faults = [somebody_else]
    with pytest.raises(QuickstudyError, match="answers 200 OK, not as a service of Quickstudy does"):
        Quickstudy.connect(service.url)


def test_an_answer_that_takes_too_long_is_not_waited_for(service: Service) -> None:
    service.faults = [silent]
    with pytest.raises(QuickstudyError, match=r"no answer within 0\.2 s"):
        Quickstudy.connect(service.url, service.key, timeout=0.2)


def test_no_proxy_leads_to_this_machine(service: Service, monkeypatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert Quickstudy.connect(service.url, service.key).tasks() == {}
