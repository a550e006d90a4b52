"""What the service shows in a browser comes from itself alone, and /docs lets one try each route."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from quickstudy.config import Chat
from quickstudy.serving.engine.engine import Engine
from quickstudy.serving.http.app import make_app
from quickstudy.serving.http.routes.pages import ASSETS
from tests.unit.serving.conftest import TICKETS, listening, opened

NAMESPACE = "http://www.w3.org/2000/svg"  # a word of SVG, which nobody fetches


@pytest.fixture
def whole(make_engine: Callable[..., Engine]) -> Iterator[TestClient]:
    """With the playground."""
    engine = make_engine()
    with TestClient(
        make_app(engine.settings, engine, Chat(close=0.4, false_alarm=0.05)), base_url="http://127.0.0.1"
    ) as client:
        yield client


def test_no_page_names_another_host(whole: TestClient) -> None:
    shown = ["/", "/docs", "/openapi.json", *(f"/page/{name}" for name in ASSETS)]
    for path in shown:
        reply = whole.get(path)
        assert reply.status_code == 200, path
        assert re.findall(r"(?:https?:|[\"'(=])//[^\s\"']*", reply.text.replace(NAMESPACE, "")) == [], path
        if path != "/openapi.json":
            assert "default-src 'none'" in reply.headers["content-security-policy"]
        for found in re.findall(r'(?:src|href)="([^"]+)"', reply.text):
            assert found in shown or found.startswith(("#", "data:")), (path, found)
    for path in ("/redoc", "/docs/oauth2-redirect", "/page/nothing", "/page/page.html", "/page/..%2Fapp.py"):
        assert whole.get(path).status_code == 404, path


def test_without_the_playground_there_is_docs_all_the_same(client: TestClient) -> None:
    assert client.get("/").status_code == 404
    assert client.get("/docs").status_code == client.get("/page/docs.js").status_code == 200


@pytest.fixture
def docs(browser: Any, make_engine: Callable[..., Engine]) -> Iterator[Any]:
    engine = make_engine()
    with (
        listening(make_app(engine.settings, engine), engine.settings) as address,
        opened(browser, address, "/docs") as page,
    ):
        page.address = address
        yield page


def send(docs: Any, route: str, body: Any = None, **fields: str) -> tuple[str, Any]:
    """Open a route by the keyboard, fill its fields and press Send; gives the status and the answer."""
    form = docs.locator("details", has=docs.get_by_text(route.split()[0], exact=True)).filter(
        has=docs.get_by_text(route.split()[1], exact=True)
    )
    if form.get_attribute("open") is None:
        form.locator("summary").press("Enter")
    for name, value in fields.items():
        form.get_by_label(re.compile(f"^{name} ")).fill(value)
    if body is not None:
        form.get_by_label("Body").fill(json.dumps(body))
    form.get_by_role("button", name="Send").click()
    answer = form.get_by_label("Answer")
    answer.filter(has_text=re.compile(r"^\d")).wait_for()
    status, _, said = answer.inner_text().partition("\n")
    return status, said


def test_every_route_is_there_with_what_it_takes_and_gives(docs: Any) -> None:
    operations = docs.request.get(f"{docs.address}/openapi.json").json()["paths"]
    docs.locator("summary").first.wait_for()
    wanted = {f"{method.upper()} {path}" for path, methods in operations.items() for method in methods}
    shown = {
        f"{one.locator('b').inner_text()} {one.locator('code').inner_text()}" for one in docs.locator("summary").all()
    }
    assert shown == wanted and len(wanted) > 10
    for summary in docs.locator("summary").all():
        summary.click()
    assert docs.evaluate("document.documentElement.scrollWidth") <= 375
    text = docs.locator("main").inner_text()
    assert "undefined" not in text and "[object" not in text and "sha256 of the weights" in text


def test_a_task_is_taught_and_asked_from_the_page(docs: Any) -> None:
    status, said = send(docs, "POST /tasks")  # the example that stands there
    assert status == "201 Created"
    id = json.loads(said)["id"]
    status, said = send(docs, "POST /tasks/{id}/predict", {"queries": [TICKETS[0]["input"]]})  # the id is filled in
    assert status == "200 OK" and json.loads(said)["task"] == id
    command = docs.locator("details", has_text="/predict").get_by_label("For curl").inner_text()
    assert command.startswith(f"curl -s '{docs.address}/tasks/{id}/predict' -d '{{")
    assert send(docs, "DELETE /tasks/{id}/examples/{example}", example="1")[0] == "200 OK"
    assert send(docs, "GET /tasks", limit="1")[0] == "200 OK"
    status, said = send(docs, "GET /metrics")
    assert status == "200 OK" and "quickstudy_requests_total" in said


def test_a_key_is_sent_and_never_shown(docs: Any, store: Any) -> None:
    key = store.add_key("ann")
    docs.get_by_label("API key").fill(key)
    assert send(docs, "GET /tasks")[0] == "200 OK"
    command = docs.locator("details[open]").get_by_label("For curl").inner_text()
    assert '-H "Authorization: Bearer $KEY"' in command and key not in docs.content()
