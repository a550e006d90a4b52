"""A model of pictures, recordings and texts, untrained: what is like is near all the same."""

from pathlib import Path

import pytest
import torch

from quickstudy import Quickstudy
from quickstudy.config import Settings
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model


@pytest.fixture(scope="session")
def model_folder(tiny: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    shape = tiny.model.model_copy(update={"dimension": 384})  # the sentence vectors as they are
    folder = tmp_path_factory.mktemp("model")
    save_model(MetaModel(tiny.inputs, shape, {"text", "image", "audio"}), folder, {})
    return folder


@pytest.fixture(scope="session")
def qs(model_folder: Path) -> Quickstudy:
    return Quickstudy.load(model_folder)
