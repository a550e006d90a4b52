"""A broken byte: noticed where bytes are taken over, told, and never the base of a new model or a new version."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from quickstudy.cli.data import app
from quickstudy.config import Settings
from quickstudy.data.contents import FILE
from quickstudy.data.dataset import DatasetInfo, make_table, read_dataset, write_dataset, write_examples
from quickstudy.encoders.features import features
from quickstudy.encoders.text_tokens import TokenEncoder
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.system.atomic import draft, write_bytes
from quickstudy.training import Source, meta_train
from quickstudy.versions import dvc, stale, whole
from tests.toy.project import run_git

MODEL = "build/model/classify"


def flip(path: Path, place: int = -1, keep_time: bool = False) -> None:
    """Another bit in the middle of a file, or at a place."""
    before = path.stat()
    mode = stat.S_IMODE(before.st_mode)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[place if place >= 0 else len(data) // 2] ^= 1
    with path.open("r+b") as file:  # in place, as a disk does it
        file.write(data)
    path.chmod(mode)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def bring_up_to_date(root: Path, said: list[str]) -> dict[str, str]:
    return {stage.name: dvc.repro(root, stage.name, said.append) for stage in stale.stages(root)}


# What the stages have made


@pytest.fixture
def done(project: Path) -> Path:
    dvc.add_data(project)
    bring_up_to_date(project, [])
    return project


def weights_object(root: Path) -> Path:
    """The weights in DVC's cache."""
    cache = whole.cache_folder(root)
    files = dict(whole.listed(cache, dvc.lock_hashes(root)[MODEL]))
    return whole.object_at(cache, files["model.safetensors"])


def test_dvcs_hash_of_files_and_folders_is_ours(done: Path) -> None:
    for path, md5 in dvc.lock_hashes(done).items():
        assert whole.hash_of(done / path) == md5
    assert whole.hash_of(done / "data") == dvc.data_hash(done)


