"""The stages from data to evaluation, twice, on data so small that it takes seconds: the same bytes. And once more with
the training killed in the middle of it."""

import copy
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from PIL import Image
from safetensors import safe_open

from quickstudy.data.dataset import DatasetInfo, make_table, write_dataset

QUICKSTUDY = str(Path(sys.executable).parent / "quickstudy")
STEPS = 80  # a second or two of training, to be killed in

pytestmark = pytest.mark.xdist_group("golden")  # the fixtures run the pipeline: once, not once a process


def start(root: Path, *arguments: str) -> "subprocess.Popen[str]":
    # scikit-learn in the stage's own process: others would take longer to start than all the rest does
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LOKY_MAX_CPU_COUNT": "1"}
    return subprocess.Popen(
        [QUICKSTUDY, *arguments], cwd=root, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(root: Path, *stages: str) -> None:
    for stage in stages:
        process = start(root, stage, "--kind", "classify")
        out, err = process.communicate()
        assert process.returncode == 0, (stage, out, err)


def lay_out(root: Path, params: dict[str, Any]) -> Path:
    """A project with pictures and sounds, each with groups of its own on every side of the meta-split."""
    root.mkdir()
    (root / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    (root / "dvc.yaml").write_text("stages: {}\n")
    places = [(c, i) for c in range(12) for i in range(6)]
    pins = {f"g{g}": side for g, side in enumerate(["train", "train", "test", "validation"])}
    for modality, make in (("image", picture), ("audio", sound)):
        table = make_table(
            modality,  # type: ignore[arg-type]
            [make(c, i) for c, i in places],
            [f"c{c:02}" for c, _ in places],
            [f"g{c % 4}" for c, _ in places],
        )
        info = {"name": f"some-{modality}", "modality": modality, "meta_split": pins}
        write_dataset(root / "data", DatasetInfo.model_validate(info), table)
    return root


def picture(c: int, i: int) -> bytes:
    pattern = np.random.default_rng(c).integers(0, 2, (5, 5)).repeat(4, 0).repeat(4, 1)
    noise = np.random.default_rng(1000 + 100 * c + i).normal(0, 60, pattern.shape)
    buffer = io.BytesIO()
    Image.fromarray((pattern * 120 + 60 + noise).clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def sound(c: int, i: int) -> bytes:
    random = np.random.default_rng(5000 + 100 * c + i)
    times = np.arange(1600) / 4000
    wave = np.sin(2 * np.pi * (200 + 120 * c) * times * random.uniform(0.95, 1.05)) + random.normal(0, 0.5, 1600)
    buffer = io.BytesIO()
    soundfile.write(buffer, wave / 5, 4000, format="WAV")
    return buffer.getvalue()


def steps_done(checkpoint: Path) -> int:
    with safe_open(checkpoint, framework="numpy") as file:
        return int(json.loads(file.metadata()["place"])["step"])


@pytest.fixture(scope="module")
def params(tiny_params: dict[str, Any]) -> dict[str, Any]:
    params = copy.deepcopy(tiny_params)
    # Points of the curve lie between the checkpoints: a resumed run must remember what came before.
    params["train"] |= {"steps": STEPS, "validate_every": 25, "checkpoint_every": 10}
    return params


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, params: dict[str, Any]) -> Path:
    """A project with all the stages done."""
    root = lay_out(tmp_path_factory.mktemp("golden") / "first", params)
    run(root, "tasks", "meta_train", "evaluate")
    return root


def files(root: Path, *folders: str) -> dict[str, bytes]:
    """By path, the bytes of the outputs; but for times."""
    found = {}
    for folder in folders:
        for path in sorted((root / "build" / folder).rglob("*")):
            if path.is_file() and path.name != "training.json":
                found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


TRAINED = ("tasks", "model", "meta_train")
EPISODES = "build/tasks/classify/episodes.parquet"


def test_the_run_does_what_it_is_there_for(first: Path) -> None:
    made = files(first, *TRAINED, "evaluate")
    assert {"build/model/classify/model.safetensors", EPISODES, "build/evaluate/classify/table.csv"} <= set(made)
    curve = pd.read_csv(first / "build/meta_train/classify/curve.csv")
    assert curve["step"].tolist() == [25, 50, 75, STEPS] and curve["loss"].iloc[-1] < curve["loss"].iloc[0]
    lineage = json.loads(made["build/model/classify/lineage.json"])
    assert lineage["trained_on"] == {"some-audio": ["g0", "g1"], "some-image": ["g0", "g1"]}
    episodes = pd.read_parquet(first / EPISODES)
    assert len(episodes) == 2 * 2 * 6
    for column in ("support", "query"):  # row r is of class r // 6, which is of group r // 6 % 4
        assert {row // 6 % 4 for rows in episodes[column] for row in rows} == {2}


def test_what_is_drawn_and_learned_is_what_it_has_always_been(first: Path) -> None:
    """The rows of the frozen episodes to the last, and of the training what another processor would find too."""
    episodes = pd.read_parquet(first / EPISODES)
    drawn = np.concatenate([rows for column in ("support", "query") for rows in episodes[column]])
    digest = hashlib.sha256(drawn.astype("<i8").tobytes()).hexdigest()
    assert digest == "a147ef315a43aeb46246b6d9c9ad46f1906f1f65f6b0b69d104058da4fae377a"
    curve = pd.read_csv(first / "build/meta_train/classify/curve.csv")
    assert curve["loss"].tolist() == pytest.approx([1.24441, 0.98131, 0.93820, 0.85127], rel=0.01)


def test_a_second_project_ends_with_the_same_bytes(first: Path, tmp_path: Path, params: dict[str, Any]) -> None:
    second = lay_out(tmp_path / "second, with a blank", params)
    run(second, "tasks", "meta_train", "evaluate")
    ours, theirs = (files(root, *TRAINED) for root in (first, second))
    assert [name for name in ours if ours[name] != theirs.get(name)] == [] and set(ours) == set(theirs)
    one, two = (pd.read_parquet(root / "build/evaluate/classify/episodes.parquet") for root in (first, second))
    pd.testing.assert_frame_equal(one.drop(columns="adapt_ms"), two.drop(columns="adapt_ms"))  # times differ


def kill_in_training(root: Path) -> None:
    """Start the training and kill -9 all of its session once it has a checkpoint."""
    process = start(root, "meta_train")
    checkpoints = root / ".cache/checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (root / "build/model").exists()
    (checkpoint,) = checkpoints.glob("*.safetensors")
    assert 0 < steps_done(checkpoint) < STEPS  # it was in the middle of it


def test_a_training_that_was_killed_ends_with_the_same_bytes(
    first: Path, tmp_path: Path, params: dict[str, Any]
) -> None:
    root = lay_out(tmp_path / "killed", params)
    shutil.copytree(first / "build/tasks", root / "build/tasks")
    kill_in_training(root)
    run(root, "meta_train")
    ours, theirs = (files(folder, *TRAINED) for folder in (first, root))
    assert [name for name in ours if ours[name] != theirs.get(name)] == [] and set(ours) == set(theirs)


def test_two_processes_that_were_killed_end_as_two_that_were_not(
    first: Path, tmp_path: Path, params: dict[str, Any]
) -> None:
    params = copy.deepcopy(params)
    params["train"]["processes"] = 2
    whole, killed = (lay_out(tmp_path / name, params) for name in ("whole", "killed"))
    for root in (whole, killed):
        shutil.copytree(first / "build/tasks", root / "build/tasks")
    kill_in_training(killed)
    for root in (whole, killed):
        run(root, "meta_train")
    ours, theirs = (files(root, "model", "meta_train") for root in (whole, killed))
    assert [name for name in ours if ours[name] != theirs.get(name)] == [] and set(ours) == set(theirs)
    curve, alone = (pd.read_csv(root / "build/meta_train/classify/curve.csv") for root in (whole, first))
    assert curve["step"].tolist() == alone["step"].tolist()
    # Each process norms its own tasks' batch, so that the weights are not those of one process; the learning is alike.
    assert abs(curve["loss"].iloc[-1] - alone["loss"].iloc[-1]) < 0.3 * alone["loss"].iloc[-1]


def test_a_training_before_the_tasks_is_one_line(tmp_path: Path, params: dict[str, Any]) -> None:
    process = start(lay_out(tmp_path / "early", params), "meta_train")
    _, err = process.communicate()
    said = "quickstudy: build/tasks/classify/data.json: not found. `quickstudy tasks` writes it"
    assert (process.returncode, err.strip()) == (2, said)


def test_more_processes_than_tasks_is_one_line(tmp_path: Path, params: dict[str, Any]) -> None:
    params = copy.deepcopy(params)
    params["train"]["processes"] = 5
    process = start(lay_out(tmp_path / "many", params), "meta_train")
    _, err = process.communicate()
    said = "quickstudy: params.yaml: train.processes = 5: a meta-batch has 4 tasks (train.tasks), fewer than processes"
    assert (process.returncode, err.strip()) == (2, said + " to share it")
