"""The same words against a service: what it answers, refuses and loses."""

import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from quickstudy import Quickstudy
from quickstudy.client import remote
from quickstudy.errors import QuickstudyError
from tests.unit.client.service import KEY, Handler, Service, later, lost


@pytest.fixture
def service(qs: Quickstudy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setattr(remote, "PAUSE", 0.001)
    server = Service(qs)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def there(service: Service) -> Quickstudy:
    return Quickstudy.connect(service.url, KEY)


@pytest.fixture
def pictures(toys) -> tuple[list[bytes], list[str]]:
    dataset = toys("image", classes=3, each=4)
    return dataset.raw(), dataset.column("label")


TEXTS, LABELS = ["Where is my parcel?", "When will it arrive?", "Money back!", "A refund, please"], list("ssrr")


def test_it_answers_as_the_model_in_this_process_does(qs: Quickstudy, there, pictures, monkeypatch) -> None:
    monkeypatch.setattr(remote, "QUERIES", 5)  # so that one call of ours is three of the service's
    here, far = qs.adapt(*pictures), there.adapt(*pictures, name="shapes")
    assert far.classes == here.classes and len(far) == 12 and far.name == "shapes" and far.modality == "image"
    assert np.allclose(far.predict_proba(pictures[0]), here.predict_proba(pictures[0]))
    assert far.predict(pictures[0]).tolist() == here.predict(pictures[0]).tolist()
    mine, answer = here.answer(pictures[0][5]), far.answer(pictures[0][5])
    assert (answer.label, answer.unknown, answer.threshold) == (mine.label, mine.unknown, float("inf"))
    assert [near.example.id for near in answer.nearest] == [near.example.id for near in mine.nearest]
    assert answer.nearest[0].example.name == "image 6" and answer.model == "3"


def test_teach_more_and_take_back(there) -> None:
    task = there.adapt(TEXTS, LABELS)
    ids = task.add(["Hello", "Good morning"], "greeting")
    assert ids == ["5", "6"] and task.classes == ("greeting", "r", "s") and task.predict("Hello!") == "greeting"
    assert [example.name for example in task.examples] == [*TEXTS, "Hello", "Good morning"]
    task.remove(ids)
    assert task.classes == ("r", "s") and len(task) == 4


def test_what_others_taught_is_noticed(there) -> None:
    task = there.adapt(TEXTS, LABELS)
    there.open(task.id).add("Hello", "greeting")
    assert task.predict_proba(["Hello"]).shape == (1, 3) and task.classes == ("greeting", "r", "s")


def test_tasks_are_listed_opened_saved_and_deleted(there, tmp_path: Path) -> None:
    made = [there.adapt(TEXTS, LABELS, name=f"task {i}") for i in range(5)]
    assert there.tasks() == {task.id: f"task {i}" for i, task in enumerate(made)}
    made[0].save(tmp_path / "saved.json")
    made[0].delete()
    with pytest.raises(QuickstudyError, match="no task t1"):
        there.open("t1")
    back = there.open(tmp_path / "saved.json")
    assert back.name == "task 0" and [example.name for example in back.examples] == TEXTS
    (tmp_path / "other").write_bytes(b"\xff")
    with pytest.raises(QuickstudyError, match="other: is no task that a service can read"):
        there.open(tmp_path / "other")


def test_a_lost_connection_is_tried_again_where_that_does_no_harm(service: Service, there) -> None:
    task = there.adapt(TEXTS, LABELS)
    service.faults = [lost, lost, lost]
    assert task.predict("Money") == "r"
    service.faults = [lost]
    task.remove("1")  # it was done at once; the second try finds nothing left to do
    assert len(task) == 3
    service.seen.clear()
    service.faults = [lost]
    with pytest.raises(QuickstudyError, match=r"the connection was lost .* It may have arrived or not"):
        task.add("Hello", "greeting")
    assert len(service.seen) == 1 and len(task.examples) == 4  # it had arrived, and once
    service.faults = [lost] * remote.TRIES
    with pytest.raises(QuickstudyError, match="the connection was lost"):
        task.predict("Money")
    assert not service.faults


def test_what_is_asked_to_come_later_comes_later(service: Service, there) -> None:
    task = there.adapt(TEXTS, LABELS)
    service.faults = [later, later]
    assert task.add("Hello", "greeting") == ["5"] and len(task) == 5
    service.faults = [later] * remote.TRIES
    with pytest.raises(QuickstudyError, match="too many requests"):
        task.predict("Money")


def test_refusals_are_one_line(service: Service, there, monkeypatch) -> None:
    with pytest.raises(QuickstudyError, match=r"http://.*: no API key, or a wrong one\. Give it by key="):
        Quickstudy.connect(service.url, "wrong")
    monkeypatch.setenv("QUICKSTUDY_KEY", KEY)
    task = Quickstudy.connect(service.url + "/").adapt(TEXTS, LABELS)
    with pytest.raises(QuickstudyError, match="two classes or more"):
        there.adapt(["a", "b"], ["x", "x"])
    with pytest.raises(QuickstudyError, match="a service chooses the false-alarm rate"):
        there.adapt(TEXTS, LABELS, false_alarm=0.1)
    with pytest.raises(QuickstudyError, match="no example 9"):
        task.remove("9")
    with pytest.raises(QuickstudyError, match="holds characters that no key has"):
        Quickstudy.connect(service.url, "k\n")


def test_where_there_is_no_service(service: Service, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(QuickstudyError, match=r"nothing answers there .* `quickstudy serve` starts a service"):
            Quickstudy.connect(f"http://127.0.0.1:{free.getsockname()[1]}")
    for url in ("127.0.0.1:8000", "ftp://host", "http://", "nonsense"):
        with pytest.raises(QuickstudyError, match="is no address of a service"):
            Quickstudy.connect(url)

    def page(handler: Handler, work) -> None:
        handler.send(200, ["a page of somebody else"])

    service.faults = [page]
    with pytest.raises(QuickstudyError, match="answers 200 OK, not as a service of Quickstudy does"):
        Quickstudy.connect(service.url)


def test_an_answer_that_takes_too_long_is_not_waited_for(service: Service) -> None:
    def silent(handler: Handler, work) -> None:
        with pytest.raises(OSError):
            while True:  # until the client has gone
                if not handler.connection.recv(1):
                    raise OSError
        handler.close_connection = True

    service.faults = [silent]
    with pytest.raises(QuickstudyError, match=r"no answer within 0\.2 s"):
        Quickstudy.connect(service.url, KEY, timeout=0.2)


def test_no_proxy_leads_to_this_machine(service: Service, monkeypatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert Quickstudy.connect(service.url, KEY).tasks() == {}
