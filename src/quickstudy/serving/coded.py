"""Files as they travel in JSON."""

import base64
import binascii

from quickstudy.errors import QuickstudyError


def decoded(text: object, where: str) -> bytes:
    """The bytes of a file from its base64.

    Raises:
        QuickstudyError: it is none.
    """
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise QuickstudyError("is not base64", where=where, fix="Encode the bytes of the file")
