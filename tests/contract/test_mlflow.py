"""registry.py against the real MLflow on SQLite."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quickstudy import registry
from quickstudy.errors import QuickstudyError
from quickstudy.registry.ledger import Move

REPOSITORY = Path(__file__).parents[2]
WEIGHTS = "classify/model.safetensors"


@pytest.fixture
def ready(built: Path, store: Path, served: None) -> Path:
    """A project whose stages have run, with an empty store."""
    shutil.copytree(store, built / "mlruns")
    return built


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store: creating one takes seconds. It lies elsewhere than it will be used, as after a move."""
    root = tmp_path_factory.mktemp("store")
    registry.prepare(root)
    return root / "mlruns"


def client(root: Path) -> Any:
    from mlflow import MlflowClient

    uri = registry.tracking_uri(root)
    return MlflowClient(uri, uri)


def train_again(root: Path, seed: int = 1) -> None:
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(re.sub(r"^seed: \d+", f"seed: {seed}", text, flags=re.MULTILINE))
    subprocess.run([sys.executable, "stage.py", "meta_train"], cwd=root, check=True, capture_output=True)


# A training while it runs


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def live_runs(root: Path) -> list[Any]:
    experiment = client(root).get_experiment_by_name(registry.NAME)
    return client(root).search_runs([experiment.experiment_id], "tags.live = 'true'") if experiment else []


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.live, "FOLLOW_SECONDS", 0.05)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")


def test_a_training_is_seen_while_it_runs_and_its_run_becomes_that_of_the_version(ready: Path, quick: None) -> None:
    live = ready / ".cache/live.jsonl"
    live.parent.mkdir(exist_ok=True)
    with registry.following(ready, live, "classify"):
        live.write_text('{"step": 1, "loss": 2.5, "validation_image": 0.5}\n{"step": 2, "lo')
        (run,) = wait_for(lambda: [run for run in live_runs(ready) if "live/loss" in run.data.metrics])
        assert run.info.status == "RUNNING" and run.data.metrics["live/loss"] == 2.5
        with live.open("a") as file:
            file.write('ss": 2.0}\n')
        history = client(ready).get_metric_history
        assert wait_for(lambda: len(history(run.info.run_id, "live/loss")) == 2)
        wait_for(lambda: "system/cpu_utilization_percentage" in client(ready).get_run(run.info.run_id).data.metrics)
    assert [(m.step, m.value) for m in history(run.info.run_id, "live/loss")] == [(1, 2.5), (2, 2.0)]
    first = registry.register(ready)
    assert first.run_id == run.info.run_id
    done = client(ready).get_run(run.info.run_id)
    assert done.info.status == "FINISHED" and done.info.run_name.startswith("train ")
    assert "live/loss" in done.data.metrics and done.data.tags["model_key"] == registry.model_key(ready)
    assert not registry.register(ready).logged and len(live_runs(ready)) == 1


