"""A model in a service elsewhere (`quickstudy serve`), by the same words as one in this process."""

import base64
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from quickstudy.client import Answer, Example, Neighbour, Quickstudy, Task
from quickstudy.client.examples import Examples, read_examples, read_labels
from quickstudy.data.dataset import Modality
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import targets_of
from quickstudy.system.atomic import write_json

TRIES = 4
PAUSE = 0.25  # seconds before the second try, doubled for each further one
PAGE = 100  # tasks of one answer
QUERIES = 64  # of one request, at most, and
CHARACTERS = 8_000_000  # of all of them, about: a service bounds the size of each request
KEEP_ALIVE = 2.0  # seconds; less than a service keeps an idle connection, so that none is used that it has closed
ID = "[0-9a-f]{32}"  # of a task
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class TooMuch(QuickstudyError):
    """A service bounds what it takes and gives at once, and this is more."""


class RemoteQuickstudy(Quickstudy):
    """See `Quickstudy.connect`."""

    def __init__(self, url: str, key: str | None = None, timeout: float = 30.0):
        self._service = Service(url, key or os.environ.get("QUICKSTUDY_KEY"), timeout)
        self._service.get("/tasks?limit=1")  # it is there, and the key is good

    def adapt(
        self,
        examples: Any,
        labels: Any,
        *,
        kind: str | None = None,
        modality: Modality | None = None,
        name: str = "task",
        false_alarm: float | None = None,
    ) -> "RemoteTask":
        if false_alarm is not None:
            raise QuickstudyError("a service chooses the false-alarm rate", fix="Set serve.false_alarm where it runs")
        read = read_examples(examples, modality)
        kind, given = read_labels(labels, len(read.contents), kind)
        targets_of(kind).check_task(given)
        taught = _taught(read, kind, given)
        body = {"name": name, "kind": kind, "modality": read.modality, "examples": taught}
        made = self._service.post("/tasks", body)
        return RemoteTask(self._service, made)

    def open(self, name: str | Path) -> "RemoteTask":
        if not Path(name).is_file():
            if not re.fullmatch(ID, str(name)):
                what, fix = "is neither a file nor the id of a task", "tasks() has the ids of this service"
                raise QuickstudyError(what, where=name, fix=fix)
            return RemoteTask(self._service, self._service.get(f"/tasks/{name}"))
        try:
            exported = json.loads(Path(name).read_text(encoding="utf-8"))
        except ValueError:
            fix = "A task that was saved from a service is JSON"
            raise QuickstudyError("is no task that a service can read", where=name, fix=fix) from None
        return RemoteTask(self._service, self._service.post("/tasks/import", exported))

    def tasks(self) -> dict[str, str]:
        """The name of each task that the service has for this key, by its id."""
        found: dict[str, str] = {}
        after = ""
        while True:
            page = self._service.get(f"/tasks?limit={PAGE}{after}")
            found |= {task["id"]: task["name"] for task in page["tasks"]}
            if page["next"] is None:
                return found
            after = f"&after={page['next']}"

    def __repr__(self) -> str:
        return f"<Quickstudy at {self._service.url}>"


