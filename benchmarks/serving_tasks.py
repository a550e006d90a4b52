"""What creating and asking a task costs among 100,000 tasks, beside the first thousand.

    .venv/bin/python benchmarks/serving_tasks.py FOLDER [--tasks 100000] [--database sqlite|postgresql] [--model MODEL]

Two services run at once, one on an empty database, one on a database in which so many tasks lie already. They are asked
in turn on one connection each: a thousand times a new task of 5 texts in 5 classes, a thousand times one query of a
task that was not asked before (the first thousand; any of all), the same once more, and pages of the list. So whatever
else the machine does slows both alike. The tasks that lie there were written by the store itself, a transaction each,
the rows that the service writes: real sentences and what the model sees in them. FOLDER gets the databases; one of
SQLite that was filled before is used again.
"""

import argparse
import contextlib
import functools
import http.client
import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import serving
from postgresql import postgresql

WAY, PAGES, POOL = 5, 50, 600
RESULT = serving.REPOSITORY / "benchmarks/results/serving_tasks.json"


Make = Callable[[Any, int], str]


def writer(model: Path) -> tuple[Make, str]:
    """Writes the n-th task into a store as the service does, and gives its id; and the model's digest."""
    from quickstudy.adaptation.adapted import encode
    from quickstudy.model.store import load_model, weights_digest
    from quickstudy.serving.engine.packing import pack
    from quickstudy.serving.engine.store import LOCAL, Store

    sentences, digest = serving.texts(POOL, seed=11), weights_digest(model, "classify")
    packed, labels = pack(encode(load_model(model, "classify"), "text", sentences)), [f"class {i}" for i in range(WAY)]

    def make(store: Store, number: int) -> str:
        places = random.Random(number).choices(range(POOL), k=WAY)
        contents, rows = [sentences[place].encode() for place in places], [packed[place] for place in places]
        return store.create(LOCAL, f"task {number}", "classify", "text", labels, contents, rows, digest).id

    return make, digest


def fill(url: str, make: Make, count: int) -> tuple[list[str], float]:
    """Bring a database to so many tasks: their ids, and seconds that one of the new ones took."""
    from quickstudy.serving.engine.store import LOCAL, Store

    store = Store(url)
    ids: list[str] = []
    while there := store.tasks(LOCAL, 1000, ids[-1] if ids else None):
        ids += [kept.id for kept in there]
    new = range(len(ids), count)
    started = time.perf_counter()
    # SQLite lets one write at a time.
    with ThreadPoolExecutor(1 if url.startswith("sqlite") else 4) as pool:
        ids += pool.map(functools.partial(make, store), new)
    store.close()
    return ids, (time.perf_counter() - started) / max(len(new), 1)


class Service:
    """One of the two, asked on one connection."""

    def __init__(self, base: str, pid: int, ids: list[str]):
        self.pid, self.ids, self.random = pid, ids, random.Random(5)
        self._connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=120)
        self._sentences = serving.texts(4000, seed=12)

    def timed(self, method: str, path: str, body: Any = None) -> tuple[float, Any]:
        """Milliseconds, and the reply."""
        started = time.perf_counter()
        self._connection.request(method, path, None if body is None else json.dumps(body))
        answer = self._connection.getresponse()
        said = answer.read()
        took = 1000 * (time.perf_counter() - started)
        assert answer.status in (200, 201), said
        return took, json.loads(said)

    def create(self, turn: int) -> float:
        drawn = self.random.choices(self._sentences, k=WAY)
        examples = [{"input": text, "label": f"class {i}"} for i, text in enumerate(drawn)]
        took, reply = self.timed("POST", "/tasks", {"name": "t", "modality": "text", "examples": examples})
        self.ids.append(reply["id"])
        return took

    def predict(self, turn: int) -> float:
        query = {"queries": [self.random.choice(self._sentences)]}
        return self.timed("POST", f"/tasks/{self.ids[turn]}/predict", query)[0]

    def page(self, turn: int) -> float:
        return self.timed("GET", f"/tasks?limit=100&after={self.random.choice(self.ids)}")[0]

    def memory(self) -> int:
        """MB."""
        import psutil

        return int(psutil.Process(self.pid).memory_info().rss / 1_000_000)


Step = tuple[str, int, Sequence[Callable[[int], float]]]
"""What is done, how often, and how it is done with few tasks and with many; gives milliseconds."""


