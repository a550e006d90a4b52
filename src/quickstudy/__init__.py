"""Quickstudy: one meta-trained model that adapts to a task it has never seen."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from quickstudy.system.environment import CHAMPION

if TYPE_CHECKING:
    from quickstudy.client import Quickstudy
    from quickstudy.client.classifier import QuickstudyClassifier

__version__ = "0.1.0"
__all__ = ["CHAMPION", "Quickstudy", "QuickstudyClassifier", "__version__"]

# Imported at their first use: `import quickstudy` is done at once.
_LATER = {"Quickstudy": "quickstudy.client", "QuickstudyClassifier": "quickstudy.client.classifier"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module 'quickstudy' has no attribute {name!r}")
