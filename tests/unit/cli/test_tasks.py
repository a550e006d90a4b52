"""`quickstudy adapt`, `predict` and `evaluate`, by their command line, with a model in a folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from quickstudy import Quickstudy
from quickstudy.adaptation.state import TaskState
from quickstudy.config import Settings
from quickstudy.data.dataset import write_dataset
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model, weights_digest
from quickstudy.versions.stale import stages
from tests.toy.project import REPOSITORY

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run: Run, workspace: Path, tiny_params) -> Run:
    """In a project with an untrained model of images in the folder ``model``."""
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    (workspace / "params.yaml").write_text(yaml.safe_dump(tiny_params))
    settings = Settings.model_validate(tiny_params)
    torch.manual_seed(0)
    save_model(MetaModel(settings.inputs, settings.model, {"image"}), workspace / "model", {})
    return run


@pytest.fixture
def shapes(write, toys) -> Path:
    """Folders of 4 pictures of each of 3 classes that can be told apart."""
    dataset = toys("image", classes=3, each=4)
    return write({f"class {i // 4}/{i % 4}.png": data for i, data in enumerate(dataset.raw())}, "shapes")


@pytest.fixture
def queries(write, toys) -> Path:
    """Others of the same classes."""
    dataset = toys("image", classes=3, each=12)
    return write({f"class {i // 12}/{i % 12}.png": d for i, d in enumerate(dataset.raw()) if i % 12 >= 4}, "queries")


def everything(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(run: Run, *arguments: object) -> str:
    """Run something that must fail as a user's mistake does; gives the line."""
    before = everything(Path.cwd())
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("quickstudy: "), (code, out, err)
    assert everything(Path.cwd()) == before
    return err


def test_adapt_then_predict(run: Run, shapes: Path, queries: Path) -> None:
    code, out, err = run("adapt", shapes, "--task", "shapes", "--model", "model")
    assert (code, err) == (0, "")
    assert "Learned 'shapes'" in out and "3 classes, 4 examples each → adapted/shapes.safetensors" in out
    assert [path.name for path in Path("adapted").iterdir()] == ["shapes.safetensors"]
    (queries / "class 2/of class 0.png").write_bytes((queries / "class 0/5.png").read_bytes())  # a wrong label
    code, out, err = run("predict", queries, "--task", "shapes", "--model", "model", "--json", "out/answers.json")
    assert (code, err) == (0, "") and "Accuracy " in out and "… and 5 more" in out
    result = json.loads(Path("out/answers.json").read_text())
    hits = [one["example"].startswith(one["answer"]) for one in result["predictions"]]
    assert len(hits) == 25 and result["score"] == pytest.approx(sum(hits) / 25) and 15 < sum(hits) < 25
    assert (result["kind"], result["metric"], result["accuracy"]) == ("classify", "accuracy", result["score"])
    assert (result["way"], result["shot"], result["episodes"], result["model"]) == (3, 4, 1, "model")
    assert (
        result["ci95"] > 0
        and result["adapt_ms"] > 0
        and result["model_sha256"] == weights_digest(Path("model"), "classify")
    )
    assert all(1 / 3 <= one["probability"] <= 1 for one in result["predictions"])


def test_shots_are_drawn_by_the_seed(run: Run, shapes: Path) -> None:
    states = []
    for seed in (0, 0, 1):
        assert run("adapt", shapes, "--task", "t", "--shots", 2, "--seed", seed, "--model", "model")[0] == 0
        states.append(TaskState.read(Path("adapted/t.safetensors")).learned)
    first, again, other = [{name: tensor.tolist() for name, tensor in state.items()} for state in states]
    assert first == again != other


def test_one_file_has_an_answer_and_no_accuracy(run: Run, shapes: Path, queries: Path) -> None:
    run("adapt", shapes, "-t", "shapes", "--model", "model")
    code, out, _ = run("predict", queries / "class 1/7.png", "-t", "shapes", "--model", "model", "--json", "a.json")
    result = json.loads(Path("a.json").read_text())
    assert code == 0 and "Accuracy" not in out and result["score"] is None and len(result["predictions"]) == 1


