"""One set of machines for all tests of this folder: servers and workers as real processes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.toy.stack import Stack


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers all of them go to the same one, in their order: each goes on from what is there."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("deployed"))
            if not os.environ.get("QUICKSTUDY_DEPLOYED"):
                item.add_marker(pytest.mark.skip(reason="ten minutes with real servers and workers: make deployed"))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The machines, at work; the data that is there was trained on."""
    stack = Stack(tmp_path_factory.mktemp("machines"))
    try:
        stack.start()
        run = stack.wait(lambda: stack.runs("retrain"), 90)[0]["id"]
        assert stack.ended(run)[0] == "Completed", stack.log(run)
        yield stack
    finally:
        stack.stop()
