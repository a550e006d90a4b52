"""One Prefect for the whole test run."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL
from prefect.testing.utilities import prefect_test_harness

from flows import data_steps, promotion_steps
from tests.toy.project import TOY_GATE, add_flows


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers all tests of flows go to the same one, so that one Prefect serves them."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("prefect"))


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """A Prefect server with an empty database."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def no_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building the starter data does nothing: the projects of the tests have data of their own."""
    monkeypatch.setattr(data_steps, "STARTER", ("true",))


@pytest.fixture
def answer() -> Callable[..., tuple[int, str, str]]:
    """Run the command line in a project against that server; gives exit code, stdout and stderr."""

    def answer(root: Path, *arguments: str) -> tuple[int, str, str]:
        command = [str(Path(sys.executable).parent / "quickstudy"), *arguments]
        environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value() or "", "COLUMNS": "160"}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return answer


@pytest.fixture
def toy_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate is that of tests/toy."""
    monkeypatch.setattr(promotion_steps, "GATE", TOY_GATE)


@pytest.fixture
def with_flows(project: Path) -> Path:
    """The project with the flows, as `quickstudy run` needs them, which register with the loader of tests/toy."""
    return add_flows(project)
