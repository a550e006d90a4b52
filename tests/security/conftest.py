"""A project with three versions, made once and copied for each test; a service on a small model."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from quickstudy import registry
from tests.toy.project import REPOSITORY, make_project
from tests.unit.conftest import png, wav
from tests.unit.serving.conftest import (
    alias,
    client,
    database,
    folders,
    make_engine,
    open_client,
    settings,
    store,
    tickets,
)

__all__ = [
    "alias",
    "client",
    "database",
    "folders",
    "make_engine",
    "open_client",
    "png",
    "settings",
    "store",
    "tickets",
    "wav",
]


def train_again(root: Path, seed: int) -> None:
    """Another model, with another evaluation."""
    text = (root / "params.yaml").read_text()
    (root / "params.yaml").write_text(text.replace(f"\nseed: {seed - 1}", f"\nseed: {seed}"))
    subprocess.run([sys.executable, "stage.py", "meta_train"], cwd=root, check=True, capture_output=True)
    metrics = {"words@domain": {"5-shot": {"score": 0.9 + seed / 100, "ci95": 0.01}}}
    (root / "build/evaluate/classify/metrics.json").write_text(json.dumps(metrics))


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    toy = REPOSITORY / "tests/toy"
    root = make_project(tmp_path_factory.mktemp("security") / "a project")
    for stage in ("tasks", "meta_train", "evaluate", "card"):
        subprocess.run([sys.executable, "stage.py", stage], cwd=root, check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(toy))
        patch.setattr("quickstudy.registry.runs.LOADER", "served.loader")
        patch.setattr("quickstudy.registry.runs.CODE", toy / "served")
        registry.register(root)
        train_again(root, 1)
        registry.register(root)
        registry.promote(root, 2, against=1, why="better")
        train_again(root, 2)
        registry.register(root)
    train_again(root, 3)
    return root


@pytest.fixture
def three(_made: Path, tmp_path: Path) -> Path:
    """Champion 2, previous 1, challenger 3, by eight lines of the ledger; a fourth model is built, not registered."""
    shutil.copytree(_made, tmp_path / "a copy", symlinks=True)
    return tmp_path / "a copy"
