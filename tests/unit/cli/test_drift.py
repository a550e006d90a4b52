"""`quickstudy drift`, by its command line, with a model in a folder that remembers what it learned from."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from quickstudy.config import Settings
from quickstudy.data.dataset import Dataset, make_table, write_dataset
from quickstudy.drift.reference import FILE, write_reference
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model, weights_digest
from quickstudy.pipeline.inputs import read_datasets
from quickstudy.pipeline.meta_train import remembered
from quickstudy.training import Source

Run = Callable[..., tuple[int, str, str]]
EACH = 6


def pictures(classes: range, examples: range, change: Callable[[np.ndarray], np.ndarray] = lambda x: x) -> list[bytes]:
    """Of each class so many; the same numbers are the same picture."""
    found = []
    for c in classes:
        pattern = np.random.default_rng(c).integers(0, 2, (4, 4)).repeat(5, 0).repeat(5, 1)
        for i in examples:
            noise = np.random.default_rng((c, i)).normal(0, 25, pattern.shape)
            buffer = io.BytesIO()
            pixels = change(pattern * 160 + 40 + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(buffer, "PNG")
            found.append(buffer.getvalue())
    return found


def faint(pixels: np.ndarray) -> np.ndarray:
    """What another camera sees: one corner, dim."""
    dim = pixels * 0.1
    dim[:6, :6] = 255
    return dim


def folder_of(write, classes: range, examples: range, name: str = "later", change=lambda x: x) -> Path:
    files = iter(pictures(classes, examples, change))
    return write({f"class {c:02}/{i}.png": next(files) for c in classes for i in examples}, name)


def dataset_of(toys, classes: range, examples: range, **info) -> Dataset:
    about = toys("image", **info).info
    labels = [f"class {c:02}" for c in classes for _ in examples]
    return Dataset(about, make_table("image", pictures(classes, examples), labels, labels))


@pytest.fixture
def run(run: Run, workspace: Path, tiny_params, toys) -> Run:
    """In a project with data and an untrained model of images in the folder ``model``, which learned from `toys`."""
    (workspace / "dvc.yaml").write_text("stages: {}\n")
    params = tiny_params | {"drift": tiny_params["drift"] | {"permutations": 199, "examples": 200}}
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    settings = Settings.model_validate(params)
    dataset = dataset_of(toys, range(30), range(EACH), meta_split="train")
    write_dataset(Path("data"), dataset.info, dataset.table)
    torch.manual_seed(0)
    model = MetaModel(settings.inputs, settings.model, {"image"}).eval()
    save_model(model, workspace / "model", {})
    arrays = model.encoder("image").prepare(dataset.raw())
    everything = np.ones(len(dataset), dtype=bool)  # its meta_split is train
    learned = [Source.of(dataset, everything, arrays)]
    write_reference(workspace / "model/classify", remembered(model, read_datasets("classify"), learned, 200))
    return run


def drift(run: Run, *arguments: object) -> dict:
    """What the verb writes as JSON; its exit code must say the same."""
    code, _, err = run("drift", *arguments, "--model", "model", "--json", "drift.json")
    result = json.loads(Path("drift.json").read_text())
    assert (code, err) == (3 if result["drift"] else 0, "") and result["drift"] in (True, False)
    return result


def refused(run: Run, *arguments: object) -> str:
    before = {str(path): path.read_bytes() if path.is_file() else None for path in Path.cwd().rglob("*")}
    code, out, err = run("drift", *arguments, "--model", "model")
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("quickstudy: "), (code, out, err)
    assert {str(path): path.read_bytes() if path.is_file() else None for path in Path.cwd().rglob("*")} == before
    return err


def test_new_classes_of_the_same_kind_are_no_drift(run: Run, write) -> None:
    result = drift(run, folder_of(write, range(100, 112), range(4)))
    (one,) = result["datasets"]
    assert (one["dataset"], one["nearest"], one["new"], one["compared"]) == ("later", "toys", 48, 48)
    assert one["p"] > 0.05 and one["auc"] < 0.75
    (against,) = one["against"]
    assert [test["kind"] for test in against["tests"]] == ["class"] and against["tests"][0]["shared"] == 0
    assert (
        result["model_sha256"] == weights_digest(Path("model"), "classify") and result["policy"]["significance"] == 0.05
    )


def test_more_of_the_same_classes_are_no_drift(run: Run, write) -> None:
    later = folder_of(write, range(12), range(EACH, EACH + 4))
    (one,) = drift(run, later, "--name", "toys")["datasets"]
    assert not one["drift"] and one["against"][0]["tests"][0]["shared"] == 12
    (stranger,) = drift(run, later)["datasets"]  # classes of the same name that somebody else's are
    assert stranger["against"][0]["tests"][0]["shared"] == 0


def test_another_camera_is_drift(run: Run, write) -> None:
    later = folder_of(write, range(12), range(EACH, EACH + 4), change=faint)
    for more in ((), ("--name", "toys")):
        (one,) = drift(run, later, *more)["datasets"]
        assert one["drift"] and one["p"] <= 0.05 and one["auc"] > 0.9
    code, out, _ = run("drift", later, "--model", "model")
    assert code == 3 and "later: drift. Told from toys with AUC" in out and "Farthest from what was learned" in out


def test_a_large_difference_that_may_be_chance_is_not_decided(run: Run, write) -> None:
    later = folder_of(write, range(12), range(EACH, EACH + 4), change=faint)
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["drift"]["significance"] = 0.004  # 1 / 200 is the least that 199 permutations can say
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, out, _ = run("drift", later, "--model", "model")
    assert code == 0 and "later: not decided. Told from toys with AUC" in out and "over 12 classes that may be" in out


def test_the_most_unusual_examples_are_named(run: Run, write) -> None:
    later = folder_of(write, range(100, 112), range(4))
    (odd,) = pictures(range(1), range(1), lambda pixels: np.arange(400).reshape(20, 20) * 0.63)  # a shade
    (later / "class 105/odd.png").write_bytes(odd)
    result = drift(run, later)
    first = result["datasets"][0]["unusual"][0]
    assert first["example"] == "class 105/odd.png" and first["novelty"] > 1
    assert not result["drift"]  # one strange example is none
    assert "class 105/odd.png" in run("drift", later, "--model", "model")[1]


def test_data_of_the_project_is_compared_from_what_came_after_the_training(run: Run, toys) -> None:
    code, out, _ = run("drift", "--model", "model")
    assert code == 0 and "toys: no new examples since the model was trained" in out
    assert drift(run)["left_out"] == {"toys": "no new examples since the model was trained"}
    code, out, _ = run("drift", "toys", "--model", "model")
    assert code == 0 and "toys: no new examples since the model was trained; --all" in out
    grown = dataset_of(toys, range(30), range(EACH + 2), meta_split="train")
    write_dataset(Path("data"), grown.info, grown.table)
    for source in ((), ("toys",)):
        (one,) = drift(run, *source)["datasets"]
        assert (one["dataset"], one["new"], one["drift"]) == ("toys", 60, False)
        assert one["against"][0]["tests"][0]["shared"] == 30
        assert one["unusual"][0]["example"].startswith("row ")


def test_several_datasets_err_together_as_one(run: Run, toys) -> None:
    for number in range(2):
        classes = range(100 + 20 * number, 115 + 20 * number)
        more = dataset_of(toys, classes, range(4), name=f"more-{number}", meta_split="test")
        write_dataset(Path("data"), more.info, more.table)
    found = drift(run)["datasets"]
    assert [one["dataset"] for one in found] == ["more-0", "more-1"]
    raw = sorted(one["against"][0]["p"] for one in found)
    assert sorted(one["p"] for one in found)[0] == pytest.approx(min(1, 2 * raw[0]))
    alone = drift(run, "more-0")["datasets"]
    assert alone[0]["p"] == alone[0]["against"][0]["p"]


def test_examples_without_labels_count_one_by_one(run: Run, write) -> None:
    files = pictures(range(100, 124), range(1))
    later = write({f"{i}.png": data for i, data in enumerate(files)}, "unsorted")
    result = drift(run, later, "--unlabelled", "--modality", "image")
    (one,) = result["datasets"]
    assert one["against"][0]["tests"][0]["kind"] == "example" and one["unusual"][0]["example"].endswith(".png")
    assert any("nothing is known of class" in note for note in one["notes"])


def test_the_same_question_has_the_same_answer(run: Run, write) -> None:
    later = folder_of(write, range(100, 112), range(4))
    first, again = drift(run, later), drift(run, later)
    assert first == again
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(params | {"seed": 1}))
    other = drift(run, later)
    assert other["seed"] == 1 and other["datasets"][0]["against"] != first["datasets"][0]["against"]


def test_thresholds_are_those_of_params(run: Run, write) -> None:
    later = folder_of(write, range(12), range(EACH, EACH + 4), change=faint)
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["drift"] |= {"auc": 1.0, "examples": 30}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    result = drift(run, later)
    assert result["datasets"][0]["compared"] == 30 and result["datasets"][0]["p"] <= 0.05
    assert 0.75 < result["datasets"][0]["auc"] < 1 and not result["drift"]
    params["drift"]["significance"] = 0.001  # 199 permutations cannot say so much
    params["drift"]["auc"] = 0.5
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert not drift(run, later)["drift"]


def test_mistakes(run: Run, write, wav, toys, tiny: Settings) -> None:
    later = folder_of(write, range(100, 106), range(4))
    assert "nowhere: no such dataset in data/ and no such file" in refused(run, "nowhere")
    assert "the model learned from no dataset 'glyphs'. It learned from toys" in refused(run, later, "--name", "glyphs")
    sounds = write({f"{c}/{i}.wav": wav(i) for c in "ab" for i in range(12)}, "sounds")
    assert "sounds: the model has learned image, not audio" in refused(run, sounds)
    assert "holds audio, and toys is image" in refused(run, sounds, "--name", "toys")
    few = folder_of(write, range(100, 104), range(4), "few")
    assert "few: 16 new examples, at least 20 are needed (drift.fewest)" in refused(run, few)
    (Path("empty")).mkdir()
    assert "empty" in refused(run, "empty")
    assert "of the one class" in refused(run, folder_of(write, range(3, 4), range(30), "single"))
    weights = Path("model/classify") / FILE
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    assert f"model: {FILE} is damaged" in refused(run, later)
    weights.unlink()
    assert "model: the model keeps no sample of what it learned from" in refused(run, later)
    weights.write_bytes(whole)
    grown = dataset_of(toys, range(30), range(EACH), meta_split="train")
    more = pictures(range(1), range(90, 93))
    labels = [*grown.column("label"), *["class 00"] * 3]
    write_dataset(Path("data"), grown.info, make_table("image", [*grown.raw(), *more], labels, labels))
    assert "toys: 3 new examples, at least 20 are needed" in refused(run, "toys")
    code, out, _ = run("drift", "--model", "model")
    assert code == 0 and "toys: 3 new examples, at least 20 are needed" in out
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("permutations:", "permutatoins:"))
    assert "unknown parameter 'drift.permutatoins'" in refused(run, later) or "missing" in refused(run, later)


def test_a_model_that_makes_no_vectors_is_one_line(run: Run, write, tiny: Settings) -> None:
    from quickstudy.drift.reference import read_reference
    from quickstudy.model.store import load_model

    later = folder_of(write, range(100, 106), range(4))
    known = list(read_reference(Path("model/classify")).values())
    model = load_model(Path("model"), "classify")
    with torch.no_grad():
        next(model.encoder("image").parameters()).fill_(float("nan"))
    save_model(model, Path("model"), {})
    write_reference(Path("model/classify"), known)
    assert "later, class 100/0.png: the model model makes no finite vector of it" in refused(run, later)


def test_a_training_leaves_what_drift_needs(run: Run, toys) -> None:
    dataset = dataset_of(toys, range(60), range(EACH), group="class")  # which sides its classes are on says the hash
    write_dataset(Path("data"), dataset.info, dataset.table)
    for stage in ("tasks", "meta_train"):
        code, _, err = run(stage)
        assert code == 0, err
    code, out, _ = run("drift", "--model", "build/model")
    assert code == 0 and "toys: no new examples since the model was trained" in out
    code, _, _ = run("drift", "toys", "--all", "--model", "build/model", "--json", "drift.json")
    (one,) = json.loads(Path("drift.json").read_text())["datasets"]
    trained = json.loads(Path("build/model/classify/lineage.json").read_text())["trained_on"]["toys"]
    (test,) = one["against"][0]["tests"]
    assert one["new"] == EACH * (60 - len(trained)) and one["compared"] == min(one["new"], 200)
    assert test["units"] == 60 - len(trained) and test["shared"] == 0  # none that it learned from is called new
