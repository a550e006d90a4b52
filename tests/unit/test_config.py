"""params.yaml: what is wrong with it is said in one line that names the parameter."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from quickstudy.config import Settings, load_settings
from quickstudy.errors import QuickstudyError

REPOSITORY = Path(__file__).parents[2]


def test_the_repositorys_own_settings() -> None:
    text = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    settings = load_settings(REPOSITORY / "params.yaml")
    assert settings.model_dump(mode="json") == yaml.safe_load(text)  # all of it is read, and nothing is added
    assert settings.episodes.way_of("omniglot") == 20 and settings.episodes.way_of("anything else") == 5
    with pytest.raises(ValidationError):
        settings.train.steps = 3  # type: ignore[misc]


MISTAKES: list[tuple[str, Any, str]] = [
    ("train.stepz", 3, "unknown parameter 'train.stepz'. Known here: steps, learning_rate, warmup"),
    ("surprise", {"a": 1}, "unknown parameter 'surprise'. Known here: seed, splits"),
    ("train.tasks.video", 1, "unknown parameter 'train.tasks.video'. Known here: image, audio, text"),
    ("train.steps", 0, "train.steps = 0: input should be greater than or equal to 1"),
    ("train.steps", "many", "train.steps = 'many': input should be a valid integer"),
    ("train.steps", 2.5, "train.steps = 2.5"),
    ("train.learning_rate", -0.1, "train.learning_rate = -0.1"),
    ("train.learning_rate", float("nan"), "train.learning_rate = nan"),
    ("train.warmup", 1.0, "train.warmup = 1.0"),
    ("train.shots", [], "train.shots = []"),
    ("episodes.shots", [1, 0], "episodes.shots.1 = 0"),
    ("episodes.count", 1, "episodes.count = 1"),
    ("episodes.ways", {"digits": 1}, "episodes.ways.digits = 1"),
    ("splits.test", 0, "splits.test = 0"),
    ("splits.test", 0.95, "splits.test = 0.95: with splits.validation it leaves no groups to train on"),
    ("inputs.image.channels", 2, "inputs.image.channels = 2"),
    ("inputs.image.size", 8, "inputs.image.size = 8"),
    ("inputs.audio.seconds", 0.01, "inputs.audio.seconds = 0.01"),
    ("inputs.text.encoder", "my-own", "inputs.text.encoder = 'my-own'"),
    ("model.learner", "nearest", "model.learner = 'nearest': input should be 'protonet'"),
    ("model.heads", 5, "model.heads = 5: does not divide model.dimension = 384"),
    ("seed", -1, "seed = -1"),
    ("seed", 2**70, f"seed = {2**70}"),
    ("train", None, "train = None"),
    ("train.steps", ..., "parameter 'train.steps' is missing. Add it"),
    ("splits", ..., "parameter 'splits' is missing. Add it"),
    ("gate", ..., "parameter 'gate' is missing. Add it"),
    ("gate.score", "better", "gate.score = 'better': input should be 'superior' or 'non-inferior'"),
    ("gate.latency", 0.5, "gate.latency = 0.5"),
    ("gate.dataset_margins", {"words": 2}, "gate.dataset_margins.words = 2"),
]


@pytest.mark.parametrize(("name", "value", "said"), MISTAKES)
def test_a_mistake_is_one_line(tmp_path: Path, name: str, value: Any, said: str) -> None:
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    *sections, last = name.split(".")
    section = params
    for part in sections:
        section = section[part]
    if value is ...:
        del section[last]
    else:
        section[last] = value
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    with pytest.raises(QuickstudyError) as caught:
        load_settings(path)
    assert said in str(caught.value) and str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- 1", b"text", b"a: [1", b"\xff\xfe\x00", b"1: 2", b"null: 1"])
def test_a_file_that_is_no_settings_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(QuickstudyError) as caught:
        load_settings(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value) and str(tmp_path / "params.yaml") in str(caught.value)


def test_no_file_says_where_to_be(tmp_path: Path) -> None:
    with pytest.raises(QuickstudyError, match=r"not found\. Run the command in the project's folder"):
        load_settings(tmp_path / "params.yaml")


def test_settings_that_work_at_their_bounds(tiny_params: dict[str, Any]) -> None:
    params = copy.deepcopy(tiny_params)
    params["model"] |= {"dimension": 8, "heads": 8, "inner_steps": 0}
    params["inputs"]["audio"]["seconds"] = 0.2
    assert Settings.model_validate(params).model.heads == 8
