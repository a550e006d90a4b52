"""Meta-training: what a step draws, that it learns, and that a run which was stopped ends as one that was not."""

import itertools
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from quickstudy.config import PerModality, Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.training import (
    Engine,
    Look,
    Result,
    Source,
    draw_tasks,
    gather,
    learning_rate,
    meta_train,
    optimiser,
    validate,
    write_curve,
)
from quickstudy.training.loop import _stops_early


def source(dataset, arrays: np.ndarray) -> Source:
    return Source.of(dataset, np.ones(len(dataset), dtype=bool), arrays)


def made(settings: Settings, seed: int = 0, modalities=("image", "text")) -> MetaModel:
    torch.manual_seed(seed)
    return MetaModel(settings.inputs, settings.model, modalities)


def changed(settings: Settings, **train: Any) -> Settings:
    return settings.model_copy(update={"train": settings.train.model_copy(update=train)})


@pytest.fixture
def sources(toys, tiny: Settings) -> list[Source]:
    images = toys("image", classes=8, each=8, name="pictures")
    encoder = made(tiny).encoder("image")
    random = np.random.default_rng(0)
    texts = toys("text", classes=6, each=8, name="texts")
    sentences = random.normal(0, 1, (6, 384))[texts.class_index] + random.normal(0, 0.5, (48, 384))
    return [source(images, encoder.prepare(images.raw())), source(texts, sentences.astype(np.float32))]


# What a step draws


@pytest.fixture
def numbered(toys) -> Source:
    """Each row says which one it is: the text encoder takes sentence vectors as they are."""
    dataset = toys("text", classes=9, each=[8, 5, 8, 3, 8, 8, 8, 4, 8])
    return source(dataset, np.arange(len(dataset), dtype=np.float32)[:, None].repeat(384, 1))


def test_gather_takes_rows_in_any_shape() -> None:
    arrays = np.arange(24).reshape(6, 2, 2)
    rows = torch.tensor([[5, 0, 0], [3, 2, 1]])
    assert torch.equal(gather(arrays, rows), torch.from_numpy(arrays)[rows])