def test_what_mlflow_did_not_take_is_sent_later_and_a_failed_training_is_told(
    ready: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, real, down = ready / "live.jsonl", registry.store.client, []

    def unreachable(root: Path) -> Any:
        if len(down) < 3:
            down.append(1)
            raise QuickstudyError("MLflow's store does not answer")
        return real(root)

    monkeypatch.setattr(registry.store, "client", unreachable)
    with pytest.raises(KeyboardInterrupt), registry.following(ready, live, "classify"):
        live.write_text('{"step": 1, "loss": 2.5}\n')
        wait_for(lambda: len(down) == 3)
        raise KeyboardInterrupt
    (run,) = live_runs(ready)
    assert run.info.status == "FAILED" and run.data.metrics["live/loss"] == 2.5 and "model_key" not in run.data.tags
    assert registry.register(ready).run_id != run.info.run_id


def test_without_a_training_there_is_no_live_run(ready: Path, quick: None) -> None:
    (ready / "live.jsonl").write_text('{"step": 1, "loss": 2.5}\n')  # of the training before
    with registry.following(ready, ready / "live.jsonl", "classify"):
        time.sleep(0.3)
    assert live_runs(ready) == []


def test_a_model_becomes_one_version_with_all_that_is_known_about_it(ready: Path) -> None:
    (ready / "data.dvc").write_text(f"outs:\n- md5: {'a' * 32}.dir\n  path: data\n")
    (ready / "stage.py").write_text((ready / "stage.py").read_text() + "# changed\n")
    assert registry.registered(ready) is None
    first = registry.register(ready)
    assert (first.version, first.aliases, first.new) == (1, ("champion",), True)
    assert first.uri == "models:/quickstudy/1"

    run = client(ready).get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["seed"] == "0" and run.data.params["episodes.shots"] == "[1, 5, 10]"
    assert run.data.metrics["evaluate/classify/words_domain.5-shot.score"] == 0.95
    assert [m.value for m in client(ready).get_metric_history(first.run_id, "train/classify/image/loss")] == [1.0, 0.5]
    assert run.data.tags["git_dirty"] == "true" and len(run.data.tags["git_commit"]) == 40
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == "a" * 32 + ".dir" and data.dataset.source_type == "dvc"
    names = {item.path for item in client(ready).list_artifacts(first.run_id)}
    assert {"card", "evaluate", "meta_train", "lineage.json", "changes.patch", "params.yaml"} <= names
    version = client(ready).get_model_version("quickstudy", "1")
    assert version.tags["data_hash"] == "a" * 32 + ".dir"

    again = registry.register(ready)
    assert (again.version, again.new, again.logged) == (1, False, False)
    assert registry.registered(ready) == again
    experiment = client(ready).get_experiment_by_name("quickstudy").experiment_id
    assert len(client(ready).search_runs([experiment])) == 1

    folder = registry.resolve("models:/quickstudy@champion", ready)
    assert folder == registry.resolve("models:/quickstudy/1", ready)
    assert (folder / WEIGHTS).read_bytes() == (ready / "build/model" / WEIGHTS).read_bytes()
    files = [path for path in folder.rglob("*") if path.is_file()]
    digests = {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    del digests["digests.json"]
    assert json.loads(version.tags["model_files"]) == digests and {WEIGHTS, "lineage.json"} <= digests.keys()
    assert json.loads((folder / "digests.json").read_text()) == digests
    lineage = json.loads((folder / "lineage.json").read_text())
    assert lineage["data_hash"] == "a" * 32 + ".dir" and lineage["trained_on"] == {"toy": ["one"]}


def without_kinds(root: Path) -> None:
    """Put what the stages wrote where it lay before there were kinds."""
    for folder in (root / "build").glob("*/classify"):
        for path in folder.iterdir():
            path.rename(folder.parent / path.name)
        folder.rmdir()


def test_a_version_of_before_there_were_kinds_is_the_same_one_and_stays_readable(ready: Path) -> None:
    without_kinds(ready)
    key = registry.model_key(ready)
    digest = hashlib.sha256()
    for part in (b"", *((ready / "build/model" / name).read_bytes() for name in ("model.safetensors", "config.yaml"))):
        digest.update(hashlib.sha256(part).digest() if part else b"")
    assert key == digest.hexdigest()[:32]  # as it has always been computed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("served.loader.WEIGHTS", "model.safetensors")
        first = registry.register(ready)
    assert registry.registered(ready) is not None and not registry.register(ready).logged
    metrics = client(ready).get_run(first.run_id).data.metrics
    assert metrics["evaluate/words_domain.5-shot.score"] == 0.95 and "train/image/loss" in metrics
    folder = registry.resolve("models:/quickstudy@champion", ready)
    assert folder.joinpath("model.safetensors").read_bytes() == (ready / "build/model/model.safetensors").read_bytes()
    assert registry.resolve(str(ready / "build/model"), ready) == ready / "build/model"

    # Built again in the same place: what was left of before beside it counts for nothing.
    for stage in ("tasks", "evaluate"):
        subprocess.run([sys.executable, "stage.py", stage], cwd=ready, check=True, capture_output=True)
    train_again(ready)
    assert (ready / "build/model/model.safetensors").exists() and registry.registered(ready) is None
    second = registry.register(ready)
    assert second.version == 2 and registry.model_key(ready) != key
    found = client(ready).get_run(second.run_id).data.metrics
    assert not [name for name in found if name.startswith(("evaluate/words", "train/image"))]
    assert found["evaluate/classify/words_domain.5-shot.score"] == 0.95


def test_the_key_is_of_all_parts_and_of_nothing_else(ready: Path) -> None:
    alone = registry.model_key(ready)
    for stage in ("tasks", "meta_train", "evaluate"):
        subprocess.run([sys.executable, "stage.py", stage, "tag"], cwd=ready, check=True, capture_output=True)
    both = registry.model_key(ready)
    assert both != alone
    (ready / "build/model/tag/reference.safetensors").write_bytes(b"beside the weights")
    assert registry.model_key(ready) == both
    first = registry.register(ready)
    metrics = client(ready).get_run(first.run_id).data.metrics
    assert {f"evaluate/{kind}/count" for kind in ("classify", "tag")} <= metrics.keys()
    assert {f"train/{kind}/image/loss" for kind in ("classify", "tag")} <= metrics.keys()
    (ready / "build/evaluate/tag/metrics.json").write_text("{}")  # another evaluation of one kind
    judged = registry.register(ready)
    assert (judged.version, judged.new, judged.logged) == (1, False, True)
    (ready / "build/model/tag/model.safetensors").write_bytes(b"other")
    assert registry.model_key(ready) not in (both, alone) and registry.register(ready).version == 2


def test_the_run_of_a_training_is_found_by_the_weights_of_its_part(ready: Path, quick: None) -> None:
    for stage in ("tasks", "meta_train"):
        subprocess.run([sys.executable, "stage.py", stage, "tag"], cwd=ready, check=True, capture_output=True)
    (ready / "build/model/tag/model.safetensors").write_bytes(b"of tag")
    with registry.following(ready, ready / "live.jsonl", "tag"):
        (ready / "live.jsonl").write_text('{"step": 1, "loss": 2.5}\n')
        wait_for(lambda: live_runs(ready))
    (run,) = live_runs(ready)
    assert run.data.tags["weights"] == hashlib.sha256(b"of tag").hexdigest()
    assert registry.register(ready).run_id == run.info.run_id


def test_the_model_loads_through_mlflow_without_the_package(ready: Path, tmp_path: Path) -> None:
    registry.register(ready)
    code = (
        "import mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model('models:/quickstudy@champion')\n"
        "example = model.input_example\n"
        "print(model.predict(example)['labels'][0])\n"
        "print(model.metadata.get_input_schema().input_names())\n"
        "try: model.predict(example.drop(columns='support'))\n"
        "except mlflow.exceptions.MlflowException as error: print(error)\n"
    )
    environment = {**os.environ, "MLFLOW_TRACKING_URI": registry.tracking_uri(ready)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer, schema, *refusal = done.stdout.splitlines()
    assert answer == "['news', 'news']" and schema == "['modality', 'support', 'queries']"
    assert "missing inputs ['support']" in " ".join(refusal)
    requirements = (registry.resolve("models:/quickstudy/1", ready).parents[1] / "requirements.txt").read_text()
    assert {"torch", "mlflow", "transformers"} <= {line.partition("==")[0] for line in requirements.split()}
    assert "prefect" not in requirements


def test_a_second_model_challenges_and_a_new_evaluation_is_a_run(ready: Path) -> None:
    first = registry.register(ready)
    train_again(ready)
    second = registry.register(ready)
    assert (second.version, second.aliases) == (2, ("challenger",))
    train_again(ready, seed=2)
    third = registry.register(ready)
    assert (third.version, third.aliases) == (3, ("challenger",))
    assert client(ready).get_model_version("quickstudy", "2").aliases == []
    moves = [line.moves for line in registry.read_ledger(ready).entries.values() if line.kind == "intent"]
    assert moves == [(Move("champion", None, 1),), (Move("challenger", None, 2),), (Move("challenger", 2, 3),)]

    metrics = ready / "build/evaluate/classify/metrics.json"
    metrics.write_text(json.dumps({"digits": {"1-shot": {"score": 0.7}}}))
    assert registry.registered(ready) is None
    judged = registry.register(ready)
    assert (judged.version, judged.new, judged.logged) == (3, False, True)
    version = client(ready).get_model_version("quickstudy", "3")
    run = client(ready).get_run(version.tags["evaluation_run"])
    assert run.info.run_id != third.run_id and run.data.metrics["evaluate/classify/digits.1-shot.score"] == 0.7
    assert registry.registered(ready) == registry.register(ready)

    # An alias that somebody has moved stays where it is.
    client(ready).set_registered_model_alias("quickstudy", "champion", "3")
    client(ready).delete_registered_model_alias("quickstudy", "challenger")
    assert registry.register(ready).aliases == ("champion",)
    assert client(ready).get_model_version("quickstudy", str(first.version)).aliases == []


@contextlib.contextmanager
def broken(method: str) -> Iterator[None]:
    """MLflow's client with one method that ends the way a killed process ends in the middle."""
    import mlflow

    with pytest.MonkeyPatch.context() as patch:

        def die(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(mlflow.MlflowClient, method, die)
        with pytest.raises(KeyboardInterrupt):
            yield


@pytest.mark.parametrize(
    "method",
    [
        "log_artifacts",
        "log_model_artifacts",
        "set_terminated",
        "create_model_version",
        "set_registered_model_alias",
        "set_model_version_tag",
    ],
)
def test_cut_off_anywhere_nothing_half_counts_and_the_next_call_completes_it(ready: Path, method: str) -> None:
    with broken(method):
        registry.register(ready)
    assert registry.registered(ready) is None
    done = registry.register(ready)
    assert (done.version, done.aliases) == (1, ("champion",))
    assert registry.registered(ready) is not None
    assert len(client(ready).search_model_versions("name = 'quickstudy'")) == 1
    experiment = client(ready).get_experiment_by_name("quickstudy").experiment_id
    statuses = [run.info.status for run in client(ready).search_runs([experiment])]
    assert statuses.count("FINISHED") == 1 and "RUNNING" not in statuses


def test_a_moved_project_finds_its_models(ready: Path, tmp_path: Path) -> None:
    before = registry.register(ready)
    moved = tmp_path / "moved #2"
    ready.rename(moved)
    folder = registry.resolve("models:/quickstudy@champion", moved)
    assert folder.is_relative_to(moved.resolve()) and (folder / "classify/config.yaml").is_file()
    assert registry.register(moved).version == before.version
    run = client(moved).get_run(before.run_id)
    assert {item.path for item in client(moved).list_artifacts(before.run_id)} >= {"card", "evaluate"}
    assert str(ready.as_uri()) not in run.info.artifact_uri
    with contextlib.closing(sqlite3.connect(moved / "mlruns/mlflow.db")) as connection:
        dump = "\n".join(connection.iterdump())
    assert ready.resolve().as_uri() not in dump  # no column was forgotten
    train_again(moved)
    assert registry.register(moved).version == 2


def test_processes_that_open_a_new_store_at_once_all_succeed(built: Path) -> None:
    code = "from quickstudy import registry; from pathlib import Path; registry.prepare(Path('.'))"
    running = [subprocess.Popen([sys.executable, "-c", code], cwd=built, stderr=subprocess.PIPE) for _ in range(3)]
    errors = [process.communicate()[1] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], errors


def test_a_store_of_the_users_is_used(ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ready / "mlruns", tmp_path / "theirs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/theirs/mlflow.db")
    monkeypatch.chdir(tmp_path)
    assert registry.registered(ready) is None
    first = registry.register(ready)
    assert first.new and registry.registered(ready) == registry.register(ready)
    folder = registry.resolve("models:/quickstudy@champion", ready)
    assert (folder / WEIGHTS).read_bytes() == (ready / "build/model" / WEIGHTS).read_bytes()
    assert os.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/theirs/mlflow.db"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert registry.registered(ready) is None


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/quickstudy@best", "no such model. Known models: models:/quickstudy@champion, models:/quickstudy/1"),
        ("models:/quickstudy/7", "no such model"),
        ("models:/other/1", "cannot give this model .*Known models: models:/quickstudy@champion"),
        ("runs:/0123/model", "cannot give this model"),
        ("build/tasks", "no model folder"),
    ],
)
def test_a_model_that_does_not_exist_is_told_with_those_that_do(
    one_version: Path, monkeypatch: pytest.MonkeyPatch, uri: str, message: str
) -> None:
    monkeypatch.chdir(one_version)
    with pytest.raises(QuickstudyError, match=message) as error:
        registry.resolve(uri, one_version)
    assert str(error.value).startswith(uri) and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def one_version(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """A store with one version that has no run: enough to look for others."""
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("one version")
    shutil.copytree(store, root / "mlruns")
    uri = registry.tracking_uri(root)
    mlflow_client = MlflowClient(uri, uri)
    mlflow_client.create_registered_model("quickstudy")
    mlflow_client.create_model_version("quickstudy", (root / "mlruns/artifacts").as_uri())
    mlflow_client.set_registered_model_alias("quickstudy", "champion", "1")
    return root


def test_without_a_trained_model_there_is_nothing_to_register(project: Path) -> None:
    with pytest.raises(QuickstudyError, match="no trained model"):
        registry.register(project)
    assert not (project / "mlruns").exists()
