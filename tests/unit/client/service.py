"""A service of the documented routes, as small as can be, on a model in this process: what the client is tried on."""

import base64
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from quickstudy import Quickstudy
from quickstudy.errors import QuickstudyError

KEY = "a-key"


class Service(ThreadingHTTPServer):
    """Give it `faults`: what to do with the next requests instead of answering them."""

    daemon_threads = True

    def __init__(self, qs: Quickstudy):
        super().__init__(("127.0.0.1", 0), Handler)
        self.qs, self.tasks, self.faults, self.seen = qs, {}, [], []  # type: ignore[var-annotated]
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def lost(handler: "Handler", work: Callable[[], None]) -> None:
    """The request is done and the answer lost."""
    work()
    handler.close_connection = True


def later(handler: "Handler", work: Callable[[], None]) -> None:
    handler.send(429, {"error": "too many requests"}, {"retry-after": "0.01"})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        self.act()

    def do_GET(self) -> None:
        self.act()

    def do_DELETE(self) -> None:
        self.act()

    def act(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or "null")
        path, _, query = self.path.partition("?")
        self.server.seen.append((self.command, path))
        answer: list[Any] = []

        def work() -> None:
            try:
                answer.append(self.answer(self.command, path.strip("/").split("/"), query, body))
            except QuickstudyError as error:
                answer.append((422, {"error": str(error)}))
            except KeyError:
                answer.append((404, {"error": f"no task {path.split('/')[2]}"}))

        if self.server.faults:
            return self.server.faults.pop(0)(self, work)
        if self.headers.get("authorization") != f"Bearer {KEY}":
            return self.send(401, {"error": "no API key, or a wrong one"})
        work()
        self.send(*answer[0])

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def answer(self, method: str, parts: list[str], query: str, body: Any) -> tuple[int, Any]:
        tasks = self.server.tasks
        match method, parts:
            case "GET", ["tasks"]:
                left = [name for name in sorted(tasks) if name > query.partition("after=")[2]]
                page = {"tasks": [self.described(name) for name in left[:2]], "next": left[1] if left[2:] else None}
                return 200, page
            case "POST", ["tasks"] | ["tasks", "import"]:
                inputs, labels = decoded(body["modality"], body["examples"])
                name = f"t{len(tasks) + 1}"
                tasks[name] = (body["name"], self.server.qs.adapt(inputs, labels, modality=body["modality"]))
                return 201, self.described(name)
            case "GET", ["tasks", name]:
                return 200, self.described(name) | {"examples": self.examples(name)}
            case "DELETE", ["tasks", name]:
                del tasks[name]
                return 204, None
            case "POST", ["tasks", name, "examples"]:
                inputs, labels = decoded(tasks[name][1].modality, body["examples"])
                added = [int(number) for number in tasks[name][1].add(inputs, labels)]
                return 201, self.described(name) | {"added": added}
            case "DELETE", ["tasks", name, "examples", number]:
                if number not in [example.id for example in tasks[name][1].examples]:
                    return 404, {"error": f"no example {number}"}
                tasks[name][1].remove(number)
                return 200, self.described(name)
            case "POST", ["tasks", name, "predict"]:
                task = tasks[name][1]
                queries = [{"input": one, "label": ""} for one in body["queries"]]
                answers = task.answer(decoded(task.modality, queries)[0])
                return 200, {"model": {"version": "3", "digest": "d"}, "threshold": None, "answers": [
                    {"label": one.label, "known": not one.unknown, "unknown": one.unlikeness,
                     "probabilities": one.probabilities,
                     "nearest": [{"example": int(near.example.id), "label": near.example.label,
                                  "likeness": near.likeness, "input": self.shown(task, near.example)}
                                 for near in one.nearest]}
                    for one in answers]}  # fmt: skip
            case "GET", ["tasks", name, "export"]:
                called, task = tasks[name]
                examples = [{"input": one.name, "label": one.label} for one in task.examples]
                return 200, {"format": 1, "name": called, "modality": task.modality, "examples": examples}
        return 404, {"error": "no such route"}

    def described(self, name: str) -> dict[str, Any]:
        called, task = self.server.tasks[name]
        labels = [example.label for example in task.examples]
        classes = {label: labels.count(label) for label in task.classes}
        return {"id": name, "name": called, "modality": task.modality, "classes": classes, "revision": 1}

    def examples(self, name: str) -> list[dict[str, Any]]:
        task = self.server.tasks[name][1]
        return [{"id": int(one.id), "label": one.label, "input": self.shown(task, one)} for one in task.examples]

    def shown(self, task: Any, example: Any) -> str | None:
        return example.name if task.modality == "text" else None


def decoded(modality: str, examples: list[dict[str, str]]) -> tuple[list[Any], list[str]]:
    inputs = [one["input"] if modality == "text" else base64.b64decode(one["input"]) for one in examples]
    return inputs, [one["label"] for one in examples]
