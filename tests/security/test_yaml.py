"""YAML and names in files that others have made: nothing leads out, and nothing multiplies."""

import time
from pathlib import Path

import pytest
import yaml

from quickstudy.data.dataset import DatasetInfo, make_table, read_dataset, write_dataset
from quickstudy.data.manifest import is_current, manifest
from quickstudy.data.plain_yaml import read_yaml
from quickstudy.encoders.features import features
from quickstudy.errors import QuickstudyError
from quickstudy.evaluation.contenders import contender
from quickstudy.model.store import WEIGHTS, load_model
from quickstudy.pipeline.inputs import open_datasets
from quickstudy.versions import stale

LAUGHS = "a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)
)
"""Nine lines for a billion values."""

BAD = {
    "aliases": LAUGHS,
    "one alias": "a: &x [1]\nb: *x\n",
    "depth": "[" * 100_000,
    "a long number": "name: " + "9" * 5_000,
    "no such day": "when: 2001-02-31",
    "code": "!!python/object/apply:os.system ['true']",
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's data with one dataset."""
    labels = [f"class {i % 3}" for i in range(30)]
    info = DatasetInfo(name="words", modality="text")
    write_dataset(tmp_path / "data", info, make_table("text", [f"text {i}" for i in range(30)], labels, labels))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def describe(data: Path, **values: object) -> None:
    path = data / "words/dataset.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_plain_yaml_is_one_line_and_takes_no_time(data: Path, what: str) -> None:
    (data / "words/dataset.yaml").write_text(BAD[what])
    began = time.monotonic()
    with pytest.raises(QuickstudyError) as refused:
        read_dataset(data / "words")
    assert "\n" not in str(refused.value) and "words" in str(refused.value)
    with pytest.raises(yaml.YAMLError):
        manifest(data, "classify")
    assert time.monotonic() - began < 30  # a billion values take hours, or all memory


def test_a_manifest_beside_such_data_is_not_current(data: Path) -> None:
    (data / "words/dataset.yaml").write_text(LAUGHS)
    Path("data.json").write_text('{"kind": "classify", "datasets": {}}')
    assert not is_current(Path("data.json"), data)


@pytest.mark.parametrize("what", BAD)
def test_so_it_is_in_a_models_folder_and_in_dvc_lock(tmp_path: Path, what: str) -> None:
    part = tmp_path / "model/classify"
    part.mkdir(parents=True)
    (part / WEIGHTS).write_bytes(b"")
    (part / "lineage.json").write_text("{}")
    (part / "config.yaml").write_text(BAD[what])
    for read in (
        lambda: load_model(tmp_path / "model", "classify"),
        lambda: contender("it", tmp_path / "model", "classify", "", ""),
    ):
        with pytest.raises(QuickstudyError) as refused:
            read()
        assert "\n" not in str(refused.value)
    (tmp_path / "dvc.lock").write_text(BAD[what] + "\n")
    with pytest.raises(QuickstudyError, match=r"dvc\.lock"):
        stale.read_lock(tmp_path)


def test_a_text_that_is_too_long_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quickstudy.data.plain_yaml.MOST", 100)
    with pytest.raises(yaml.YAMLError, match="longer"):
        read_yaml("a: " + "b" * 100)


def test_what_we_write_is_read(data: Path) -> None:
    described = read_dataset(data / "words").info
    assert (described.name, described.modality) == ("words", "text")
    assert read_yaml("a: [1, 2.5, true, null, x]\nb: {c: 'd'}\n") == {"a": [1, 2.5, True, None, "x"], "b": {"c": "d"}}


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "..", "a/b", "", "x\0y", "Words", "x" * 65, "x\n", "-x", "C:x"])
def test_a_name_that_leads_out_is_refused_where_it_is_read_and_where_it_is_written(
    data: Path, tmp_path: Path, name: str
) -> None:
    describe(data, name=name)
    before = sorted(tmp_path.rglob("*"))
    for read in (lambda: read_dataset(data / "words"), lambda: open_datasets("classify")):
        with pytest.raises(QuickstudyError, match=r"dataset\.yaml: .*cannot be the name of a dataset") as refused:
            read()
        assert "\n" not in str(refused.value)
    table = make_table("text", ["a", "b"], ["x", "y"], ["x", "y"])
    with pytest.raises(QuickstudyError, match="cannot be the name"):
        write_dataset(data, DatasetInfo(name=name, modality="text"), table)
    assert sorted(tmp_path.rglob("*")) == before


def test_so_no_cache_is_written_elsewhere(data: Path, tmp_path: Path) -> None:
    """The features' file is called after the dataset."""
    describe(data, name="../../../out")
    with pytest.raises(QuickstudyError):
        features(read_dataset(data / "words"), None, tmp_path / "cache/features")  # type: ignore[arg-type]
    assert not (tmp_path.parent / "out").exists()
