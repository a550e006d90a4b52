"""What a person may say of a source, and what is asked of whatever reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from quickstudy.data.dataset import Modality, Reading, Split

Progress = Callable[[int, int], None]
Note = Callable[[str], None]


class ImportOptions(Reading):
    """How a source is to be read, and what the dataset that is made of it says of itself.

    What `Reading` has of it stands in dataset.yaml afterwards, together with what was found where nothing was said:
    ``group`` may be given as the path of a .json file that maps each group to its classes, of which the name is kept.
    """

    kind: str | None = None
    """What a target is. None: told from the source where it can be, else classify."""
    modality: Modality | None = None
    """None: told from the files."""
    split: Split | None = None
    """Puts the whole dataset on one side of the meta-split."""
    scope: Literal["dataset", "group"] = "dataset"
    """Whether the classes of an episode come from the whole dataset or from one group."""
    licence: str = "unknown"
    source_note: str | None = None
    """Where the data comes from; None for the name of the source."""

    def remembered(self, **found: Any) -> Reading:
        """What of it is kept with the dataset, with what was found in the source in the place of what was said."""
        said = {name: getattr(self, name) for name in Reading.model_fields}
        return Reading.model_validate(said | found)


NOTHING_SAID = ImportOptions()


@dataclass(frozen=True)
class Wanted:
    """What is asked of whatever reads a source."""

    reading: Reading
    """What was said; None in it: found out from the source."""
    kind: str | None = None
    """What a target is; None: told from the source."""
    labelled: bool = True
    """Whether an example without a target is a mistake."""
    progress: Progress = lambda done, total: None
    """Told (done, total); total 0 where it is not known."""
    note: Note = lambda line: None
    """Told, in a line each, what was decided where the source leaves a choice."""
