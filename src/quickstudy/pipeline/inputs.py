"""The datasets of data/ and their arrays, as the stages read them."""

from quickstudy.data.contents import MEMORY
from quickstudy.data.dataset import PLACES, Dataset, dataset_names, read_dataset
from quickstudy.errors import QuickstudyError
from quickstudy.kinds.targets import targets_of
from quickstudy.pipeline.paths import DATA


def read_datasets(kind: str) -> dict[str, Dataset]:
    """Return the datasets of a kind in memory, by name.

    Raises:
        QuickstudyError: there is no dataset at all.
    """
    return {dataset.name: read_dataset(DATA / dataset.name) for dataset in open_datasets(kind).values()}


def open_datasets(kind: str) -> dict[str, Dataset]:
    """Return the datasets of a kind by name, their examples read as they are asked for.

    Raises:
        QuickstudyError: there is no dataset at all, or one of a kind that this version does not know.
    """
    found = {name: read_dataset(DATA / name, PLACES, MEMORY) for name in _names()}
    for name, dataset in found.items():
        targets_of(dataset.info.kind, DATA / name)  # one that this version does not know is told, and not passed over
    return {name: dataset for name, dataset in found.items() if dataset.info.kind == kind}


def _names() -> list[str]:
    names = dataset_names(DATA)
    if not names:
        raise QuickstudyError("no datasets", where=DATA, fix="`quickstudy data build` makes the starter data")
    return names
