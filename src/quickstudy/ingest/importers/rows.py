"""What every importer makes of a source: columns of equal length, before groups and order are settled."""

from dataclasses import dataclass, field
from sys import intern

from quickstudy.data.dataset import Modality
from quickstudy.data.media import verify
from quickstudy.errors import QuickstudyError


@dataclass
class Rows:
    """Columns of equal length. ``groups`` and ``domains`` stay empty where the source names none."""

    modality: Modality
    contents: list = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    """Where each image or recording came from: the file's path, or file and row."""
    order: list[str] | list[int] = field(default_factory=list)
    """Sort key within a class: the path, or the number of the row."""
    group_word: str = "group"
    domain_word: str | None = None
    group_rule: str | None = None
    """The column, field or folder level that the groups came from."""
    domain_rule: str | None = None
    content_columns: set[str] = field(default_factory=set)
    """Of the tables that were read: what the column of examples is called; one name where all agree."""
    label_columns: set[str] = field(default_factory=set)
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

    def add(self, content: bytes | str, label: str, path: str, order: str | int) -> None:
        self.contents.append(content)
        self.labels.append(intern(label))  # a million rows have a few hundred labels
        if self.modality != "text":
            self.paths.append(path)
        self.order.append(order)  # type: ignore[arg-type]

    def refuse(self, where: str, error: QuickstudyError) -> None:
        """Put a bad example aside."""
        self.bad.append(QuickstudyError(error.what, where=where))
