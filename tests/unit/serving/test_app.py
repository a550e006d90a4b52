"""The routes, as a caller sees them."""

import base64
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from quickstudy.adaptation.adapted import Task, adapt, answer, encode
from tests.unit.serving.conftest import TICKETS


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_a_task_is_taught_in_one_call_and_answers_in_the_next(client: TestClient, tickets: dict[str, Any]) -> None:
    assert tickets["classes"] == {"billing": 2, "delivery": 2} and tickets["revision"] == 1
    reply = client.post(f"/tasks/{tickets['id']}/predict", json={"queries": [TICKETS[0]["input"], TICKETS[3]["input"]]})
    assert reply.status_code == 200
    answers = reply.json()
    assert answers["model"]["version"] == "1" and re.fullmatch("[0-9a-f]{64}", answers["model"]["digest"])
    first, second = answers["answers"]
    assert first["nearest"][0] == {
        "example": 1,
        "label": "billing",
        "likeness": pytest.approx(1, abs=1e-3),
        "input": TICKETS[0]["input"],
    }
    assert second["nearest"][0]["example"] == 4
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert first["label"] == max(first["probabilities"], key=first["probabilities"].__getitem__)


def test_the_answers_are_those_of_the_model_itself(client: TestClient, tickets: dict[str, Any], make_engine) -> None:
    model = make_engine().loaded.model
    texts, labels = [one["input"] for one in TICKETS], tuple(one["label"] for one in TICKETS)
    adapted = adapt(model, Task("classify", "text", labels, encode(model, "text", texts), ""), 0.05)
    wanted = answer(model, adapted, encode(model, "text", ["Where is my invoice?"]))
    reply = client.post(f"/tasks/{tickets['id']}/predict", json={"queries": ["Where is my invoice?"]}).json()
    assert list(reply["answers"][0]["probabilities"].values()) == pytest.approx(wanted.probabilities[0], abs=0.01)
    assert reply["answers"][0]["unknown"] == pytest.approx(wanted.unknown[0], abs=0.01)


@pytest.mark.parametrize("modality", ["image", "audio"])
def test_files_come_as_base64_or_as_a_form(client: TestClient, png, wav, modality: str) -> None:
    make: Callable[[int], bytes] = png if modality == "image" else wav
    files, labels = [make(i) for i in range(4)], ["a", "b", "a", "b"]
    examples = [{"input": coded(data), "label": label} for data, label in zip(files, labels, strict=True)]
    by_json = client.post("/tasks", json={"name": "x", "modality": modality, "examples": examples})
    by_form = client.post(
        "/tasks", data={"name": "x", "modality": modality, "label": labels}, files=[("file", data) for data in files]
    )
    assert by_json.status_code == by_form.status_code == 201, by_form.text
    one = client.post(f"/tasks/{by_json.json()['id']}/predict", json={"queries": [coded(files[1])]}).json()
    two = client.post(f"/tasks/{by_form.json()['id']}/predict", files=[("file", files[1])]).json()
    assert one["answers"] == two["answers"]
    assert one["answers"][0]["nearest"][0]["example"] == 2 and one["answers"][0]["nearest"][0]["input"] is None


def test_a_task_grows_and_shrinks(client: TestClient, tickets: dict[str, Any]) -> None:
    address = f"/tasks/{tickets['id']}"
    added = client.post(
        f"{address}/examples", json={"examples": [{"input": "I forgot my password.", "label": "login"}]}
    )
    assert added.status_code == 201
    assert added.json()["added"] == [5] and added.json()["revision"] == 2
    reply = client.post(f"{address}/predict", json={"queries": ["I forgot my password."]}).json()
    assert reply["revision"] == 2 and set(reply["answers"][0]["probabilities"]) == {"billing", "delivery", "login"}
    removed = client.delete(f"{address}/examples/5").json()
    assert removed["revision"] == 3 and removed["classes"] == {"billing": 2, "delivery": 2}
    reply = client.post(f"{address}/predict", json={"queries": ["I forgot my password."]}).json()
    assert reply["revision"] == 3 and set(reply["answers"][0]["probabilities"]) == {"billing", "delivery"}
    again = client.post(f"{address}/examples", json={"examples": [TICKETS[0]]}).json()
    assert again["added"] == [6]  # a number is given once
    assert client.delete(f"{address}/examples/5").status_code == 404
    assert client.get(address).json()["revision"] == 4


