"""A saved model: what comes back is what went in, and what is damaged is told in one line."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, part_digest, part_of, parts_of, save_model, weights_digest


@pytest.fixture
def model(tiny: Settings) -> MetaModel:
    torch.manual_seed(3)
    made = MetaModel(tiny.inputs, tiny.model, {"image", "audio"})
    made.encode("image", torch.randint(0, 256, (9, 1, 16, 16), dtype=torch.uint8))  # running averages of their own
    return made


@pytest.fixture
def folder(model: MetaModel, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "model", {"trained_on": {"glyphs": ["ελληνικά"]}, "seed": 0})
    return tmp_path / "model"


@pytest.fixture
def part(folder: Path) -> Path:
    return folder / "classify"


def test_round_trip(model: MetaModel, folder: Path, part: Path) -> None:
    torch.manual_seed(4)  # what is loaded owes nothing to the random weights it begins with
    loaded = load_model(folder, "classify")
    assert loaded.kind == "classify"
    assert loaded.modalities == ("audio", "image") and not loaded.training
    assert (loaded.inputs, loaded.shape) == (model.inputs, model.shape)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    images = torch.randint(0, 256, (5, 1, 16, 16), dtype=torch.uint8)
    assert torch.equal(model.eval().encode("image", images), loaded.encode("image", images))
    assert json.loads((part / "lineage.json").read_text(encoding="utf-8"))["trained_on"]["glyphs"] == ["ελληνικά"]


def test_the_bytes_are_the_same_each_time(model: MetaModel, folder: Path, part: Path, tmp_path: Path) -> None:
    lineage = json.loads((part / "lineage.json").read_text("utf-8"))
    save_model(load_model(folder, "classify"), tmp_path / "again", lineage)
    for path in sorted(part.iterdir()):
        assert path.read_bytes() == (tmp_path / "again/classify" / path.name).read_bytes()
    assert sorted(path.name for path in part.iterdir()) == ["config.yaml", "lineage.json", "model.safetensors"]
    digest = weights_digest(folder, "classify")
    with torch.no_grad():
        model.learner.alpha += 1e-6
    save_model(model, folder, {})
    assert weights_digest(folder, "classify") != digest


# Kinds


def test_each_kind_has_a_part_of_its_own(model: MetaModel, folder: Path, part: Path) -> None:
    ours = weights_digest(folder, "classify")
    save_model(MetaModel(model.inputs, model.shape, {"audio"}, "sort"), folder, {})
    assert parts_of(folder) == {"classify": part, "sort": folder / "sort"}
    one, other = load_model(folder, "classify"), load_model(folder, "sort")
    assert (one.kind, one.modalities) == ("classify", ("audio", "image"))
    assert (other.kind, other.modalities) == ("sort", ("audio",))
    assert weights_digest(folder, "classify") == ours != weights_digest(folder, "sort")


def test_a_part_that_is_not_there_is_told_with_those_that_are(folder: Path) -> None:
    said = r"the model has no part for regress \(it has classify\)\. Import a dataset of kind regress"
    for asked in (part_of, load_model, weights_digest):
        with pytest.raises(QuickstudyError, match=said) as caught:
            asked(folder, "regress")
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture
def former(folder: Path, part: Path) -> Path:
    """The same model as it was saved before there were kinds: the files in the folder itself, no kind in them."""
    config = yaml.safe_load((part / "config.yaml").read_text())
    assert config.pop("kind") == "classify"
    (part / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for path in part.iterdir():
        path.rename(folder / path.name)
    part.rmdir()
    return folder


def test_a_model_of_before_there_were_kinds_is_read_as_classify(model: MetaModel, former: Path) -> None:
    assert parts_of(former) == {"classify": former} and part_of(former, "classify") == former
    loaded = load_model(former, "classify")
    assert (loaded.kind, loaded.modalities) == ("classify", ("audio", "image"))
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)
    weights = (former / "model.safetensors").read_bytes()
    assert weights_digest(former, "classify") == hashlib.sha256(weights).hexdigest()
    with pytest.raises(QuickstudyError, match=r"no part for tag \(it has classify\)"):
        load_model(former, "tag")


def test_what_was_left_beside_a_part_is_not_taken_for_it(model: MetaModel, former: Path) -> None:
    """A model that was trained again in the place of one of before there were kinds."""
    newer = MetaModel(model.inputs, model.shape, {"image"})
    save_model(newer, former, {})
    assert parts_of(former) == {"classify": former / "classify"}
    assert load_model(former, "classify").modalities == ("image",)
    assert weights_digest(former, "classify") == part_digest(former / "classify") != part_digest(former)


def in_config(**changes) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "config.yaml"
        config = yaml.safe_load(path.read_text()) | changes
        path.write_text(yaml.safe_dump({name: value for name, value in config.items() if value is not None}))

    return damage


def in_model(**changes) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        in_config(model=config["model"] | changes)(folder)

    return damage


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-200])


def lacking(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("learner.alpha")
    save_file(weights, folder / "model.safetensors")


def become_a_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights cut short": (cut, "damaged"),
    "weights empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "damaged"),
    "weights are a pickle": (lambda f: torch.save({"a": torch.zeros(1)}, f / "model.safetensors"), "damaged"),
    "weights lack one": (lacking, "damaged"),
    "weights of another model": (lambda f: save_file({"x": torch.zeros(2)}, f / "model.safetensors"), "damaged"),
    "weights are a folder": (become_a_folder, "damaged"),
    "weights missing": (lambda f: (f / "model.safetensors").unlink(), "no model there"),
    "config missing": (lambda f: (f / "config.yaml").unlink(), "no model there"),
    "config empty": (lambda f: (f / "config.yaml").write_text(""), "damaged"),
    "config a list": (lambda f: (f / "config.yaml").write_text("- 1"), "damaged"),
    "config no YAML": (lambda f: (f / "config.yaml").write_text("a: [1"), "damaged"),
    "config no text": (lambda f: (f / "config.yaml").write_bytes(b"\xff\xfe\x00\x80"), "damaged"),
    "no format": (in_config(format=None), "damaged"),
    "format of tomorrow": (in_config(format=3), "format 3, this version reads 2"),
    "another modality": (in_config(modalities=["video"]), "damaged"),
    "one modality less": (in_config(modalities=["image"]), "damaged"),
    "another width": (in_model(width=8), "damaged"),
    "heads that do not divide": (in_model(heads=3), "damaged"),
    "another encoder": (in_model(encoders={"image": "resnet12", "audio": "cnn", "text": "minilm"}), "damaged"),
    "an encoder of tomorrow": (in_model(encoders={"image": "vit", "audio": "cnn", "text": "minilm"}), "damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line(folder: Path, part: Path, name: str) -> None:
    damage, said = DAMAGES[name]
    damage(part)
    with pytest.raises(QuickstudyError, match=said) as caught:
        load_model(folder, "classify")
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value) and "quickstudy run" in str(caught.value)


def test_there_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "file"):
        with pytest.raises(QuickstudyError):
            load_model(path, "classify")