def test_a_parquet_file_is_answered_row_by_row(run: Run, toys) -> None:
    write_dataset(Path("data"), *_parts(toys("image", classes=3, each=12)))
    table, out = Path("data/toys/examples.parquet"), Path("out/answers.parquet")
    run("adapt", table, "-t", "shapes", "--model", "model", "--shots", 4)
    code, said, err = run("predict", table, "-t", "shapes", "--model", "model", "--out", out, "--json", "a.json")
    assert (code, err) == (0, "") and "36 rows" in said and f"→ {out}" in said
    answers = pq.read_table(out).to_pydict()
    assert list(answers) == ["label", "group", "answer", "probability", "known"]
    hits = sum(a == b for a, b in zip(answers["answer"], answers["label"], strict=True))
    assert json.loads(Path("a.json").read_text())["score"] == pytest.approx(hits / 36) and hits > 20
    run("predict", table, "-t", "shapes", "--model", "model", "--json", "b.json")
    one_by_one = json.loads(Path("b.json").read_text())["predictions"]
    assert [one["answer"] for one in one_by_one] == answers["answer"]
    assert [one["known"] for one in one_by_one] == answers["known"]
    run("predict", table, "-t", "shapes", "--model", "model", "--out", out, "--keep", "label")
    assert pq.read_schema(out).names == ["label", "answer", "probability", "known"]
    for options, line in (
        (("--keep", "label"), "--keep is about the columns of --out FILE"),
        (("--out", "o.csv"), "o.csv: answers are written as Parquet"),
        (("--out", "o.parquet", "--content", "picture"), "no column 'picture'"),
        (("--out", "o.parquet", "--pattern", "{class}"), "--pattern is about the names of files"),
    ):
        assert line in refused(run, "predict", table, "-t", "shapes", "--model", "model", *options)


def test_what_adapt_wrote_grows_in_python(run: Run, shapes: Path) -> None:
    run("adapt", shapes, "-t", "shapes", "--model", "model")
    task = Quickstudy.load("model").open("adapted/shapes.safetensors")
    assert len(task) == 12 and task.classes == ("class 0", "class 1", "class 2")
    assert task.examples[0].name == "class 0/0.png"
    task.add(shapes / "class 0/1.png", "another")
    task.save("adapted/more.safetensors")
    code, out, _ = run("predict", shapes / "class 0/1.png", "-t", "more", "--model", "model")
    assert code == 0 and "another" in out


def test_mistakes_of_adapt(run: Run, shapes: Path, write, wav) -> None:
    def adapt(source, *more) -> str:
        return refused(run, "adapt", source, "--model", "model", *(more or ("--task", "t")))

    assert "cannot be the name" in adapt(shapes, "--task", "../t")
    assert "class 'class 0' has 4 examples, --shots asks for 5. Ask for fewer" in adapt(
        shapes, "--task", "t", "--shots", 5
    )
    assert "nowhere" in adapt("nowhere")
    assert "one class" in adapt(write({"a/1.png": (shapes / "class 0/1.png").read_bytes()}, "single"))
    text = write({f"{c}/{i}.png": "this is no picture" for c in "ab" for i in range(2)}, "texts")
    assert "1.png" in adapt(text) or "0.png" in adapt(text)
    sounds = write({f"{c}/{i}.wav": wav(i) for c in "ab" for i in range(2)}, "sounds")
    assert "the model has learned image, not audio" in adapt(sounds)
    code, _, err = run("adapt", shapes, "--task", "t", "--shots", 0)
    assert code == 2 and "--shots" in err


def test_mistakes_with_models(run: Run, shapes: Path, workspace: Path) -> None:
    def adapt(model: str) -> str:
        return refused(run, "adapt", shapes, "--task", "t", "--model", model)

    assert "nowhere: is no model folder" in adapt("nowhere")
    weights = workspace / "model/classify/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    assert "the model is damaged" in adapt("model")
    weights.write_bytes(whole)
    (workspace / "model/classify/config.yaml").unlink()
    assert "model/classify/config.yaml: no model there" in adapt("model")


