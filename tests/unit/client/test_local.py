"""A model loaded into this process: adapt, ask, grow, shrink, save."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy import Quickstudy
from quickstudy.adaptation.adapted import answers_of, learn
from quickstudy.client import Task
from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, save_model, weights_digest


@pytest.fixture
def pictures(toys) -> tuple[list[bytes], list[str]]:
    """4 pictures of each of 3 classes."""
    dataset = toys("image", classes=3, each=4)
    return dataset.raw(), dataset.column("label")


@pytest.fixture
def task(qs: Quickstudy, pictures) -> Task:
    return qs.adapt(*pictures)


def test_import_is_instant() -> None:
    code = "import sys, quickstudy; assert quickstudy.__version__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & {"torch", "mlflow", "sklearn", "numpy", "pyarrow", "httpx", "PIL", "pydantic"}


def test_it_answers_as_the_model_does(task: Task, pictures, model_folder: Path, toys) -> None:
    queries = [data for i, data in enumerate(toys("image", classes=3, each=9).raw()) if i % 9 >= 4]
    model = load_model(model_folder, "classify")
    expected = answers_of(model, learn(model, "image", *pictures, ""), queries).probabilities
    assert np.allclose(task.predict_proba(queries), expected, atol=1e-5)
    assert task.predict(queries).tolist() == [task.classes[i] for i in expected.argmax(1)]
    answer = task.answer(queries[0])
    assert answer.label == task.predict(queries[0]) and answer.probability == max(answer.probabilities.values())
    assert (
        answer.model == weights_digest(model_folder, "classify")
        and answer.probabilities[answer.label] == answer.probability
    )


def test_one_query_or_many(task: Task, pictures) -> None:
    examples, labels = pictures
    assert task.predict(examples[0]) == labels[0] and task.predict([examples[0]]).tolist() == [labels[0]]
    assert task.predict_proba(examples[0]).shape == (3,) and task.predict_proba(examples[:2]).shape == (2, 3)
    assert isinstance(task.answer(examples[:1]), list) and task.predict([]).shape == (0,)
    assert task.predict_proba([]).shape == (0, 3) and task.answer([]) == []


def test_the_nearest_example_of_an_example_is_itself(task: Task, pictures) -> None:
    for example, answer in zip(task.examples, task.answer(pictures[0]), strict=True):
        nearest = answer.nearest[0]
        assert nearest.example == example and nearest.likeness == pytest.approx(1, abs=1e-5)
        assert [one.likeness for one in answer.nearest] == sorted((n.likeness for n in answer.nearest), reverse=True)


def test_a_task_that_grew_is_the_one_that_was_taught_all_at_once(qs: Quickstudy, pictures, toys) -> None:
    examples, labels = pictures
    queries = toys("image", classes=3, each=6).raw()
    task = qs.adapt(examples[:8], labels[:8])
    assert task.classes == ("class 00", "class 01")
    ids = task.add(examples[8:], labels[8:])
    assert len(ids) == 4 and len(task) == 12 and task.classes[2] == "class 02"
    assert np.allclose(task.predict_proba(queries), qs.adapt(examples, labels).predict_proba(queries), atol=1e-5)
    task.remove(ids)
    assert np.allclose(
        task.predict_proba(queries), qs.adapt(examples[:8], labels[:8]).predict_proba(queries), atol=1e-5
    )
    assert task.add(examples[8], "class 02") != ids[:1]  # an id is never given twice
    task.remove(task.examples[0].id)
    assert [example.label for example in task.examples] == [*labels[1:8], "class 02"]


def test_what_fails_changes_nothing(task: Task, pictures) -> None:
    before, chances = task.examples, task.predict_proba(pictures[0])
    few = [example.id for example in task.examples if example.label != "class 00"]
    for wrong, line in (
        (lambda: task.add([pictures[0][0], b"no picture"], "x"), r"example 2 \(image 2\): not an image but text"),
        (lambda: task.add("a text", "x"), "no file a text"),
        (lambda: task.add(pictures[0][:2], ["x"]), "2 examples and 1 labels"),
        (lambda: task.remove(few), "two classes or more"),
        (lambda: task.remove(["1", "99"]), "the task has no example '99'"),
    ):
        with pytest.raises(QuickstudyError, match=line):
            wrong()
    assert task.examples == before and np.array_equal(task.predict_proba(pictures[0]), chances)


def test_save_and_open(qs: Quickstudy, task: Task, pictures, tmp_path: Path) -> None:
    task.remove("2")
    path = tmp_path / "tasks" / "shapes.safetensors"
    task.save(path)
    back = qs.open(path)
    assert back.classes == task.classes and [e.label for e in back.examples] == [e.label for e in task.examples]
    assert np.array_equal(back.predict_proba(pictures[0]), task.predict_proba(pictures[0]))
    assert back.answer(pictures[0][0]).threshold == task.answer(pictures[0][0]).threshold
    back.add(pictures[0][1], "class 00")
    assert len(back) == len(pictures[0])


def test_a_task_belongs_to_its_model(qs: Quickstudy, task: Task, tiny: Settings, tmp_path: Path) -> None:
    task.save(tmp_path / "t.safetensors")
    save_model(MetaModel(tiny.inputs, tiny.model, {"image"}), tmp_path / "other", {})
    with pytest.raises(QuickstudyError, match=r"t\.safetensors: was adapted by another model"):
        Quickstudy.load(tmp_path / "other").open(tmp_path / "t.safetensors")
    with pytest.raises(QuickstudyError, match="is not a task"):
        qs.open(tmp_path / "nothing")


def test_texts_and_sounds_by_the_same_words(qs: Quickstudy, wav) -> None:
    texts = qs.adapt(["Where is my parcel?", "When will it arrive?", "Money back!", "A refund"], list("ssrr"))
    assert texts.modality == "text" and texts.predict("I would like to have my money back") == "r"
    assert texts.answer("a refund please").nearest[0].example.name == "A refund"
    sounds = qs.adapt([wav(1), wav(2), wav(3)], ["x", "y", "z"])
    assert sounds.predict([wav(2), wav(3)]).tolist() == ["y", "z"]


def test_mistakes(qs: Quickstudy, pictures, tmp_path: Path, monkeypatch) -> None:
    for wrong, line in (
        (lambda: qs.adapt(["a", "b"], ["x", "x"]), "two classes or more"),
        (lambda: qs.adapt(["a", "b"], ["x"]), "2 examples and 1 labels"),
        (lambda: qs.adapt(*pictures, false_alarm=1.5), "false_alarm = 1.5"),
        (lambda: Quickstudy.load(tmp_path), "is no model folder"),
    ):
        with pytest.raises(QuickstudyError, match=line):
            wrong()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(QuickstudyError, match="no project around this folder"):
        Quickstudy.load()


def test_a_learner_that_changes_the_encoder_is_one_line(tiny: Settings, pictures, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = tiny.model.model_copy(update={"learner": "maml"})
    save_model(MetaModel(tiny.inputs, shape, {"image"}), tmp_path, {})
    with pytest.raises(QuickstudyError, match="learner maml changes the encoder"):
        Quickstudy.load(tmp_path).adapt(*pictures)