def test_a_flipped_bit_in_dvcs_cache_is_not_restored(done: Path) -> None:
    good = (done / MODEL / "model.safetensors").read_bytes()
    flip(weights_object(done))
    for path in sorted((done / "build/model").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    said: list[str] = []
    assert dvc.repro(done, "meta_train@classify", said.append) == "ran"
    assert (done / MODEL / "model.safetensors").read_bytes() == good
    assert any("damaged in DVC's cache" in line for line in said)
    assert weights_object(done).read_bytes() == good
    assert len(list((done / whole.ASIDE).iterdir())) == 1  # kept, to be looked at


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_flipped_bit_in_the_workspace_is_not_up_to_date(done: Path, keep_time: bool) -> None:
    path = done / MODEL / "model.safetensors"
    good = path.read_bytes()
    flip(path, keep_time=keep_time)
    outcomes = bring_up_to_date(done, [])
    assert path.read_bytes() == good
    assert outcomes["meta_train@classify"] == "restored" and outcomes["evaluate@classify"] == "up to date"


def test_what_is_damaged_everywhere_is_made_anew(done: Path) -> None:
    path = done / MODEL / "model.safetensors"
    good = path.read_bytes()
    flip(path, keep_time=True)
    flip(weights_object(done))
    bring_up_to_date(done, [])
    assert path.read_bytes() == good


def test_what_differs_from_dvc_lock_is_not_registered(done: Path) -> None:
    whole.check_outputs(done)
    flip(done / MODEL / "model.safetensors", keep_time=True)
    with pytest.raises(QuickstudyError, match=rf"{MODEL}: is not what its stage made.*quickstudy run") as refused:
        whole.check_outputs(done)
    assert "\n" not in str(refused.value)


def test_the_flow_asks_before_it_registers(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import promotion_steps

    asked: list[Path] = []
    monkeypatch.setattr(promotion_steps.registry, "register", asked.append)
    flip(done / MODEL / "model.safetensors", keep_time=True)
    with pytest.raises(QuickstudyError, match="not what its stage made"):
        promotion_steps.register.fn(done)
    assert asked == []


def test_what_another_machine_made_is_looked_at_as_well(done: Path, tmp_path: Path) -> None:
    """The remote is asked for what the cache holds damaged."""
    with (done / ".dvc/config").open("a") as file:
        file.write(f"    remote = shared\n['remote \"shared\"']\n    url = {tmp_path / 'remote'}\n")
    dvc.push_outputs(done, ["meta_train@classify"], lambda line: None)
    good = (done / MODEL / "model.safetensors").read_bytes()
    flip(weights_object(done))
    (done / MODEL / "model.safetensors").unlink()
    dvc.pull_outputs(done, "meta_train@classify", lambda line: None)
    assert (done / MODEL / "model.safetensors").read_bytes() == good


# The data


def add(root: Path, name: str = "words", examples: int = 400) -> Path:
    random = np.random.default_rng(3)
    texts = [" ".join(f"w{n}" for n in random.integers(0, 99, 9)) for _ in range(examples)]
    labels = [f"class {i % 4}" for i in range(examples)]
    info = DatasetInfo(name=name, modality="text")
    return write_dataset(root / "data", info, make_table("text", texts, labels, labels)) / FILE


@pytest.fixture
def with_data(project: Path) -> Path:
    add(project)
    dvc.add_data(project)
    return project


@pytest.mark.parametrize("place", [900, -1, -40])
def test_a_flipped_bit_in_a_dataset_is_no_new_version(with_data: Path, place: int) -> None:
    version, path = dvc.data_hash(with_data), with_data / "data/words" / FILE
    flip(path, place if place > 0 else path.stat().st_size // 2 if place == -1 else path.stat().st_size + place)
    with pytest.raises(QuickstudyError, match=r"words/examples\.parquet: its bytes are not those") as refused:
        dvc.add_data(with_data)
    assert "\n" not in str(refused.value) and dvc.data_hash(with_data) == version
    dvc.checkout_data(with_data, force=True)  # what the message says
    assert dvc.add_data(with_data) == version


def test_one_before_the_first_version_is_told_too(project: Path) -> None:
    flip(add(project))
    with pytest.raises(QuickstudyError, match="its bytes are not those"):
        dvc.add_data(project)


def test_so_is_one_where_only_dvc_knows_the_data(with_data: Path) -> None:
    """A clone that got its data from a remote: nothing was written by our verbs."""
    for path in (with_data / ".cache/written").iterdir():
        path.unlink()
    flip(with_data / "data/words" / FILE)
    with pytest.raises(QuickstudyError, match="its bytes are not those"):
        dvc.add_data(with_data)


def test_what_our_verbs_and_dvc_write_is_taken(with_data: Path) -> None:
    first = dvc.data_hash(with_data)
    add(with_data, examples=440)
    second = dvc.add_data(with_data)
    dvc.set_data(with_data, str(first))
    dvc.checkout_data(with_data, force=True)
    assert dvc.add_data(with_data) == first
    dataset = read_dataset(with_data / "data/words")
    write_examples(with_data / "data", "words", dataset.table.slice(0, 100))
    assert dvc.add_data(with_data) not in (first, second)


def test_a_dataset_that_somebody_lays_there_is_taken(with_data: Path, tmp_path: Path) -> None:
    path = add(tmp_path / "elsewhere", "letters")
    path.parent.rename(with_data / "data/letters")
    assert dvc.add_data(with_data) != dvc.committed_data_hash(with_data)
    flip(with_data / "data/letters" / FILE)
    with pytest.raises(QuickstudyError, match="letters"):
        dvc.add_data(with_data)


def test_a_person_can_say_that_a_change_is_meant(with_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, path = dvc.data_hash(with_data), with_data / "data/words" / FILE
    pq.write_table(pq.read_table(path).slice(0, 200), path)
    with pytest.raises(QuickstudyError, match="data accept words"):
        dvc.add_data(with_data)
    monkeypatch.chdir(with_data)
    done = CliRunner().invoke(app, ["accept", "words"])
    assert done.exit_code == 0 and "200 examples" in done.output
    assert dvc.add_data(with_data) != version


def test_make_clean_leaves_what_is_known_of_the_data() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    clean = makefile[makefile.index("\nclean:") :]
    assert "! -name written" in clean and "rm -rf build .cache" not in clean


def test_damaged_data_in_dvcs_cache_is_not_taken(with_data: Path) -> None:
    cache = whole.cache_folder(with_data)
    files = dict(whole.listed(cache, str(dvc.data_hash(with_data))))
    flip(whole.object_at(cache, files[f"words/{FILE}"]))
    (with_data / "data/words" / FILE).unlink()
    with pytest.raises(QuickstudyError, match=rf"words/{FILE} of data version .* is damaged in DVC's cache"):
        dvc.checkout_data(with_data, force=True)
    assert not (with_data / "data/words" / FILE).exists()  # nobody trains on it
    assert not dvc.in_cache(with_data, str(dvc.data_hash(with_data)))  # the next try asks the remote


def test_a_flipped_bit_in_an_example_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    path = add(tmp_path)
    dataset = read_dataset(path.parent, ("label", "group"))
    flip(path, 2000)
    with pytest.raises(QuickstudyError, match="cannot be read"):
        dataset.raw()
    with pytest.raises(QuickstudyError, match="cannot be read"):
        read_dataset(path.parent)


# What the fronts of the encoders made


def test_a_flipped_bit_in_the_features_is_computed_anew(
    tmp_path: Path, tiny: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = read_dataset(add(tmp_path).parent)
    encoder = TokenEncoder(tiny.inputs.text, "words", "cnn", 4, 16, 1)
    good = np.array(features(dataset, encoder, tmp_path / "cache")[0])
    (path,) = (tmp_path / "cache").iterdir()
    for place in (200, path.stat().st_size // 2, path.stat().st_size - 40, path.stat().st_size - 1):
        flip(path, place)
        again, _ = features(dataset, encoder, tmp_path / "cache")
        assert np.array_equal(again, good)
        assert f"{path.name} is damaged" in capsys.readouterr().err
    assert features(dataset, encoder, tmp_path / "cache")[0].shape == good.shape
    assert capsys.readouterr().err == ""


# A checkpoint


def a_training(tmp_path: Path, settings: Settings) -> Callable[..., MetaModel]:
    dataset = read_dataset(add(tmp_path, examples=60).parent)
    arrays = np.random.default_rng(0).normal(0, 1, (60, 384)).astype(np.float32)
    sources = [Source.of(dataset, np.ones(60, dtype=bool), arrays)]

    def train(checkpoint: Path | None, stop: int = 0) -> MetaModel:
        def progress(done: int, total: int, text: str) -> None:
            if done == stop:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        model = MetaModel(settings.inputs, settings.model, ("text",))
        meta_train(model, sources, [], settings, checkpoint, progress)
        return model

    return train


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped_in_a_weight(path: Path) -> None:
    flip(path)


def flipped_in_the_header(path: Path) -> None:
    flip(path, path.read_bytes().index(b'"place"') + 20)


def of_somebody_else(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"model/x": torch.zeros(3)}, path, metadata={"step": "3"})


@pytest.mark.parametrize("damage", [cut_short, emptied, flipped_in_a_weight, flipped_in_the_header, of_somebody_else])
def test_a_damaged_checkpoint_is_set_aside_and_the_training_begins_anew(
    tmp_path: Path, tiny: Settings, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    train = a_training(tmp_path, tiny)
    wanted = train(None).state_dict()
    path = tmp_path / "checkpoints/key.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(path, stop=4)
    damage(path)
    found = train(path).state_dict()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    assert "key.safetensors is damaged" in capsys.readouterr().err
    assert sorted(one.name for one in path.parent.iterdir()) == ["key.safetensors", "key.safetensors.damaged"]


# What a loss of power leaves


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        told.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"file of {os.fstat(handle).st_size}")
        fsync(handle)

    def noted_replace(old: object, new: object) -> None:
        told.append("replace")
        replace(old, new)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_bytes(tmp_path / "file", b"four")
    assert told == ["file of 4", "replace", "folder"]
    told.clear()
    with draft(tmp_path / "other") as part, part.open("wb") as file:
        file.write(b"seven77")
    assert told == ["file of 7", "replace", "folder"]
    told.clear()
    add(tmp_path)
    assert told.index("replace") > 0 and told[-1] == "folder"
    told.clear()
    write_examples(tmp_path / "data", "words", read_dataset(tmp_path / "data/words").table)
    assert told[0].startswith("file of") and told[-2:] == ["replace", "folder"]


def test_git_sees_nothing_of_all_this(with_data: Path) -> None:
    assert run_git(with_data, "status", "--short").split() == ["??", "data.dvc"]