def test_mistakes_of_predict(run: Run, shapes: Path, queries: Path, tiny: Settings, workspace: Path) -> None:
    def predict(source, task: str = "shapes", model: str = "model") -> str:
        return refused(run, "predict", source, "--task", task, "--model", model)

    assert "no task 'shapes'. There are: none yet" in predict(queries)
    run("adapt", shapes, "--task", "shapes", "--model", "model")
    assert "no task 'other'. There are: shapes" in predict(queries, "other")
    assert "nowhere" in predict("nowhere")
    torch.manual_seed(1)
    save_model(MetaModel(tiny.inputs, tiny.model, {"image"}), workspace / "newer", {})
    assert "task 'shapes' was adapted by another model than newer" in predict(queries, model="newer")
    state = Path("adapted/shapes.safetensors")
    state.write_bytes(state.read_bytes()[:-5])
    assert "adapted/shapes.safetensors: is not a task that was adapted" in predict(queries)


def test_evaluate_on_any_folder(run: Run, queries: Path) -> None:
    asked = ("evaluate", queries, "--model", "model", "--way", 3, "--shot", 1, "--query", 3, "--episodes", 40)
    code, out, err = run(*asked, "--seed", 4, "--json", "one.json")
    assert (code, err) == (0, "") and "queries: 3-way 1-shot accuracy 0." in out and "(95% over 40 episodes)" in out
    one = json.loads(Path("one.json").read_text())
    assert {"accuracy", "ci95", "way", "shot", "episodes", "model", "adapt_ms"} <= set(one)
    assert (one["way"], one["shot"], one["episodes"], one["model"], one["seed"]) == (3, 1, 40, "model", 4)
    assert 0.5 < one["accuracy"] <= 1 and one["ci95"] > 0 and one["adapt_ms"] > 0
    accuracies = []
    for seed in (4, 5):
        run(*asked, "--seed", seed, "--json", "again.json")
        accuracies.append(json.loads(Path("again.json").read_text())["accuracy"])
    assert accuracies[0] == one["accuracy"] != accuracies[1]


def test_evaluate_on_a_dataset_uses_its_meta_test_alone(run: Run, toys, monkeypatch) -> None:
    pins = {"group 0": "test", "group 1": "train", "group 2": "validation"}
    write_dataset(Path("data"), *_parts(toys("image", classes=9, each=6, meta_split=pins)))
    judged: list = []
    import quickstudy.evaluation.answers as evaluation

    real = evaluation.evaluate

    def spy(model, subjects, frozen, *rest):
        judged.extend(frozen)
        return real(model, subjects, frozen, *rest)

    monkeypatch.setattr(evaluation, "evaluate", spy)
    code, out, _ = run("evaluate", "toys", "--model", "model", "--way", 3, "--shot", 1, "--query", 2, "--episodes", 20)
    assert code == 0 and "toys: 3-way 1-shot" in out
    rows = torch.cat([judged[0].episodes.support.flatten(), judged[0].episodes.query.flatten()])
    groups = toys("image", classes=9, each=6).column("group")
    assert {groups[i] for i in rows} == {"group 0"}


def _parts(dataset) -> tuple:
    return dataset.info, dataset.table


def test_mistakes_of_evaluate(run: Run, shapes: Path, toys, write, wav) -> None:
    def evaluate(source, *more) -> str:
        return refused(run, "evaluate", source, "--model", "model", *more)

    assert "only 3 classes have 4 examples (--shot + --query), --way asks for 5" in evaluate(
        shapes, "--shot", 2, "--query", 2
    )
    assert "only 0 classes have 10 examples" in evaluate(shapes, "--way", 3)
    assert "nowhere" in evaluate("nowhere")
    assert "is no model folder" in refused(
        run, "evaluate", shapes, "--way", 2, "--shot", 1, "--query", 1, "--model", "missing"
    )
    sounds = write({f"{c}/{i}.wav": wav(i) for c in "ab" for i in range(2)}, "sounds")
    assert "the model has not learned audio" in evaluate(sounds, "--way", 2, "--shot", 1, "--query", 1)
    for option, value in (("--way", 1), ("--shot", 0), ("--query", 0), ("--episodes", 1), ("--seed", -1)):
        code, _, err = run("evaluate", shapes, option, value)
        assert code == 2 and option in err
    write_dataset(Path("data"), *_parts(toys("image", meta_split="train")))
    assert "none of its groups is meta-test" in evaluate("toys")
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("warmup", "warmpu"))
    assert "unknown parameter 'train.warmpu'" in evaluate("toys") or "missing" in evaluate("toys")


