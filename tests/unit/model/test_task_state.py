"""Learn a task and answer by it, and the small file in between."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from quickstudy.adaptation.adapted import answers_of, learn
from quickstudy.adaptation.state import TaskState
from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from tests.toy.tasks import grouped


@pytest.fixture
def model(tiny: Settings) -> MetaModel:
    torch.manual_seed(0)
    made = MetaModel(tiny.inputs, tiny.model, {"image"}).eval()
    with torch.no_grad():
        made.learner.alpha.fill_(0.2)
        made.learner.step_alpha.fill_(0.5)
    return made


@pytest.fixture
def state(model: MetaModel, png) -> TaskState:
    return learn(model, "image", [png(i) for i in range(5)], ["ö", "a", "ö", "b", "a"], "digest")


def chances(model: MetaModel, state: TaskState, queries: list[bytes]) -> np.ndarray:
    """float64 [Q, N]"""
    return answers_of(model, state, queries).probabilities


def test_round_trip(state: TaskState, model: MetaModel, png, tmp_path: Path) -> None:
    (tmp_path / "task").write_bytes(state.to_bytes())
    back = TaskState.read(tmp_path / "task")
    assert torch.equal(back.learned["prototypes"], state.learned["prototypes"])
    for field in dataclasses.fields(TaskState):
        if field.name != "learned":
            assert getattr(back, field.name) == getattr(state, field.name)
    assert (back.kind, back.names, back.shots, back.model) == ("classify", ("a", "b", "ö"), (2, 1, 2), "digest")
    assert back.to_bytes() == state.to_bytes()
    queries = [png(i) for i in range(20, 24)]
    assert np.array_equal(chances(model, back, queries), chances(model, state, queries))


def test_the_examples_may_be_kept(model: MetaModel, state: TaskState, png, tmp_path: Path) -> None:
    examples, labels = [png(i) for i in range(5)], ["ö", "a", "ö", "b", "a"]
    kept = learn(model, "image", examples, labels, "digest", names=list("vwxyz"), false_alarm=0.1)
    assert state.support is None and torch.equal(kept.learned["prototypes"], state.learned["prototypes"])
    (tmp_path / "task").write_bytes(kept.to_bytes())
    back = TaskState.read(tmp_path / "task")
    assert back.learned.keys() == kept.learned.keys() and back.support is not None and kept.support is not None
    assert (back.support.targets, back.support.names, back.support.false_alarm) == (tuple(labels), tuple("vwxyz"), 0.1)
    assert torch.equal(back.support.vectors, kept.support.vectors) and len(back.support.vectors) == 5
    queries = [png(i) for i in range(20, 24)]
    assert np.array_equal(chances(model, back, queries), chances(model, state, queries))


def test_it_answers_as_the_model_does_on_a_whole_task(model: MetaModel, png) -> None:
    support, queries = [png(i) for i in range(6)], [png(i) for i in range(10, 16)]
    labels = ["x", "x", "y", "y", "z", "z"]
    order = [4, 0, 3, 1, 5, 2]  # learn takes the examples in any order
    state = learn(model, "image", [support[i] for i in order], [labels[i] for i in order], "")
    found = chances(model, state, queries)
    prepared = torch.from_numpy(model.encoder("image").prepare([*support, *queries]))
    with torch.no_grad():
        (logits,) = model([grouped("image", prepared[None, :6], prepared[None, 6:], 3)])
    assert found.shape == (6, 3) and np.allclose(found.sum(1), 1)
    assert np.abs(found - logits[0].double().softmax(-1).numpy()).max() < 1e-4


def test_adapting_and_asking_change_nothing(model: MetaModel, state: TaskState, png) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before = state.to_bytes()
    learn(model, "image", [png(8), png(9)], ["p", "q"], "")
    answers_of(model, state, [png(1)])
    assert state.to_bytes() == before
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    for field in dataclasses.fields(TaskState):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(state, field.name, None)
    with pytest.raises(RuntimeError, match=r"(?i)inplace"):
        state.learned["prototypes"].add_(1)


def test_twenty_classes_fit_into_64_kib(tiny: Settings, png) -> None:
    shape = tiny.model.model_copy(update={"dimension": 384, "heads": 4})  # that of the repository's params.yaml
    model = MetaModel(tiny.inputs, shape, {"image"}).eval()
    names = [f"a class with a rather long name, number {i % 20}" for i in range(200)]
    state = learn(model, "image", [png(i) for i in range(200)], names, "0" * 64)
    assert state.learned["prototypes"].shape == (1, 20, 384) and set(state.shots) == {10}
    assert len(state.to_bytes()) <= 64 * 1024


def test_an_answer_is_the_likeliest_class_and_says_what_it_lies_near(model: MetaModel, png) -> None:
    examples, labels, queries = [png(i) for i in range(12)], list("abc") * 4, [png(3), png(20), png(7)]
    plain, kept = (
        learn(model, "image", examples, labels, "", names=names, false_alarm=0.2)
        for names in (None, list("ABCDEFGHIJKL"))
    )
    found, rich = answers_of(model, plain, queries), answers_of(model, kept, queries)
    for answers in (found, rich):
        assert answers.names == ("a", "b", "c")
        assert answers.targets == [answers.names[n] for n in answers.probabilities.argmax(1)]
        assert answers.known.shape == (3,) and answers.known.dtype == bool
    # without its examples a task cannot say what is unknown, and knows no neighbours
    assert np.isnan(found.unknown).all() and found.known.all() and found.neighbours.shape == (3, 0)
    assert (rich.known == (rich.unknown <= rich.threshold)).all() and np.isfinite(rich.threshold)
    assert rich.neighbours[[0, 2], 0].tolist() == [3, 7] and rich.likeness[[0, 2], 0] == pytest.approx(1)


# Files of before there were kinds


def as_before(state: TaskState) -> bytes:
    """The bytes of a state as they were written then: classes and labels by those names, no kind, and the learner's
    tensors without their leading dimension."""
    meta = {
        "modality": state.modality,
        "classes": state.names,
        "shots": state.shots,
        "model": state.model,
        "adapt_ms": state.adapt_ms,
    }
    tensors = {name: tensor[0].contiguous() for name, tensor in sorted(state.learned.items())}
    if state.support is not None:
        kept = state.support
        meta["support"] = {"labels": kept.targets, "names": kept.names, "false_alarm": kept.false_alarm}
        tensors["support.vectors"] = kept.vectors.contiguous()
    return save(tensors, metadata={"task": json.dumps(meta)})


@pytest.mark.parametrize("names", [None, list("vwxyz")])
def test_a_file_of_before_there_were_kinds_is_still_read(model: MetaModel, png, tmp_path: Path, names) -> None:
    examples, labels = [png(i) for i in range(5)], ["ö", "a", "ö", "b", "a"]
    state = learn(model, "image", examples, labels, "digest", names=names, false_alarm=0.1)
    (tmp_path / "task").write_bytes(as_before(state))
    back = TaskState.read(tmp_path / "task")
    assert (back.kind, back.names, back.shots) == ("classify", ("a", "b", "ö"), (2, 1, 2))
    assert back.learned.keys() == state.learned.keys()
    assert all(torch.equal(tensor, state.learned[name]) for name, tensor in back.learned.items())
    assert (back.support is None) == (names is None)
    if back.support is not None:
        assert (back.support.targets, back.support.names, back.support.false_alarm) == (tuple(labels), (*names,), 0.1)
        assert torch.equal(back.support.vectors, state.support.vectors)
    assert back.to_bytes() == state.to_bytes()  # what is written of it is of today
    queries = [png(i) for i in range(20, 24)]
    assert np.array_equal(chances(model, back, queries), chances(model, state, queries))


@pytest.mark.parametrize(
    "content", ["empty", "garbage", "cut", "foreign", "no meta", "half meta", "no vectors", "folder", "missing"]
)
def test_what_is_no_task_is_one_line(state: TaskState, tmp_path: Path, content: str) -> None:
    path = tmp_path / "task.safetensors"
    prototypes = {"prototypes": torch.zeros(2, 3)}
    if content == "foreign":
        save_file({"x": torch.zeros(2)}, path, metadata={"task": "{}"})
    elif content == "no meta":
        save_file(prototypes, path)
    elif content == "half meta":
        save_file(prototypes, path, metadata={"task": '{"modality": "image"}'})
    elif content == "no vectors":
        kept = {"targets": ["a", "b"], "names": ["a", "b"], "false_alarm": 0.05}
        about = {
            "kind": "classify",
            "modality": "image",
            "names": ["a", "b"],
            "shots": [1, 1],
            "model": "",
            "adapt_ms": 1,
        }
        save_file(prototypes, path, metadata={"task": json.dumps(about | {"support": kept})})
    elif content == "folder":
        path.mkdir()
    elif content != "missing":
        path.write_bytes({"empty": b"", "garbage": b"hello" * 9, "cut": state.to_bytes()[:-9]}[content])
    with pytest.raises(QuickstudyError, match=r"task\.safetensors: is not a task that was adapted"):
        TaskState.read(path)


def test_mistakes(model: MetaModel, png) -> None:
    with pytest.raises(QuickstudyError, match="two classes or more"):
        learn(model, "image", [png(0), png(1)], ["a", "a"], "")
    with pytest.raises(QuickstudyError, match="has learned image, not audio"):
        learn(model, "audio", [b"", b""], ["a", "b"], "")
    with pytest.raises(QuickstudyError):
        learn(model, "image", [png(0), b"not a picture"], ["a", "b"], "")
