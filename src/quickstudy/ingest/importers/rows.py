"""What every importer makes of a source: columns of equal length, before groups and order are settled."""

from dataclasses import dataclass, field
from typing import Any

from quickstudy.data.dataset import Modality
from quickstudy.data.media import verify
from quickstudy.errors import QuickstudyError


@dataclass
class Rows:
    """Columns of equal length. ``groups`` and ``domains`` stay empty where the source names none."""

    modality: Modality
    kind: str
    """What a target is; "" until it is told."""
    contents: list = field(default_factory=list)
    targets: list[Any] = field(default_factory=list)
    """None where one is missing and may be."""
    groups: list[str] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """Where each image or recording came from: the file's path, or file and row."""
    order: list[str] | list[int] = field(default_factory=list)
    """Sort key among equal targets: the path, or the number of the row."""
    group_word: str = "group"
    domain_word: str | None = None
    group_rule: str | None = None
    """The column, field or folder level that the groups came from."""
    domain_rule: str | None = None
    content_columns: set[str] = field(default_factory=set)
    """Of the tables that were read: what the column of examples is called; one name where all agree."""
    target_columns: set[str] = field(default_factory=set)
    """The same of their targets."""
    flag_columns: tuple[str, ...] | None = None
    """Of tables with a column for each tag: these."""
    unsplit: str | None = None
    """A text that was read as one name and seems to be several."""
    levels: int | None = None
    """Of folders: how many say something."""
    bad: list[QuickstudyError] = field(default_factory=list)

    def check_content(self, content: bytes | str | None) -> None:
        """Raise where an example is empty or cannot be decoded."""
        if self.modality == "text":
            if not isinstance(content, str):
                raise QuickstudyError("the text is missing" if content is None else f"the text is {content!r}, no text")
            if not content.strip():
                raise QuickstudyError("the text is empty")
            if "\0" in content:
                raise QuickstudyError("the text holds a NUL character")
        elif not isinstance(content, bytes):
            raise QuickstudyError(f"the cell holds no bytes of an {self.modality}")
        else:
            verify(content, self.modality)

    def add(self, content: bytes | str, target: Any, path: str, order: str | int) -> None:
        """Append an example."""
        self.contents.append(content)
        self.targets.append(target)
        if self.modality != "text":
            self.paths.append(path)
        self.order.append(order)  # type: ignore[arg-type]

    def refuse(self, where: str, error: QuickstudyError) -> None:
        """Put a bad example aside."""
        self.bad.append(QuickstudyError(error.what, where=where))