def service_steps(few: Service, many: Service, repeats: int) -> Iterator[Step]:
    yield "create", repeats, (few.create, many.create)
    for service in (few, many):  # each is asked once, in any order
        service.random.shuffle(service.ids)
    yield "predict, first time", repeats, (few.predict, many.predict)
    yield "predict, again", repeats, (few.predict, many.predict)
    yield "a page of 100 tasks", PAGES, (few.page, many.page)


def store_steps(
    urls: Sequence[str], services: Sequence[Service], make: Make, digest: str, repeats: int
) -> Iterator[Step]:
    """Without the model and HTTP, which take most of the time."""
    from quickstudy.serving.engine.store import Store

    stores = [Store(url) for url in urls]

    def timed(work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - started)

    def create(store: Store, turn: int) -> float:
        return timed(lambda: make(store, -turn))

    def read(store: Store, service: Service, turn: int) -> float:
        id = service.ids[-1 - turn]
        return timed(lambda: store.contents(id, digest))

    yield "the store alone: create", repeats, [functools.partial(create, store) for store in stores]
    pairs = zip(stores, services, strict=True)
    yield "the store alone: read", repeats, [functools.partial(read, store, service) for store, service in pairs]
    for store in stores:
        store.close()


def measure(steps: Iterable[Step]) -> dict[str, Any]:
    """Medians and 99th percentiles in ms, in turn, and how many times the one is the other."""
    found: dict[str, Any] = {}
    for name, count, both in steps:
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(count):
            for side in (0, 1):
                times[side].append(both[side](turn))
        few, many = map(quantiles, times)
        ratios = {at: round(many[at] / few[at], 2) for at in few}
        found[name] = {"first thousand, ms": few, "among all, ms": many, "times": ratios}
    return found


def quantiles(values: list[float]) -> dict[str, float]:
    values = sorted(values)
    return {"p50": round(values[len(values) // 2], 2), "p99": round(values[int(len(values) * 0.99)], 2)}


@contextlib.contextmanager
def databases(kind: str, folder: Path) -> Iterator[tuple[list[str], Callable[[], int]]]:
    """URLs of an empty one and of one to be filled, and how many bytes the second one has."""
    if kind == "sqlite":
        files = [folder / "few.db", folder / "many.db"]
        for path in folder.glob("few.db*"):
            path.unlink()
        size = lambda: sum(path.stat().st_size for path in folder.glob("many.db*"))  # noqa: E731
        yield [f"sqlite:///{file}" for file in files], size
        return
    import sqlalchemy as sa

    with postgresql() as few, postgresql() as many:
        engine = sa.create_engine(many.url)

        def size() -> int:
            with engine.connect() as connection:
                return int(connection.execute(sa.text("SELECT pg_database_size('postgres')")).scalar() or 0)

        yield [few.url, many.url], size
        engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--model", default="models:/quickstudy@champion")
    chosen = parser.parse_args()

    from quickstudy.system.environment import apply_environment

    apply_environment(serving.REPOSITORY)
    from quickstudy import registry

    model = registry.resolve(chosen.model, serving.REPOSITORY)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with databases(chosen.database, chosen.folder.resolve()) as (urls, size), contextlib.ExitStack() as stack:
        make, digest = writer(model)
        ids, seconds = fill(urls[1], make, chosen.tasks)
        services = []
        for url, there in zip(urls, ([], ids), strict=True):
            base = f"http://127.0.0.1:{serving.free_port()}"
            port = str(urlsplit(base).port)
            command = [sys.executable, "-m", "quickstudy", "serve", "--model", str(model), "--port", port]
            process = stack.enter_context(serving.served([*command, "--database", url], f"{base}/ready", chosen.folder))
            services.append(Service(base, process.pid, there))
        for turn in range(50):  # what is slow once
            for service in services:
                service.create(turn)
        before = [service.memory() for service in services]
        result = {
            "tasks": len(ids),
            "repeats": chosen.repeats,
            "ms to write one by the store": round(1000 * seconds, 2),
            "bytes of one": size() // len(ids),
            **measure(service_steps(*services, chosen.repeats)),
            "MB of the services, few and many, before": before,
            "after": [service.memory() for service in services],
            **measure(store_steps(urls, services, make, digest, chosen.repeats)),
        }
    print(json.dumps(result, indent=1))
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.write_text(json.dumps({**results, chosen.database: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
