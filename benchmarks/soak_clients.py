"""The clients of benchmarks/serving_soak.py, a process of their own; every request becomes a line of JSON in a file.

Each creates tasks, adds and takes out examples, asks one query or many, shows, lists and deletes, and remembers what
was acknowledged. It does what a load balancer does: it takes the replicas in turn, and where one refuses the connection
the other.
"""

import http.client
import itertools
import json
import random
import select
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import serving

POOL = 600
"""Sentences that examples and queries are taken from, told by their places."""
SEED = 3
MOST = 40
"""Tasks of a client."""
STATUS = {"create": 201, "add": 201, "remove": 200, "delete": 204, "predict": 200, "show": 200, "page": 200}
WEIGHTS = {"create": 8, "add": 12, "remove": 8, "delete": 4, "predict": 60, "show": 5, "page": 3}


@dataclass
class Known:
    """A task as its client knows it."""

    id: str
    name: str
    revision: int
    examples: dict[int, tuple[str, int]]
    """label and text by number"""


@dataclass
class Client:
    """Works on tasks of its own, one request after the other."""

    number: int
    ports: list[int]
    until: float
    write: Any
    tasks: list[Known] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random, self.turn = random.Random(self.number), itertools.count(self.number)
        self.sentences = serving.texts(POOL, SEED)
        self.connections = {port: http.client.HTTPConnection("127.0.0.1", port, timeout=60) for port in self.ports}

    def run(self) -> None:
        while time.monotonic() < self.until:
            kind = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            if not self.tasks or (kind == "create" and len(self.tasks) < MOST):
                self.create()
            elif kind == "create":
                self.delete(self.random.choice(self.tasks))
            else:
                getattr(self, kind)(self.random.choice(self.tasks))

    def send(self, kind: str, method: str, path: str, body: Any = None, **about: Any) -> Any:
        """The reply, or None where the request has failed; a line either way."""
        refused = 0
        while True:
            port = self.ports[next(self.turn) % len(self.ports)]
            connection = self.connections[port]
            # One that its server has closed meanwhile is not used, as a load balancer sees it too.
            if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
                connection.close()
            try:
                if connection.sock is None:
                    connection.connect()
                break
            except OSError:
                refused += 1
                time.sleep(0.1 * (refused > 1))
        started, status, reply = time.monotonic(), 0, None
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            status, said = answer.status, answer.read()
            reply = json.loads(said) if said else {}
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            reply = {"error": repr(error)}
        line = {"kind": kind, "port": port, "start": started, "end": time.monotonic(), "status": status, **about}
        good = status == STATUS[kind]
        self.write({**line, "refused": refused, "reply": reply if kind == "predict" or not good else None})
        return reply if good else None

    def draw(self, labels: list[str]) -> list[tuple[str, int]]:
        return [(label, self.random.randrange(POOL)) for label in labels]

    def inputs(self, drawn: list[tuple[str, int]]) -> list[dict[str, str]]:
        return [{"input": self.sentences[place], "label": label} for label, place in drawn]

    def create(self) -> None:
        drawn = self.draw([f"class {i % 3}" for i in range(self.random.randint(6, 9))])
        name = f"{self.number}-{time.monotonic_ns()}"
        body = {"name": name, "modality": "text", "examples": self.inputs(drawn)}
        if reply := self.send("create", "POST", "/tasks", body, name=name):
            self.tasks.append(Known(reply["id"], name, reply["revision"], dict(enumerate(drawn, 1))))

    def add(self, task: Known) -> None:
        drawn = self.draw([f"class {self.random.randrange(4)}" for _ in range(self.random.randint(1, 3))])
        reply = self.send("add", "POST", f"/tasks/{task.id}/examples", {"examples": self.inputs(drawn)})
        if reply is None:
            self.look(task, None, drawn)
        else:
            task.revision = reply["revision"]
            task.examples.update(zip(reply["added"], drawn, strict=True))

    def remove(self, task: Known) -> None:
        number = self.random.choice(list(task.examples))
        if len({label for other, (label, _) in task.examples.items() if other != number}) < 2:
            return
        reply = self.send("remove", "DELETE", f"/tasks/{task.id}/examples/{number}")
        if reply is None:
            self.look(task, number, [])
        else:
            task.revision = reply["revision"]
            del task.examples[number]

    def delete(self, task: Known) -> None:
        if self.send("delete", "DELETE", f"/tasks/{task.id}") is None:
            reply = self.send("page", "GET", f"/tasks?limit=1&after={int(task.id, 16) - 1:032x}")
            if reply and any(one["id"] == task.id for one in reply["tasks"]):
                return
        self.tasks.remove(task)
        self.deleted.append(task.id)

    def predict(self, task: Known) -> None:
        count = self.random.choices((1, self.random.randint(2, 16)), (6, 1))[0]
        places = [self.random.randrange(POOL) for _ in range(count)]
        examples = [(number, *one) for number, one in sorted(task.examples.items())]
        queries = {"queries": [self.sentences[place] for place in places]}
        about = {"revision": task.revision, "examples": examples, "queries": places}
        self.send("predict", "POST", f"/tasks/{task.id}/predict", queries, **about)

    def show(self, task: Known) -> None:
        reply = self.send("show", "GET", f"/tasks/{task.id}")
        if reply and (self.seen(reply), reply["revision"]) != (task.examples, task.revision):
            self.write({"kind": "surprise", "id": task.id, "seen": reply, "known": list(task.examples.items())})

    def page(self, task: Known) -> None:
        reply = self.send("page", "GET", f"/tasks?limit=50&after={int(task.id, 16) - 1:032x}")
        if reply and (not reply["tasks"] or reply["tasks"][0]["id"] != task.id):
            self.write({"kind": "surprise", "id": task.id, "seen": "it is missing from the list"})

    def look(self, task: Known, removed: int | None, added: list[tuple[str, int]]) -> None:
        """What has become of a change that was not answered: it was made or it was not."""
        while (reply := self.send("show", "GET", f"/tasks/{task.id}")) is None:
            if time.monotonic() > self.until + 60:
                return
        before = [one for number, one in task.examples.items()]
        after = [one for number, one in task.examples.items() if number != removed] + added
        task.examples, task.revision = self.seen(reply), reply["revision"]
        if list(task.examples.values()) not in (before, after):
            self.write({"kind": "surprise", "id": task.id, "seen": reply, "known": [before, after]})

    def seen(self, reply: Any) -> dict[int, tuple[str, int]]:
        return {one["id"]: (one["label"], self.sentences.index(one["input"])) for one in reply["examples"]}


def main(ports: list[int], clients: int, seconds: float, file: Path) -> None:
    lock = threading.Lock()
    with file.open("w") as lines:

        def write(line: dict[str, Any]) -> None:
            with lock:
                lines.write(json.dumps(line) + "\n")

        until = time.monotonic() + seconds
        made = [Client(number, ports, until, write) for number in range(clients)]
        threads = [threading.Thread(target=client.run) for client in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for client in made:
            tasks = {task.id: [task.name, task.revision, sorted(task.examples.items())] for task in client.tasks}
            write({"kind": "known", "tasks": tasks, "deleted": client.deleted})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]))
