"""The Python client on a model that MLflow has registered."""

from pathlib import Path

import numpy as np
import pytest
import torch

from quickstudy import Quickstudy, QuickstudyClassifier, registry
from quickstudy.config import Settings
from quickstudy.errors import QuickstudyError
from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import save_model


@pytest.fixture
def project(built: Path, served: None, tiny: Settings) -> Path:
    """With a champion that can answer."""
    torch.manual_seed(0)
    save_model(MetaModel(tiny.inputs, tiny.model, {"image"}), built / "build/model", {"trained_on": {"toy": ["one"]}})
    registry.prepare(built)
    assert registry.register(built).aliases == ("champion",)
    return built


def test_the_champion_is_loaded_by_its_alias(project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(project / "data")  # anywhere in the project
    pictures = [np.eye(20), 1 - np.eye(20), np.tri(20)]
    by_alias = Quickstudy.load("models:/quickstudy@champion").adapt(pictures, ["a", "b", "c"])
    from_folder = Quickstudy.load(project / "build/model").adapt(pictures, ["a", "b", "c"])
    assert np.array_equal(by_alias.predict_proba(pictures), from_folder.predict_proba(pictures))
    monkeypatch.chdir(tmp_path)
    assert QuickstudyClassifier(Quickstudy.load(project=project)).fit(pictures, [0, 1, 2]).score(pictures, [0, 1, 2])
    with pytest.raises(QuickstudyError, match=r"there is no such model\. Known models: models:/quickstudy@champion"):
        Quickstudy.load("models:/quickstudy@challenger", project)