def test_a_meta_batch_is_what_the_settings_ask_for(numbered: Source, tiny: Settings, toys) -> None:
    model = made(tiny, modalities=("text",))
    train = tiny.train.model_copy(update={"tasks": tiny.train.tasks.model_copy(update={"text": 3}), "shots": (1, 2, 4)})
    classes = toys("text", classes=9, each=[8, 5, 8, 3, 8, 8, 8, 4, 8]).class_index
    shots = set()
    for seed in range(60):
        tasks, counts = draw_tasks([numbered], train, model, seed, 0)
        assert len(tasks) == 3 and counts == {"text": 3}
        for task in tasks:
            rows = [part[0, :, 0].long().tolist() for part in (task.support, task.query)]
            shot = len(rows[0]) // task.way
            shots.add(shot)
            assert len(rows[1]) == task.way * 2 and len(rows[0]) + len(rows[1]) <= train.examples.text
            assert task.way == min(12 // (shot + 2), 9)
            assert len({*rows[0], *rows[1]}) == len(rows[0]) + len(rows[1])
            for part, targets in zip(rows, (task.support_targets, task.query_targets), strict=True):
                pairs = set(zip(classes[part].tolist(), targets[0].tolist(), strict=True))
                assert len(pairs) == task.way  # a class for each target, a target for each class
    assert shots == {1, 2, 4}


def test_shots_shrink_to_what_a_dataset_holds(toys, tiny: Settings) -> None:
    small = source(toys("text", classes=4, each=4), np.zeros((16, 384), dtype=np.float32))
    train = tiny.train.model_copy(update={"shots": (5,)})
    (task,) = draw_tasks([small], train, made(tiny, modalities=("text",)), 0, 0)[0]
    assert task.support.shape[1] // task.way == 2  # 2 and 2 questions are the 4 that each class has


def test_a_dataset_too_small_for_a_task_does_not_take_the_place_of_others(toys, tiny: Settings) -> None:
    small = source(toys("text", classes=90, each=2, name="small"), np.full((180, 384), 7, dtype=np.float32))
    good = source(toys("text", classes=4, each=4), np.zeros((16, 384), dtype=np.float32))
    model = made(tiny, modalities=("text",))
    for seed in range(20):
        (task,) = draw_tasks([small, good], tiny.train, model, seed, 0)[0]
        assert task.support.max() == 0
    with pytest.raises(QuickstudyError, match="meta_train: no task can be drawn"):
        meta_train(model, [small], [], tiny)


def test_the_learning_rate_warms_up_and_comes_down(tiny: Settings) -> None:
    train = changed(tiny, steps=100, warmup=0.1, learning_rate=0.5).train
    rates = [learning_rate(step, train) for step in range(100)]
    assert rates[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert max(rates) == rates[9] == rates[10] == 0.5
    assert all(a > b for a, b in itertools.pairwise(rates[10:])) and 0 < rates[-1] < 0.001
    assert learning_rate(0, changed(tiny, steps=1, warmup=0.0).train) > 0


def test_every_parameter_has_one_pace(tiny: Settings) -> None:
    model = made(tiny)
    groups = optimiser(model, tiny.train).param_groups
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in model.parameters())
    pace = {id(p): (group["pace"], group["weight_decay"]) for group in groups for p in group["params"]}
    for scalar in (model.learner.alpha, model.learner.step_alpha, *model.log_tau.values()):
        assert pace[id(scalar)] == (10.0, 0.0)
    assert pace[id(model.encoder("text").project.weight)] == (0.05, 0.0)
    assert pace[id(model.learner.attention.in_proj_weight)] == (1.0, tiny.train.weight_decay)


# Training


def test_it_learns(sources: list[Source], tiny: Settings) -> None:
    settings = changed(tiny, steps=60, validate_every=20, learning_rate=0.005)
    model = made(settings)
    before = validate(model, sources)
    result = meta_train(model, sources, sources, settings)
    assert [look.step for look in result.curve] == [20, 40, 60] and not model.training
    assert result.curve[-1].loss < 0.8 * result.curve[0].loss
    assert result.curve[-1].scores["image"] > before["image"]
    assert model.learner.alpha.item() != 0 and (model.learner.step_alpha > 0).all()


def test_validation_changes_neither_weights_nor_random_streams(sources: list[Source], tiny: Settings) -> None:
    often, seldom = made(tiny), made(tiny)
    meta_train(often, sources, sources, changed(tiny, validate_every=1))
    meta_train(seldom, sources, [], changed(tiny, validate_every=6))
    assert_same_weights(often, seldom)


def test_validation_without_a_pool_is_not_a_number(sources: list[Source], tiny: Settings) -> None:
    scores = validate(made(tiny), sources[:1])
    assert 0 <= scores["image"] <= 1 and np.isnan(scores["text"])


def test_the_curve_is_a_table(sources: list[Source], tiny: Settings, tmp_path: Path) -> None:
    result = meta_train(made(tiny), sources, sources[:1], tiny)
    write_curve(tmp_path / "curve.csv", result.curve)
    lines = (tmp_path / "curve.csv").read_text().splitlines()
    assert lines[0] == "step,loss,image,text" and [line.split(",")[0] for line in lines[1:]] == ["2", "4", "6"]
    assert {line.split(",")[3] for line in lines[1:]} == {"nan"}
    assert float(lines[1].split(",")[1]) == pytest.approx(result.curve[0].loss, abs=1e-5)


# Stop and go on


def assert_same_weights(a: MetaModel, b: MetaModel) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def stopped_after(step: int, settings: Settings, sources: list[Source], checkpoint: Path) -> None:
    def stop(done: int, total: int, text: str) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        meta_train(made(settings), sources, sources, settings, checkpoint, stop)


def without_time(result: Result) -> list[tuple]:
    return [(look.step, look.loss, look.scores) for look in result.curve]


@pytest.mark.parametrize("stop", [1, 4, 5, 6])  # before the first checkpoint (3), after it, in the last step
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    sources: list[Source], tiny: Settings, tmp_path: Path, stop: int
) -> None:
    whole = made(tiny)
    expected = meta_train(whole, sources, sources, tiny)
    checkpoint = tmp_path / "new" / "key.safetensors"
    stopped_after(stop, tiny, sources, checkpoint)
    assert checkpoint.exists() == (stop > 3)
    resumed = made(tiny, seed=0 if stop < 3 else 99)  # the weights that it goes on from are those of the checkpoint
    torch.manual_seed(1234)
    steps: list[int] = []
    result = meta_train(resumed, sources, sources, tiny, checkpoint, lambda done, total, text: steps.append(done))
    assert steps == list(range(1 if stop < 3 else 4, 7))
    assert_same_weights(whole, resumed)
    assert without_time(result) == without_time(expected)  # a point of the curve at 4 has losses from before the stop
    assert [path.name for path in checkpoint.parent.iterdir()] == ["key.safetensors"]


