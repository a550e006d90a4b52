"""The datasets of data/ and their arrays, as the stages read them."""

from quickstudy.data.contents import MEMORY
from quickstudy.data.dataset import PLACES, Dataset, dataset_names, read_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.pipeline.paths import DATA


def read_datasets() -> dict[str, Dataset]:
    """All of data/ in memory, by name. QuickstudyError where there is none."""
    return {name: read_dataset(DATA / name) for name in _names()}


def open_datasets() -> dict[str, Dataset]:
    """All of data/ by name, its examples read as they are asked for. QuickstudyError where there is none."""
    return {name: read_dataset(DATA / name, PLACES, MEMORY) for name in _names()}


def _names() -> list[str]:
    names = dataset_names(DATA)
    if not names:
        raise QuickstudyError("no datasets", where=DATA, fix="`quickstudy data build` makes the starter data")
    return names