class RemoteTask(Task):
    """See `Task`. Others may change it meanwhile: what it says of itself is what the service said last."""

    def __init__(self, service: "Service", described: Mapping[str, Any]):
        self._service = service
        self.id: str = described["id"]
        self.name: str = described["name"]
        self.kind, self.modality = described["kind"], described["modality"]
        self._count: dict[str, int] = described["classes"]

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(self._count))

    @property
    def examples(self) -> tuple[Example, ...]:
        described = self._service.get(self._path)
        self._count = described["classes"]
        return tuple(self._example(example) for example in described["examples"])

    def add(self, examples: Any, labels: Any) -> list[str]:
        read = read_examples(examples, self.modality)
        taught = _taught(read, self.kind, read_labels(labels, len(read.contents), self.kind)[1])
        described = self._service.post(f"{self._path}/examples", {"examples": taught})
        self._count = described["classes"]
        return [str(number) for number in described["added"]]

    def remove(self, ids: str | Sequence[str]) -> None:
        gone = {ids} if isinstance(ids, str) else set(ids)
        there = {example.id: example.label for example in self.examples}
        # Each is a request of its own: what cannot be is told before the first.
        if missing := gone - set(there):
            raise QuickstudyError(f"the task has no example {min(missing)!r}", fix="task.examples has their ids")
        left = [label for id, label in there.items() if id not in gone]
        targets_of(self.kind).check_task(left)
        for number in sorted(gone, key=int):
            self._service.delete(f"{self._path}/examples/{number}")
        self._count = targets_of(self.kind).count(left)

    def save(self, path: str | Path) -> None:
        write_json(Path(path), self._service.get(f"{self._path}/export"))

    def delete(self) -> None:
        """Have the service forget it."""
        self._service.delete(self._path)

    def __len__(self) -> int:
        return sum(self._count.values())

    @property
    def _path(self) -> str:
        return f"/tasks/{self.id}"

    def _answer(self, examples: Examples) -> list[Answer]:
        found: list[Answer] = []
        left = list(_parts(_inputs(examples)))
        while left:
            part = left.pop(0)
            try:
                said = self._service.post(f"{self._path}/predict", {"queries": part}, again=True)
            except TooMuch:
                if len(part) == 1:
                    raise
                left[:0] = [part[: len(part) // 2], part[len(part) // 2 :]]
                continue
            model = said["model"]["version"] or said["model"]["digest"]
            threshold = float("inf") if said["threshold"] is None else said["threshold"]
            found += [self._read(answer, threshold, model) for answer in said["answers"]]
        if set(found[-1].probabilities) != set(self._count):  # somebody else has taught it since
            self._count = self._service.get(self._path)["classes"]
        return found

    def _read(self, answer: Mapping[str, Any], threshold: float, model: str) -> Answer:
        label, chances = answer[targets_of(self.kind).COLUMN], answer["probabilities"]
        nearest = tuple(
            Neighbour(self._example(one | {"id": one["example"]}), one["likeness"]) for one in answer["nearest"]
        )
        return Answer(
            label, answer["probability"], chances, not answer["known"], answer["unknown"], threshold, nearest, model
        )

    def _example(self, example: Mapping[str, Any]) -> Example:
        shown = example["input"] if example["input"] is not None else f"{self.modality} {example['id']}"
        return Example(str(example["id"]), example[targets_of(self.kind).COLUMN], shown)


class Service:
    """HTTP to a service. What it refuses, and a connection that is lost, is one line.

    A call that changes nothing, or the same when it comes twice, is tried again when the connection is lost; one that
    teaches is not, as nobody knows whether it arrived. What is asked to come later (429) comes later.
    """

    def __init__(self, url: str, key: str | None, timeout: float):
        self.url = url.rstrip("/")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise QuickstudyError("is no address of a service", where=url, fix="Say http://HOST:PORT")
        headers = {"accept": "application/json"}
        if key is not None:
            if not key.isascii() or not key.isprintable():
                raise QuickstudyError("the API key holds characters that no key has", fix="Copy it again")
            headers["authorization"] = f"Bearer {key.strip()}"
        self._timeout = timeout
        self._client = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=timeout,
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE),
            trust_env=parts.hostname not in LOOPBACK,  # no proxy leads to this machine
        )

    def get(self, path: str) -> Any:
        return self._call("GET", path, None, again=True)

    def post(self, path: str, body: Any, again: bool = False) -> Any:
        """again: whether it may be tried again, as it changes nothing."""
        return self._call("POST", path, body, again)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path, None, again=True)

    def _call(self, method: str, path: str, body: Any, again: bool) -> Any:
        deadline = time.monotonic() + self._timeout
        for number in range(1, TRIES + 1):
            try:
                response = self._client.request(method, path, json=body)
            except httpx.TimeoutException:
                what = f"no answer within {self._timeout:g} s"
                raise QuickstudyError(what, where=self.url, fix="Try again, or give more time by timeout=") from None
            except httpx.InvalidURL as error:
                raise QuickstudyError(f"is no address of a service ({error})", where=self.url) from None
            except httpx.TransportError as error:
                if not again or number == TRIES:
                    raise self._lost(error, sent=method == "POST" and not again) from None
                time.sleep(PAUSE * 2 ** (number - 1))
                continue
            wait = _seconds(response.headers.get("retry-after")) if response.status_code == 429 else None
            if wait is not None and number < TRIES and time.monotonic() + wait < deadline:
                time.sleep(wait)
                continue
            if method == "DELETE" and response.status_code == 404 and number > 1:
                return None  # the try before, whose answer was lost, has done it
            return self._body(response)
        raise AssertionError("unreachable")

    def _lost(self, error: Exception, sent: bool) -> QuickstudyError:
        if isinstance(error, httpx.ConnectError):
            fix = "Check the address; `quickstudy serve` starts a service"
            return QuickstudyError(f"nothing answers there ({error})", where=self.url, fix=fix)
        doubt = "It may have arrived or not: look at the task before you send it again" if sent else "Try again"
        return QuickstudyError(f"the connection was lost ({error})", where=self.url, fix=doubt)

    def _body(self, response: httpx.Response) -> Any:
        if response.status_code == 204:
            return None
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.is_success and isinstance(body, dict):
            return body
        if isinstance(body, dict) and isinstance(body.get("error"), str):
            if response.status_code == 401:
                fix = "Give it by key= or QUICKSTUDY_KEY; `quickstudy serve` says how keys are made"
                raise QuickstudyError(body["error"], where=self.url, fix=fix)
            raise (TooMuch if response.status_code == 413 else QuickstudyError)(body["error"], where=self.url)
        what = f"answers {response.status_code} {response.reason_phrase}, not as a service of Quickstudy does"
        raise QuickstudyError(what, where=response.url, fix="Check the address")


def _taught(examples: Examples, kind: str, targets: Sequence[Any]) -> list[dict[str, Any]]:
    field = targets_of(kind).COLUMN
    return [{"input": one, field: target} for one, target in zip(_inputs(examples), targets, strict=True)]


def _inputs(examples: Examples) -> list[str]:
    """Texts as they are, files as base64."""
    return [
        content if isinstance(content, str) else base64.b64encode(content).decode() for content in examples.contents
    ]


def _parts(inputs: Sequence[str]) -> Iterator[list[str]]:
    """What goes in one request each."""
    part: list[str] = []
    for one in inputs:
        if part and (len(part) == QUERIES or sum(map(len, part)) + len(one) > CHARACTERS):
            yield part
            part = []
        part.append(one)
    yield part


def _seconds(retry_after: str | None) -> float | None:
    try:
        return max(float(retry_after), 0.0) if retry_after is not None else None
    except ValueError:
        return None  # a date; then nobody waits
