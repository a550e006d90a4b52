"""The starter data: six datasets made on the spot, with no download, so that a fresh clone has something to learn."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from quickstudy.data.dataset import write_dataset
from quickstudy.errors import QuickstudyError

STARTER = ("glyphs", "digits", "words", "apidocs", "phrasebook", "messages")


def build_starter(
    root: Path,
    names: Sequence[str] | None = None,
    force: bool = False,
    progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> list[str]:
    """Build what is missing under the data root; each dataset appears whole or not at all.

    Args:
        root: the data root.
        names: of these alone; None for all.
        force: build also what is there.
        progress: told (dataset, done, total).

    Returns:
        The names built, in the order of ``STARTER``.

    Raises:
        QuickstudyError: for a name that is none of the starter data.
    """
    wanted = STARTER if names is None else names
    for name in wanted:
        if name not in STARTER:
            raise QuickstudyError(f"no starter dataset {name!r}", fix=f"There are {', '.join(STARTER)}")
    built = []
    for name in (name for name in STARTER if name in wanted):
        if force or not (root / name / "dataset.yaml").is_file():
            # Each builder brings its own heavy imports; nobody waits for those of a dataset that is there.
            builder = import_module(f"quickstudy.starter.{name}")
            info, table = builder.build(lambda done, total, name=name: progress(name, done, total))
            write_dataset(root, info, table)
            built.append(name)
    return built
