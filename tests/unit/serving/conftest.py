"""A service on a small untrained model, with a database of its own."""

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import uvicorn
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from quickstudy.config import Serve, Settings
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.engine.loaded import Source
from quickstudy.serving.engine.store import Store
from quickstudy.serving.http import server
from quickstudy.serving.http.app import make_app
from quickstudy.serving.http.metrics import Metrics

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# Nothing but the page is to be fetched, and a container has neither a sandbox nor a graphics card.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)

TICKETS = [
    {"input": "My card was charged twice.", "label": "billing"},
    {"input": "Please send me the invoice again.", "label": "billing"},
    {"input": "The parcel has not arrived.", "label": "delivery"},
    {"input": "Where is my order now?", "label": "delivery"},
]


@pytest.fixture(scope="session")
def folders(tiny: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two versions of a model, by their numbers. The text encoder reads bytes: no sentence encoder is loaded."""
    found = {}
    encoders = tiny.model.encoders.model_copy(update={"text": "bytes-cnn"})
    shape = tiny.model.model_copy(update={"encoders": encoders, "learner": "adapt"})
    for version in ("1", "2"):
        torch.manual_seed(int(version))
        found[version] = tmp_path_factory.mktemp(f"version-{version}")
        save_model(MetaModel(tiny.inputs, shape, {"text", "image", "audio"}), found[version], {})
    return found


@pytest.fixture
def settings(tiny: Settings) -> Serve:
    return tiny.serve.model_copy(update={"reload": 0.1, "patience": 1.0})


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'serve.db'}"


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    store = Store(database, patience=1.0)
    yield store
    store.close()


@pytest.fixture
def alias() -> dict[str, str | None]:
    """Where the aliases stand."""
    return {"champion": "1", "challenger": None}


@pytest.fixture
def make_engine(
    folders: dict[str, Path], alias: dict[str, str | None], settings: Serve, store: Store
) -> Callable[..., Engine]:
    def source(name: str) -> Source:
        return Source(lambda: alias[name], lambda version: folders[version])

    def make(shadow: bool = False, compare: Any = None, **changes: Any) -> Engine:
        own = settings.model_copy(update=changes)
        more = {"compare": compare} if compare else {}
        return Engine(own, store, source("champion"), Metrics(), source("challenger") if shadow else None, **more)

    return make


@pytest.fixture
def open_client(make_engine: Callable[..., Engine]) -> Iterator[Callable[..., TestClient]]:
    """A client of a service whose settings are changed so."""
    clients: list[TestClient] = []

    def make(**changes: Any) -> TestClient:
        engine = make_engine(**changes)
        client = TestClient(make_app(engine.settings, engine), base_url="http://127.0.0.1", client=("127.0.0.1", 50000))
        client.__enter__()
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(open_client: Callable[..., TestClient]) -> TestClient:
    return open_client()


@pytest.fixture
def tickets(client: TestClient) -> dict[str, Any]:
    """A task of four texts."""
    reply = client.post("/tasks", json={"name": "tickets", "modality": "text", "examples": TICKETS})
    assert reply.status_code == 201, reply.text
    return reply.json()


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """A service in this event loop, for tests of what happens at once."""
    app = make_app(engine.settings, engine)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client


@contextmanager
def listening(app: ASGIApp, settings: Serve) -> Iterator[str]:
    """The address of a service that listens as `quickstudy serve` has it, on a port of its own."""
    bound = server.listen("127.0.0.1", 0)
    service = uvicorn.Server(server.configured(app, settings))
    thread = threading.Thread(target=service.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not service.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http{'s' if settings.certificate else ''}://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        service.should_exit = True
        thread.join()
        bound.close()


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that happens in the background."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")  # playwright has an event loop at work in this thread, which other tests must not meet
def browser() -> Iterator[Any]:
    api = pytest.importorskip(
        "playwright.sync_api", reason="the page is tested with playwright, which is not installed"
    )
    if CHROMIUM is None:
        pytest.skip("the page is tested in Chromium, which is not installed (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, address: str, path: str = "/") -> Iterator[Any]:
    """A page on a phone; a test fails where anything is wrong in it, or anything is asked of somebody else."""
    page = browser.new_page(viewport={"width": 375, "height": 800})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith((address, "data:", "blob:")) else wrong.append(request.url),
    )
    page.set_default_timeout(20_000)
    page.goto(address + path)
    yield page
    page.close()
    assert wrong == []
