"""The command line of every kind is one: adapt, predict and evaluate a task of tags, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from quickstudy.config import Settings
from quickstudy.data.dataset import DatasetInfo, make_table, write_dataset
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model

Run = Callable[..., tuple[int, str, str]]
WORDS = {"alpha": "aaaa aaaa", "beta": "bbbb bbbb", "gamma": "gggg gggg", "delta": "dddd dddd"}


@pytest.fixture
def run(run: Run, workspace: Path, tiny_params) -> Run:
    """In a project with an untrained model, a part of texts for each kind, in the folder ``model``."""
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    tiny_params["model"] |= {"learner": "ridge", "encoders": tiny_params["model"]["encoders"] | {"text": "bytes-cnn"}}
    tiny_params["kinds"] = {"classify": {}, "tag": {}}
    (workspace / "params.yaml").write_text(yaml.safe_dump(tiny_params))
    settings = Settings.model_validate(tiny_params)
    for kind in ("classify", "tag"):
        torch.manual_seed(0)
        save_model(MetaModel(settings.inputs, settings.model, {"text"}, kind), workspace / "model", {})
    return run


def messages(path: Path, count: int, first: int = 0) -> Path:
    """Texts that hold the words of their tags, and some of none."""
    names = list(WORDS)
    lines = []
    for number in range(first, first + count):
        tags = sorted({names[number % 4], names[number // 4 % 4]}) if number % 9 else []
        text = " ".join([str(number), *(WORDS[tag] for tag in tags)])
        lines.append(json.dumps({"text": text, "labels": tags}))
    path.write_text("\n".join(lines) + "\n")
    return path


def refused(run: Run, *arguments: object) -> str:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("quickstudy: "), (code, out, err)
    return err


def test_a_task_of_tags_is_taught_and_asked(run: Run, tmp_path: Path) -> None:
    taught, asked = messages(tmp_path / "taught.jsonl", 24), messages(tmp_path / "asked.jsonl", 24, first=24)
    code, out, _ = run("adapt", taught, "--task", "about", "--model", "model")
    assert code == 0 and "Learned 'about'" in out and "4 tags" in out
    code, out, _ = run("predict", asked, "--task", "about", "--model", "model", "--json", "answers.json")
    said = json.loads(Path("answers.json").read_text())
    assert code == 0 and "Micro F1" in out
    assert (said["kind"], said["metric"], said["way"]) == ("tag", "micro F1", 4) and said["score"] > 0.8
    assert all(isinstance(one["answer"], list) and set(one["answer"]) <= set(WORDS) for one in said["predictions"])


def test_an_evaluation_of_tags_says_kind_metric_and_score(run: Run, tmp_path: Path) -> None:
    code, out, err = run(
        "evaluate",
        messages(tmp_path / "m.jsonl", 80),
        "--kind",
        "tag",
        "--shot",
        3,
        "--query",
        2,
        "--way",
        3,
        "--episodes",
        5,
        "--model",
        "model",
        "--json",
        "r.json",
    )
    said = json.loads(Path("r.json").read_text())
    assert code == 0, err
    assert {"kind", "metric", "score", "ci95", "shot", "episodes", "model", "adapt_ms", "suites"} <= set(said)
    assert (said["kind"], said["metric"], said["shot"], said["episodes"]) == ("tag", "micro F1", 3, 5)
    assert 0 < said["score"] <= 1 and "accuracy" not in said and "micro F1" in out


def test_one_source_is_of_either_kind(run: Run, tmp_path: Path) -> None:
    """Lists are tags by themselves; a class is one where --kind says so."""
    single = tmp_path / "single.csv"
    single.write_text(
        "text,label\n" + "".join(f"{word} {n},{name}\n" for n in range(6) for name, word in WORDS.items())
    )
    options = ("--shot", 2, "--query", 2, "--way", 3, "--episodes", 3, "--model", "model", "--json", "r.json")
    for kind, metric in ((None, "accuracy"), ("tag", "micro F1")):
        code, _, err = run("evaluate", single, *(("--kind", kind) if kind else ()), *options)
        said = json.loads(Path("r.json").read_text())
        assert code == 0 and said["metric"] == metric, err
    assert run("evaluate", single, *options)[0] == 0
    assert json.loads(Path("r.json").read_text())["accuracy"] == json.loads(Path("r.json").read_text())["score"]


def test_what_is_refused(run: Run, tmp_path: Path, workspace: Path) -> None:
    taught = messages(tmp_path / "taught.jsonl", 24)
    run("adapt", taught, "--task", "about", "--model", "model")
    for verb in (("adapt", taught, "--task", "x"), ("evaluate", taught)):
        assert "no kind of task 'tagg'. Did you mean tag?" in refused(run, *verb, "--kind", "tagg", "--model", "model")
    said = refused(run, "predict", taught, "--task", "about", "--kind", "classify", "--model", "model")
    assert "task 'about' is of kind tag, not classify" in said
    for name in ("model.safetensors", "config.yaml", "lineage.json"):
        (workspace / "model/tag" / name).unlink()
    small = ("--shot", 2, "--query", 2, "--way", 2)
    said = refused(run, "evaluate", taught, *small, "--model", "model")
    assert "the model has no part for tag (it has classify). Train one on data of kind tag" in said
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"text": "a", "labels": ["x"]}\n{"text": "b", "labels": {"y": 1}}\n')
    said = refused(run, "adapt", bad, "--kind", "tag", "--task", "x", "--model", "model")
    assert "bad.jsonl" in said and "2" in said and "labels" in said


def test_a_dataset_of_a_kind_of_tomorrow_is_one_line(run: Run, workspace: Path) -> None:
    info = DatasetInfo(name="later", modality="text")
    write_dataset(Path("data"), info, make_table("text", ["a", "b"], ["x", "y"], ["g", "g"]))
    described = Path("data/later/dataset.yaml")
    described.write_text(described.read_text().replace("kind: classify", "kind: outline"))
    for arguments in (("evaluate", "later", "--model", "model"), ("tasks", "--kind", "classify")):
        assert "no kind of task 'outline'" in refused(run, *arguments)
