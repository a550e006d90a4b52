"""What tests share: a small project in a folder of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from quickstudy.config import Settings
from quickstudy.system.environment import apply_environment
from tests.toy.project import REPOSITORY, make_project, run_git

# Nothing of the developer's own stores is touched.
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "PREFECT_API_URL", "PREFECT_PROFILE"):
    os.environ.pop(name, None)
PREFECT_HOME = tempfile.TemporaryDirectory(prefix="quickstudy-prefect-")
os.environ["PREFECT_HOME"] = PREFECT_HOME.name
apply_environment()


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Whatever a test has set, as the command line does, the next one writes files as most people do."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def git() -> Callable[..., str]:
    """Run git in a folder under a name of its own and give what it prints."""
    return run_git


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A git and DVC repository with the real settings, two files of data and the stages of tests/toy, all committed."""
    return make_project(tmp_path / "a project")  # with a blank, as people have them


@pytest.fixture
def built(project: Path) -> Path:
    """The project with every stage's outputs, written without DVC."""
    for stage in ("tasks", "meta_train", "evaluate", "card"):
        subprocess.run([sys.executable, "stage.py", stage], cwd=project, check=True, capture_output=True)
    return project


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry stores models with the loader of tests/toy, which needs no trained weights."""
    toy = REPOSITORY / "tests/toy"
    monkeypatch.syspath_prepend(str(toy))
    monkeypatch.setattr("quickstudy.registry.runs.LOADER", "served.loader")
    monkeypatch.setattr("quickstudy.registry.runs.CODE", toy / "served")
    yield


@pytest.fixture(scope="session")
def tiny_params() -> dict[str, Any]:
    """What params.yaml holds, with numbers so small that a training takes a second. Change a copy."""
    params = yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))
    params["inputs"]["image"] = {"size": 16, "channels": 1}
    params["inputs"]["audio"] = {"sample_rate": 4000, "seconds": 0.4, "mels": 16}
    params["episodes"] = {"count": 6, "shots": [1, 2], "query": 2, "way": 3, "ways": {}}
    params["model"] |= {"dimension": 16, "width": 4, "heads": 2, "inner_steps": 2}
    params["train"] |= {
        "steps": 6,
        "learning_rate": 0.01,
        "warmup": 0.2,
        "shots": [1, 2],
        "query": 2,
        "threads": 1,
        "tasks": {"image": 2, "audio": 1, "text": 1},
        "examples": {"image": 12, "audio": 12, "text": 12},
        "validate_every": 2,
        "checkpoint_every": 3,
    }
    params["evaluate"] = {"baselines": True, "scratch_episodes": 1, "scratch_steps": 2, "timed_episodes": 1}
    return params


@pytest.fixture(scope="session")
def tiny(tiny_params: dict[str, Any]) -> Settings:
    """Those numbers as settings."""
    return Settings.model_validate(tiny_params)
