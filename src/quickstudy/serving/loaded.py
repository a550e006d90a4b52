"""A model in memory, and where its next version comes from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from quickstudy.model.metamodel import MetaModel
from quickstudy.model.store import load_model, weights_digest
from quickstudy.serving.task import check_learner


@dataclass(frozen=True)
class Loaded:
    """A model that answers."""

    version: str
    """what the registry calls it; of a folder, the start of the digest"""
    digest: str
    """sha256 of the weights"""
    model: MetaModel = field(repr=False)


@dataclass(frozen=True)
class Source:
    """A name that stands for a model: an alias, which may move, or a version or folder, which does not."""

    look: Callable[[], str | None]
    """which version the name stands for now; None for none"""
    fetch: Callable[[str], Path]
    """that version's folder, its files checked"""

    def load(self, version: str) -> Loaded:
        """Raises QuickstudyError where there is no such model or it cannot serve."""
        folder = self.fetch(version)
        model = load_model(folder)
        check_learner(model, folder)
        return Loaded(version, weights_digest(folder), model)


def folder_source(folder: Path) -> Source:
    """A model that lies in a folder."""
    return Source(lambda: weights_digest(folder)[:12], lambda _: folder)