def test_what_a_run_cost_before_it_was_stopped_is_kept(sources: list[Source], tiny: Settings, tmp_path: Path) -> None:
    def meter(seconds: float) -> dict[str, float]:
        told.append(seconds)
        return {"cpu_seconds": float(len(told)), "cpu_wh": 0.5 * len(told)}

    def stop(done: int, total: int, text: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    told: list[float] = []
    with pytest.raises(KeyboardInterrupt):
        meta_train(made(tiny), sources, sources, tiny, tmp_path / "key", stop, meter=meter)
    assert len(told) == 1  # at the checkpoint of step 3
    told.clear()
    result = meta_train(made(tiny), sources, sources, tiny, tmp_path / "key", meter=meter)
    assert result.cost == {"cpu_seconds": 1.0 + 2.0, "cpu_wh": 0.5 + 1.0}  # then, and at the end of this process
    assert 0 <= told[0] <= told[1] < result.seconds  # the clock of this process alone


def test_a_finished_run_is_read_back(sources: list[Source], tiny: Settings, tmp_path: Path) -> None:
    whole = made(tiny)
    expected = meta_train(whole, sources, sources, tiny, tmp_path / "key")
    again = made(tiny, seed=5)
    result = meta_train(again, [], [], tiny, tmp_path / "key")
    assert_same_weights(whole, again)
    assert without_time(result) == without_time(expected) and result.seconds >= expected.seconds * 0.5


def test_a_loss_that_is_no_number_stops_and_keeps_the_checkpoint(
    sources: list[Source], tiny: Settings, tmp_path: Path
) -> None:
    stopped_after(4, tiny, sources, tmp_path / "key")
    kept = (tmp_path / "key").read_bytes()
    broken = [sources[0], replace(sources[1], arrays=np.full_like(sources[1].arrays, np.nan))]
    with pytest.raises(
        QuickstudyError, match=r"the loss is nan at step 3; the checkpoint of step 3 stays: .*key\. Lower train"
    ):
        meta_train(made(tiny), broken, [], tiny, tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == kept and len(list(tmp_path.iterdir())) == 1


def test_steps_that_are_too_large_are_told(sources: list[Source], tiny: Settings) -> None:
    settings = changed(tiny, learning_rate=1e30, warmup=0.0, steps=20)
    with pytest.raises(QuickstudyError, match=r"the loss is (nan|inf) at step"):
        meta_train(made(settings), sources, [], settings)


def test_a_loss_that_climbs_is_told_and_spoils_no_checkpoint(
    sources: list[Source], tiny: Settings, tmp_path: Path
) -> None:
    settings = changed(tiny, steps=80, checkpoint_every=10, learning_rate=0.002)
    told: list[float] = []

    def climb(step: int, steps: int, text: str) -> None:
        told.append(float(text.removeprefix("loss ")))
        if step == 15:  # as a learning rate that is too high would do, but at a step that one knows
            with torch.no_grad():
                model.log_tau["image"].add_(8.0)
                model.encoder("image").blocks[3][1].weight.mul_(torch.randn(16))

    model = made(settings)
    with pytest.raises(QuickstudyError, match=r"the training diverges: the loss has risen to .*, from .* at the start"):
        meta_train(model, sources, [], settings, tmp_path / "key", climb)
    with safe_open(tmp_path / "key", framework="pt") as file:
        place = json.loads(file.metadata()["place"])
    assert place["step"] == 10 and 15 <= len(told) < 80


# Early stopping


def looks(*scores: float) -> list[Look]:
    return [Look(10 * (i + 1), 1.0, {"image": score, "text": math.nan}) for i, score in enumerate(scores)]


@pytest.mark.parametrize(
    "scores, patience, stops",
    [
        ((0.5, 0.6), 1, False),
        ((0.6, 0.5), 1, True),
        ((0.6, 0.6), 1, True),
        ((0.6, 0.5), 2, False),
        ((0.6, 0.5), 0, False),
        ((0.4, 0.6, 0.5, 0.59), 2, True),
        ((math.nan, math.nan), 2, False),
        ((), 1, False),
    ],
)
def test_when_it_stops_early(scores, patience: int, stops: bool, tiny: Settings) -> None:
    assert _stops_early(looks(*scores), changed(tiny, patience=patience).train) == stops


def test_early_stopping_keeps_the_best_weights_also_after_a_stop(
    sources: list[Source], tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = changed(tiny, steps=12, validate_every=2, checkpoint_every=3, patience=2)
    scores = {2: 0.3, 4: 0.6, 6: 0.5, 8: 0.6, 10: 0.9, 12: 0.9}

    def judge(model: MetaModel, held_out) -> dict[str, float]:
        return {"image": scores[len(steps) - len(steps) % 2]}

    monkeypatch.setattr("quickstudy.training.loop.validate", judge)
    kept: dict[int, dict[str, torch.Tensor]] = {}
    steps: list[int] = [0]
    model = made(settings)

    def keep(done: int, total: int, text: str) -> None:
        steps.append(done)
        kept[done] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        if stop_at == done:
            raise KeyboardInterrupt

    stop_at = 0
    result = meta_train(model, sources, [], settings, None, keep)
    assert (result.step, [look.step for look in result.curve]) == (4, [2, 4, 6, 8])
    assert all(torch.equal(tensor, kept[4][name]) for name, tensor in model.state_dict().items())
    whole = model
    steps, stop_at, model = [0], 7, made(settings)
    with pytest.raises(KeyboardInterrupt):
        meta_train(model, sources, [], settings, tmp_path / "key", keep)
    steps, stop_at, model = list(range(7)), 0, made(settings, seed=9)  # goes on from step 6
    again = meta_train(model, sources, [], settings, tmp_path / "key", keep)
    assert_same_weights(whole, model)
    assert again.step == 4
    steps, model = [0], made(settings, seed=9)
    assert meta_train(model, sources, [], settings, tmp_path / "key", keep).step == 4 and len(steps) == 1
    assert_same_weights(whole, model)


# Where it runs


def test_parts_of_a_meta_batch_are_what_one_process_draws(sources: list[Source], tiny: Settings) -> None:
    train = tiny.train.model_copy(update={"tasks": tiny.train.tasks.model_copy(update={"image": 3, "text": 2})})
    model, met = made(tiny), [set(), set()]
    for step in range(4):
        whole, counts = draw_tasks(sources, train, model, 7, step)
        parts = [draw_tasks(sources, train, model, 7, step, part, 2) for part in (0, 1)]
        assert [found for _, found in parts] == [counts, counts] == [{"image": 3, "text": 2}] * 2
        drawn = [task for tasks, _ in parts for task in tasks]
        assert len(drawn) == len(whole) and min(len(tasks) for tasks, _ in parts) == 2
        for task in whole:
            assert any(torch.equal(task.query, other.query) for other in drawn if other.query.shape == task.query.shape)
        for part, (tasks, _) in enumerate(parts):
            met[part] |= {task.modality for task in tasks}
    assert met == [{"image", "text"}] * 2


TWO = """
import json, sys, torch
from pathlib import Path
from quickstudy.config import Settings
from quickstudy.model.metamodel import MetaModel
from quickstudy.kinds.task import Pool
from quickstudy.training import Engine, Source, meta_train
from safetensors.torch import load_file, save_file

folder = Path(sys.argv[1])
settings = Settings.model_validate_json((folder / "settings.json").read_text())
arrays = load_file(folder / "arrays.safetensors")
places = [arrays[name] for name in ("rows", "starts", "counts")]
codes = torch.arange(len(places[2]))
pool = Pool("classify", "texts", "text", *places, codes, tuple(map(str, codes.tolist())))
labels = torch.empty(len(arrays["x"]), dtype=torch.int64)
labels[places[0]] = codes.repeat_interleave(places[2])
torch.manual_seed(0)
model = MetaModel(settings.inputs, settings.model, ["text"])
engine = Engine(settings.train)
sources = [Source(pool, arrays["x"].numpy(), labels)]
cost = {"cpu_seconds": 1.0 + engine.rank} | ({"cpu_wh": 5.0} if engine.rank == 0 else {})
result = meta_train(model, sources, sources, settings, folder / "checkpoint", engine=engine, meter=lambda seconds: cost)
curve = result.curve
assert result.cost == {"cpu_seconds": [1.0, 3.0][engine.processes - 1], "cpu_wh": 5.0}, result.cost
save_file(model.state_dict(), folder / f"rank{engine.rank}of{engine.processes}")
looks = json.dumps([[look.step, look.loss, look.scores] for look in curve])
(folder / f"curve{engine.rank}of{engine.processes}.json").write_text(looks)
"""


def test_two_processes_train_as_one(sources: list[Source], tiny: Settings, tmp_path: Path) -> None:
    settings = changed(tiny, steps=10, checkpoint_every=10, tasks=PerModality(image=0, audio=0, text=3))
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    pool = sources[1].pool
    arrays = {"rows": pool.rows, "starts": pool.starts, "counts": pool.counts, "x": torch.from_numpy(sources[1].arrays)}
    save_file(arrays, tmp_path / "arrays.safetensors")
    (tmp_path / "two.py").write_text(TWO)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for start in ([*torchrun, "2"], []):
        command = [sys.executable, *start, str(tmp_path / "two.py"), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        (tmp_path / "checkpoint").unlink()
    one, *two = (load_file(tmp_path / name) for name in ("rank0of1", "rank0of2", "rank1of2"))
    for name in one:
        assert torch.equal(two[0][name], two[1][name])
        torch.testing.assert_close(two[0][name], one[name], rtol=1e-4, atol=1e-6)
    curves = [json.loads((tmp_path / f"curve{rank}.json").read_text()) for rank in ("0of1", "0of2", "1of2")]
    assert curves[1] == curves[2] and [c[0] for c in curves[0]] == [c[0] for c in curves[1]]
    assert [c[1] for c in curves[1]] == pytest.approx([c[1] for c in curves[0]], rel=1e-4)


def test_bfloat16_trains_the_encoders_and_learns_as_well(sources: list[Source], tiny: Settings) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        settings = changed(tiny, steps=40, validate_every=40, precision=precision)
        losses[precision] = meta_train(made(settings), sources, sources, settings).curve[-1].loss
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_gpu_that_is_not_there_is_one_line(sources: list[Source], tiny: Settings) -> None:
    settings = changed(tiny, device="cuda")
    with pytest.raises(
        QuickstudyError, match=r"^train\.device: is cuda, but torch finds no such device here\. Say auto"
    ):
        meta_train(made(settings), sources, [], settings)


def test_fewer_tasks_than_processes_is_one_line(sources, tiny: Settings) -> None:
    engine = Engine(tiny.train)
    engine.processes = 5  # as torchrun may start, whatever params.yaml says
    with pytest.raises(QuickstudyError, match=r"train\.tasks: a meta-batch has 3 tasks, fewer than the 5 processes"):
        meta_train(made(tiny), sources, [], tiny, engine=engine)


def test_what_each_step_tells(sources: list[Source], tiny: Settings) -> None:
    told: list[dict[str, float]] = []
    result = meta_train(made(tiny), sources, sources, tiny, record=lambda numbers: told.append(dict(numbers)))
    assert [numbers["step"] for numbers in told] == [1, 2, 3, 4, 5, 6]
    assert all(numbers["gradient_norm"] > 0 and numbers["tasks_per_second"] > 0 for numbers in told)
    assert np.mean([numbers["loss"] for numbers in told[:2]]) == pytest.approx(result.curve[0].loss)
    assert told[1]["validation_image"] == result.curve[0].scores["image"] and "validation_image" not in told[0]


# A checkpoint


def test_a_checkpoint_of_another_configuration_is_one_line(
    sources: list[Source], tiny: Settings, tmp_path: Path
) -> None:
    stopped_after(4, tiny, sources, tmp_path / "key")
    kept = (tmp_path / "key").read_bytes()
    wide = tiny.model_copy(update={"model": tiny.model.model_copy(update={"width": 8})})
    said = r"the checkpoint is of another training: its model\.width is 4, params\.yaml has 8\. Delete the file"
    with pytest.raises(QuickstudyError, match=said):
        meta_train(made(wide), sources, [], wide, tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == kept


def test_a_checkpoint_of_another_model_is_one_line(sources: list[Source], tiny: Settings, tmp_path: Path) -> None:
    path = tmp_path / "key.safetensors"
    meta_train(made(tiny, modalities=("text",)), sources[1:], [], tiny, path)
    with pytest.raises(QuickstudyError, match=r"the checkpoint is damaged .*Delete the file") as caught:
        meta_train(made(tiny), sources, [], tiny, path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_no_space_for_a_checkpoint_leaves_the_old_one(
    sources: list[Source], tiny: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_after(4, tiny, sources, tmp_path / "key")
    kept = (tmp_path / "key").read_bytes()

    def full(tensors, path, metadata) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("quickstudy.training.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        meta_train(made(tiny), sources, [], tiny, tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == kept and len(list(tmp_path.iterdir())) == 1
