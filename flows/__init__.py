"""Prefect's flows. Importing anything from here sets the project's settings first, as Prefect reads them at import."""

import logging

from quickstudy.secrets import redacted
from quickstudy.system.environment import apply_environment, keep_private

keep_private()
apply_environment()


class _Record(logging.LogRecord):
    """A line of a log, which Prefect's server keeps: without passwords, whoever has written it, and of failures too."""

    def getMessage(self) -> str:
        return redacted(super().getMessage())

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, redacted(value) if name == "exc_text" and isinstance(value, str) else value)


logging.setLogRecordFactory(_Record)
