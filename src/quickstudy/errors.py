"""The one exception family for what a user can cause and mend."""

from quickstudy.secrets import redacted


class QuickstudyError(ValueError):
    """A mistake of the user's, told in one line: what, where, how to mend.

    The command line prints it without a traceback and exits with code 2; nothing was changed. It names no
    password of an address.

    Args:
        what: what is wrong ("no column named 'text'").
        where: file, row, field, URI.
        fix: what to do about it.
    """

    def __init__(self, what: str, *, where: object = None, fix: str | None = None):
        what, where = redacted(what), redacted(str(where)) if isinstance(where, str) else where
        self.what, self.where, self.fix = what, where, fix
        line = what if where is None else f"{where}: {what}"
        super().__init__(redacted(" ".join((line if fix is None else f"{line}. {fix}").split())))


GATE_CODES = {"PROMOTE": 0, "HOLD": 3, "REJECT": 4}
"""Exit codes of what the gate says; 2 is a mistake."""

DRIFT = 3
"""Exit code of drift that was found."""