def test_a_task_is_shown_exported_imported_and_forgotten(client: TestClient, tickets: dict[str, Any]) -> None:
    address = f"/tasks/{tickets['id']}"
    shown = client.get(address).json()
    assert [(one["id"], one["input"]) for one in shown["examples"]] == list(
        enumerate([one["input"] for one in TICKETS], 1)
    )
    exported = client.get(f"{address}/export").json()
    twin = client.post("/tasks/import", json=exported)
    assert twin.status_code == 201 and client.get(f"/tasks/{twin.json()['id']}/export").json() == exported
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == client.delete(address).status_code == 404
    assert client.post(f"{address}/predict", json={"queries": ["a"]}).status_code == 404
    assert [task["id"] for task in client.get("/tasks").json()["tasks"]] == [twin.json()["id"]]


def test_files_survive_export_and_import(client: TestClient, png) -> None:
    examples = [{"input": coded(png(i)), "label": "ab"[i % 2]} for i in range(4)]
    made = client.post("/tasks", json={"name": "x", "modality": "image", "examples": examples}).json()
    assert client.get(f"/tasks/{made['id']}/export").json()["examples"] == examples


def test_a_long_list_comes_in_pages(client: TestClient) -> None:
    body = {"name": "n", "modality": "text", "examples": TICKETS}
    ids = [client.post("/tasks", json=body).json()["id"] for _ in range(5)]
    found, after = [], None
    for _ in range(4):
        page = client.get("/tasks", params={"limit": 2, **({"after": after} if after else {})}).json()
        found += [task["id"] for task in page["tasks"]]
        if (after := page["next"]) is None:
            break
    assert sorted(found) == sorted(ids) and len(found) == 5


def test_a_task_of_one_class_says_what_it_lacks(client: TestClient) -> None:
    made = client.post("/tasks", json={"name": "n", "modality": "text", "examples": TICKETS[:2]}).json()
    reply = client.post(f"/tasks/{made['id']}/predict", json={"queries": ["a"]})
    assert reply.status_code == 422 and "two classes or more" in reply.json()["error"]


def test_health_readiness_and_metrics(client: TestClient, tickets: dict[str, Any]) -> None:
    client.post(f"/tasks/{tickets['id']}/predict", json={"queries": ["a", "b"]})
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").json()["version"] == "1"
    text = client.get("/metrics").text
    assert 'quickstudy_requests_total{method="POST",route="/tasks/{id}/predict",status="200"} 1.0' in text
    assert 'quickstudy_model_info{digest="' in text and "quickstudy_batch_inputs_count" in text


def test_every_answer_has_an_id_which_may_be_the_callers_own(client: TestClient) -> None:
    assert client.get("/health", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = [client.get("/nowhere", headers={"x-request-id": "no\twhere"}).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1] and re.fullmatch("[0-9a-f]{16}", made[0])


def test_the_schema_names_every_route_and_no_reference_leads_nowhere(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    assert {"/tasks", "/tasks/{id}", "/tasks/{id}/predict", "/tasks/import", "/metrics"} <= set(schema["paths"])

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        return [ref for value in node for ref in references(value)] if isinstance(node, list) else []

    found = references(schema)
    assert found and all(ref.removeprefix("#/components/schemas/") in schema["components"]["schemas"] for ref in found)


def test_the_examples_of_the_schema_are_accepted(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    def example(path: str) -> Any:
        return paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["examples"][0]

    made = client.post("/tasks", json=example("/tasks"))
    assert made.status_code == 201
    address = f"/tasks/{made.json()['id']}"
    assert client.post(f"{address}/examples", json=example("/tasks/{id}/examples")).status_code == 201
    assert client.post(f"{address}/predict", json=example("/tasks/{id}/predict")).status_code == 200


def test_what_is_kept_of_a_vector_is_small_and_near(make_engine) -> None:
    from quickstudy.serving.engine.packing import pack, unpack

    vectors = encode(make_engine().loaded.model, "text", [one["input"] for one in TICKETS])
    packed = pack(vectors)
    back = unpack(packed)
    assert all(len(row) == 4 + vectors.shape[1] for row in packed)
    cosine = (back * vectors).sum(1) / (back.norm(dim=1) * vectors.norm(dim=1))
    assert np.allclose(cosine, 1, atol=1e-4)
