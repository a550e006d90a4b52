"""Rich's console for texts of anybody's: no text is markup, and no control character reaches the terminal."""

from collections.abc import Iterable
from typing import Any

from rich import console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from quickstudy.system.printing import printable


class Console(console.Console):
    """Where all verbs show what they have: tables, lines and bars. Whoever wants colours makes a Text with a style."""

    def __init__(self, **how: Any):
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **how})

    def render_str(self, text: str, **how: Any) -> Text:
        """Return what a text is drawn as; so what is written out has its width before columns are measured."""
        return super().render_str(printable(text), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is written, which nothing gets around: tables, bars and lines all come by here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)

    def status(self, status: RenderableType, **how: Any) -> Status:
        return super().status(Text(status) if isinstance(status, str) else status, **how)
