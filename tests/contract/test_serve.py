"""`quickstudy serve` as a process: keys, requests in flight when it is stopped, and what survives."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import torch
import yaml

from quickstudy import registry
from quickstudy.config import Inputs, Model
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model
from tests.toy.project import REPOSITORY

EXAMPLES = [{"input": f"{word} number {i}", "label": word} for word in ("red", "blue") for i in range(3)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a small model in build/model."""
    root = tmp_path / "a project"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(REPOSITORY / name, root)
    save_small(root / "build/model", 0)
    return root


def save_small(folder: Path, seed: int) -> None:
    """An untrained model whose text encoder reads bytes, at the sizes of the tests."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    shape = params["model"] | {"dimension": 16, "width": 4, "heads": 2}
    shape["encoders"] = shape["encoders"] | {"text": "bytes-cnn"}
    torch.manual_seed(seed)
    save_model(MetaModel(Inputs.model_validate(params["inputs"]), Model.model_validate(shape), {"text"}), folder, {})


def quickstudy(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quickstudy", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)


@contextmanager
def serving(
    root: Path, *options: str, model: tuple[str, ...] = ("--model", "build/model")
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The address of a service, and its process."""
    command = [sys.executable, "-m", "quickstudy", "serve", *model, "--port", "0", *options]
    with (root / "log.jsonl").open("w") as log:
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        found = re.search(r"https?://\S+", process.stdout.readline())
        assert found, (root / "log.jsonl").read_text()
        yield found[0], process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_service_is_kept_by_keys_and_stopped_without_a_loss(root: Path) -> None:
    refused = quickstudy(root, "serve", "--model", "build/model", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2 and "keys add" in refused.stderr and refused.stderr.count("\n") == 1
    key = quickstudy(root, "serve", "keys", "add", "ann").stdout.strip()
    assert key.startswith("qs_") and "ann" in quickstudy(root, "serve", "keys", "list").stdout

    headers = {"authorization": f"Bearer {key}"}
    with serving(root, "--host", "0.0.0.0") as (address, process):
        address = address.replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
            assert client.get("/ready").json()["status"] == "ready"
            assert httpx.get(f"{address}/tasks").status_code == 401
            made = client.post("/tasks", json={"name": "colours", "modality": "text", "examples": EXAMPLES}).json()
            path = f"/tasks/{made['id']}/predict"
            before = client.post(path, json={"queries": ["red"]}).json()
        # A request whose body is still on its way when the service is told to stop is answered.
        replies: list[httpx.Response] = []

        def slow() -> Iterator[bytes]:
            yield b'{"queries": ["red"'
            started.set()
            time.sleep(1)
            yield b"]}"

        def ask() -> None:
            replies.append(httpx.post(address + path, content=slow(), headers=headers, timeout=60))

        started = threading.Event()
        thread = threading.Thread(target=ask)
        thread.start()
        started.wait()
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert process.wait(30) == 0
        assert replies[0].status_code == 200 and replies[0].json()["answers"] == before["answers"]

    lines = [json.loads(line) for line in (root / "log.jsonl").read_text().splitlines()]
    assert all("event" in line for line in lines)
    assert sum(line.get("route") == "/tasks/{id}/predict" for line in lines) == 2
    for secret in (key, EXAMPLES[0]["input"]):
        assert secret not in (root / "log.jsonl").read_text()

    with serving(root) as (address, process):
        again = httpx.post(address + path, json={"queries": ["red"]}, headers=headers, timeout=60).json()
        assert again == before
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def register(root: Path, seed: int) -> None:
    """A version of the model in the project's own MLflow."""
    import mlflow.pyfunc
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    saved = root / f"mlruns/version-{seed}"
    save_small(root / f"model-{seed}", seed)
    mlflow.pyfunc.save_model(saved, loader_module="quickstudy.adaptation.pyfunc", data_path=str(root / f"model-{seed}"))
    client = MlflowClient(registry.tracking_uri(root), registry.tracking_uri(root))
    with contextlib.suppress(MlflowException):
        client.create_registered_model(registry.NAME)
    client.create_model_version(registry.NAME, saved.as_uri())


def move(root: Path, alias: str, version: int) -> None:
    from mlflow import MlflowClient

    uri = registry.tracking_uri(root)
    MlflowClient(uri, uri).set_registered_model_alias(registry.NAME, alias, str(version))


def test_the_champion_of_the_registry_is_followed_and_the_challenger_shadowed(root: Path) -> None:
    lacking = quickstudy(root, "serve", "--port", "0")
    assert lacking.returncode == 2 and "no champion yet" in lacking.stderr
    registry.prepare(root)
    for seed in (1, 2):
        register(root, seed)
    move(root, "champion", 1)
    move(root, "challenger", 2)
    with (
        serving(root, "--shadow", model=()) as (address, _),
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        made = client.post("/tasks", json={"name": "colours", "modality": "text", "examples": EXAMPLES}).json()

        def ask() -> dict:
            queries = [f"{chr(97 + i) * i} {7919 * i}" for i in range(26)]
            return client.post(f"/tasks/{made['id']}/predict", json={"queries": queries}).json()

        before = ask()
        assert before["model"]["version"] == "1"
        deadline = time.monotonic() + 60
        while "quickstudy_shadow_queries_total{" not in client.get("/metrics").text:
            assert ask()["model"] == before["model"] and time.monotonic() < deadline
            time.sleep(0.3)
        line = json.loads((root / ".cache/shadow.jsonl").read_text().splitlines()[0])
        assert (line["champion"], line["challenger"]) == ("1", "2") and line["disagreements"]
        move(root, "champion", 2)
        while (after := ask())["model"]["version"] == "1":
            assert time.monotonic() < deadline
            time.sleep(0.3)
        assert after["model"]["version"] == "2" and after["answers"] != before["answers"]
        assert client.get("/ready").json()["version"] == "2"


def test_mistakes_are_told_before_anything_is_served(root: Path) -> None:
    for options, words in (
        (("--model", "nowhere"), "is no model folder"),
        (("--model", "build/model", "--host", "203.0.113.1"), "keys add"),
        (("--model", "build/model", "--database", "nonsense"), "is no database"),
    ):
        done = quickstudy(root, "serve", "--port", "0", *options)
        assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert quickstudy(root, "serve", "keys", "remove", "abc").returncode == 2
    params = (root / "params.yaml").read_text(encoding="utf-8")
    (root / "params.yaml").write_text(params.replace("certificate: null", "certificate: tls/nowhere.pem"))
    done = quickstudy(root, "serve", "--port", "0", "--model", "build/model")
    assert done.returncode == 2 and f"{root}/tls/nowhere.pem: there is no such file" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert os.path.exists(root / ".cache/serve.db")
