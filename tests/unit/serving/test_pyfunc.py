"""The model as MLflow serves it, without MLflow."""

import base64
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from quickstudy.adaptation.adapted import answers_of, learn
from quickstudy.adaptation.pyfunc import EpisodeModel, _load_pyfunc, example
from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model
from quickstudy.system.digests import DIGESTS, file_digests


@pytest.fixture
def served(tiny: Settings, tmp_path: Path) -> EpisodeModel:
    torch.manual_seed(0)
    shape = tiny.model.model_copy(update={"dimension": 384})  # the sentence vectors as they are
    save_model(MetaModel(tiny.inputs, shape, {"text", "image", "audio"}), tmp_path, {})
    return _load_pyfunc(str(tmp_path))


def row(modality: str, examples: list, labels: list, queries: list) -> dict:
    support = [{"input": one, "label": label} for one, label in zip(examples, labels, strict=True)]
    return {"modality": modality, "support": support, "queries": queries}


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_the_example_gets_an_answer_to_each_question(served: EpisodeModel) -> None:
    (answer,) = served.predict(example()).to_dict("records")
    assert answer["classes"] == ["blog", "news"] and answer["labels"][0] == "news" and len(answer["labels"]) == 2
    chances = np.array(answer["distributions"])
    assert chances.shape == (2, 2) and np.allclose(chances.sum(1), 1)
    assert answer["probabilities"] == chances.max(1).tolist() and min(answer["probabilities"]) > 0.5


def test_files_travel_as_base64_and_each_row_is_a_task(served: EpisodeModel, png, wav) -> None:
    pictures, sounds = [png(i) for i in range(4)], [wav(i) for i in range(3)]
    frame = pd.DataFrame(
        [
            row("image", [coded(p) for p in pictures], ["b", "a", "b", 7], [coded(pictures[1]), coded(pictures[3])]),
            row("audio", [coded(s) for s in sounds], ["x", "y", "z"], [coded(sounds[2])]),
        ]
    )
    images, audio = served.predict(frame).to_dict("records")
    state = learn(served.model, "image", pictures, ["b", "a", "b", "7"], "")
    expected = answers_of(served.model, state, [pictures[1], pictures[3]]).probabilities
    assert images["classes"] == ["7", "a", "b"] and images["labels"] == ["a", "7"]
    assert np.allclose(images["distributions"], expected)
    assert audio["labels"] == ["z"] and len(audio["distributions"][0]) == 3


def test_arrays_do_as_well_as_lists(served: EpisodeModel, png) -> None:
    # MLflow hands over what pandas and pyarrow make of JSON.
    given = row("image", [coded(png(i)) for i in range(2)], ["a", "b"], [coded(png(0))])
    arrays = {**given, "support": np.array(given["support"], dtype=object), "queries": np.array(given["queries"])}
    assert served.predict(pd.DataFrame([arrays])).equals(served.predict(pd.DataFrame([given])))


@pytest.mark.parametrize("bad", ["not base64!", "aGk=!!", "abc", "ä", 5, None])
@pytest.mark.parametrize("where", ["support", "queries"])
def test_what_is_no_base64_is_one_line(served: EpisodeModel, png, bad, where: str) -> None:
    good = [coded(png(0)), coded(png(1))]
    support, queries = ([good[0], bad], good) if where == "support" else (good, [bad])
    wrong = row("image", support, ["a", "b"], queries)
    with pytest.raises(QuickstudyError, match=rf"row 2, {where}\.\d: is not base64"):
        served.predict(pd.DataFrame([row("image", good, ["a", "b"], good), wrong]))


def test_other_mistakes_are_one_line_too(served: EpisodeModel, png) -> None:
    good = [coded(png(0)), coded(png(1))]
    for wrong in (
        row("image", good, ["a", "a"], good),
        row("video", good, ["a", "b"], good),
        row("image", [coded(b"no picture"), good[0]], ["a", "b"], good),
    ):
        with pytest.raises(QuickstudyError):
            served.predict(pd.DataFrame([wrong]))


def test_a_file_that_was_changed_since_its_registration_is_not_loaded(served: EpisodeModel, tmp_path: Path) -> None:
    (tmp_path / DIGESTS).write_text(json.dumps(file_digests(tmp_path)))
    assert _load_pyfunc(str(tmp_path)).digest == served.digest
    weights = tmp_path / "classify/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    with pytest.raises(QuickstudyError, match=r"model.safetensors was changed since the model was registered"):
        _load_pyfunc(str(tmp_path))
