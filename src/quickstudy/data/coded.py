"""Files as they travel in JSON."""

import binascii

from quickstudy.errors import QuickstudyError


def decoded(text: object, where: str) -> bytes:
    """The bytes of a file from its base64.

    Raises:
        QuickstudyError: it is none.
    """
    try:
        if isinstance(text, str):
            return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        pass
    raise QuickstudyError("is not base64", where=where, fix="Encode the bytes of the file")