def test_scope_of_a_group_too_small_for_the_way(run: Run, toys) -> None:
    pins = {"group 0": "test", "group 1": "test", "group 2": "train"}
    dataset = toys("image", classes=6, each=6, meta_split=pins, episode_scope="group", group="script")
    write_dataset(Path("data"), *_parts(dataset))
    code, out, err = run("evaluate", "toys", "--model", "model", "--way", 3, "--shot", 1, "--query", 1, "--episodes", 9)
    assert code == 0, err  # each group has two classes: the way is what there is
    assert "toys/group 0: 2-way" in out and "toys/group 1: 2-way" in out
    line = refused(run, "evaluate", "toys", "--model", "model", "--way", 2, "--shot", 5, "--query", 5)
    assert "toys: no script has enough classes of 10 examples (--shot + --query)" in line


def test_a_stage_without_what_it_reads_is_one_line(run: Run, tiny: Settings) -> None:
    assert "data: no datasets. `quickstudy data build`" in refused(run, "tasks")
    assert "build/tasks/classify/data.json: not found. `quickstudy tasks` writes it" in refused(run, "meta_train")
    Path("build").mkdir()
    shutil.move("model", "build/model")
    assert "build/tasks/classify/episodes.parquet: not found. `quickstudy tasks` writes it" in refused(run, "evaluate")
    shutil.rmtree("build")
    assert "no model there" in refused(run, "evaluate")


def test_data_that_leaves_nothing_to_do_is_one_line(run: Run, toys) -> None:
    write_dataset(Path("data"), *_parts(toys("image", classes=4, each=8, meta_split="test")))
    assert run("tasks")[0] == 0
    assert "no dataset has a group on the meta-train side" in refused(run, "meta_train")
    write_dataset(Path("data"), *_parts(toys("image", classes=4, each=8, meta_split="train")))
    before = sorted(Path().rglob("*.parquet"))
    code, _, err = run("tasks")
    assert code == 2 and "meta-test" in err and sorted(Path().rglob("*.parquet")) == before


def test_a_model_that_learned_nothing_of_what_is_tested_is_one_line(run: Run, toys, tiny: Settings) -> None:
    write_dataset(Path("data"), *_parts(toys("image", classes=4, each=8, meta_split="test")))
    assert run("tasks")[0] == 0
    save_model(MetaModel(tiny.inputs, tiny.model, {"audio"}), Path("build/model"), {})
    assert "no episodes of what the model has learned (audio)" in refused(run, "evaluate")
    Path("build/tasks/classify/episodes.parquet").write_bytes(b"PAR1")
    assert "episodes.parquet: is damaged" in refused(run, "evaluate")


def test_a_kind_without_a_dataset_has_stages_that_say_so(run: Run, toys, tiny_params) -> None:
    write_dataset(Path("data"), *_parts(toys("image", classes=4, each=8, meta_split="test")))
    Path("params.yaml").write_text(yaml.safe_dump(tiny_params | {"kinds": {"classify": {}, "tag": {}}}))
    former = [Path("build", *parts) for parts in (("tasks", "tasks.json"), ("model", "x"), ("evaluate", "table.csv"))]
    for path in former:  # of before there were kinds
        path.parent.mkdir(parents=True)
        path.write_text("former")
    for stage, said in (
        ("tasks", "tag: 0 datasets, 0 frozen episodes"),
        ("meta_train", "tag: nothing to learn, there is no dataset of kind tag"),
        ("evaluate", "tag: nothing to judge"),
    ):
        code, out, err = run(stage, "--kind", "tag")
        assert (code, err) == (0, "") and said in out
    assert not [path for path in former if path.exists()]
    shutil.copy(REPOSITORY / "dvc.yaml", "dvc.yaml")
    promised = [out for stage in stages(Path()) if stage.name.endswith("@tag") for out in stage.outs]
    assert len(promised) > 6 and all(Path(out).exists() for out in promised)
    code, out, err = run("evaluate", "toys", "--kind", "tag", "--model", "model")
    assert (code, out) == (2, "") and "data/toys: is of kind classify, not tag" in err
