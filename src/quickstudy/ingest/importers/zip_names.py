"""The names in a .zip, which need not say how they are encoded.

A flag says UTF-8 (APPNOTE 6.3.10, 4.4.4, bit 11), and an extra field may hold the name in UTF-8 (4.6.9). Without them a
name is in whatever the system that packed it wrote, which is told from all such names at once.
"""

import codecs
import math
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from quickstudy.errors import QuickstudyError

_UTF8, _UNICODE_PATH = 0x800, 0x7075
_AS_READ = "cp437"  # what zipfile takes names for that say nothing, and the format's own default
# Of systems in the languages where names without a flag are met, with how often they are, roughly.
PRIOR = {
    "gb18030": 0.35,
    "shift_jis": 0.2,
    "cp1252": 0.1,
    "cp850": 0.08,
    _AS_READ: 0.04,
    "euc_kr": 0.08,
    "big5": 0.06,
    "cp866": 0.04,
    "cp1251": 0.03,
    "koi8_r": 0.02,
}


def member_names(
    members: Sequence[zipfile.ZipInfo], encoding: str | None, source: Path
) -> tuple[list[str], str | None]:
    """Return the names of members as they were meant, and a line that says what was decided, if anything was.

    Args:
        members: of an archive that was opened without ``metadata_encoding``.
        encoding: of names that do not say theirs; None: it is found out.
        source: the archive, for the error.

    Raises:
        QuickstudyError: ``encoding`` is none that is known, or does not fit.
    """
    names = [_said(member) for member in members]
    raw = [
        member.orig_filename.encode(_AS_READ) if name is None else b""
        for member, name in zip(members, names, strict=True)
    ]
    # Each name of a folder counts once, however many files are in it. A byte that looks like a backslash may be half of
    # a character.
    silent = sorted({part for one in raw for part in one.split(b"/") if not part.isascii()})
    if not silent:
        return [name or one.decode("ascii") for name, one in zip(names, raw, strict=True)], None
    chosen = _checked(encoding, silent, source) if encoding is not None else _likeliest(silent)
    read = [one.decode(chosen) if name is None else name for name, one in zip(names, raw, strict=True)]
    example = next(name for name, one in zip(read, raw, strict=True) if not one.isascii())
    note = f"names in the archive are read as {chosen}, as {example!r}; if that is wrong, say --encoding"
    return read, None if encoding is not None else note


def _said(member: zipfile.ZipInfo) -> str | None:
    """The name, where its encoding is said."""
    if member.flag_bits & _UTF8:
        return member.orig_filename
    extra = member.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        body, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(body) > 5 and body[0] == 1:
            # Of another name than the member has now: a program renamed it that did not know the field.
            if struct.unpack_from("<L", body, 1)[0] != zlib.crc32(member.orig_filename.encode(_AS_READ)):
                return None
            try:
                return body[5:].decode("utf-8")
            except UnicodeDecodeError:
                return None
    return None


def _checked(encoding: str, names: Sequence[bytes], source: Path) -> str:
    try:
        codecs.lookup(encoding)
        for name in names:
            name.decode(encoding)
    except LookupError:
        raise QuickstudyError(
            "no such encoding", where=f"--encoding {encoding}", fix="As gbk, shift_jis, cp1252"
        ) from None
    except UnicodeDecodeError:
        what = f"a name in the archive is not {encoding}"
        raise QuickstudyError(what, where=source, fix="Leave --encoding out, or say another one") from None
    return encoding


def _likeliest(names: Sequence[bytes]) -> str:
    """The encoding under which the bytes of names are likeliest: naive Bayes over characters.

    What is UTF-8 is hardly ever so by chance.
    """

    def likelihood(encoding: str) -> float:
        try:
            texts = [name.decode(encoding) for name in names]
        except UnicodeDecodeError:
            return -math.inf
        return math.log(PRIOR[encoding]) + sum(_log_likelihood(text, encoding) for text in texts)

    try:
        for name in names:
            name.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        return max(PRIOR, key=likelihood)


def _log_likelihood(text: str, encoding: str) -> float:
    logs, before = 0.0, ""
    for character in text:
        script = _script(character)
        logs += math.log(1 / 40 if character.isascii() else _share(character, script, encoding))
        # Within a word the script seldom changes; accented letters are of the Latin script as ASCII's are, and few.
        if before and script and before != script and {before, script} != {"ascii", "latin"}:
            logs += math.log(0.05)
        if before == script == "latin":
            logs += math.log(0.05)
        before = script
    return logs


def _script(character: str) -> str:
    """The script of a letter; "" of what is none."""
    if not character.isalpha():
        return ""
    if character.isascii():
        return "ascii"
    return unicodedata.name(character, "").split(" ")[0].split("-")[0].lower() or "unknown"


def _share(character: str, script: str, encoding: str) -> float:
    """How often, of the characters beyond ASCII in names of an encoding's languages, there is this one, roughly.

    The encodings of several bytes put the characters in common use before the rare ones.
    """
    code = character.encode(encoding)
    if encoding == "gb18030" and script == "cjk":
        common = len(code) == 2 and 0xB0 <= code[0] <= 0xD7 and code[1] >= 0xA1
        return 0.95 / 3755 if common else 0.03 / 20_000
    if encoding == "big5" and script == "cjk":
        return 0.97 / 5401 if code[0] <= 0xC6 else 0.02 / 7652
    if encoding == "shift_jis" and script in ("hiragana", "katakana"):
        return 0.5 / 170
    if encoding == "shift_jis" and script == "cjk":
        return 0.45 / 2965 if code[0] < 0x98 else 0.01 / 3390
    if encoding == "euc_kr" and script == "hangul":
        return 0.97 / 2350
    if (script, encoding) in _LETTERS:
        return (0.8 if character.islower() else 0.15) / _LETTERS[script, encoding]
    return 1e-5


_LETTERS = {
    **{("cyrillic", encoding): 33 for encoding in ("cp1251", "cp866", "koi8_r")},
    **{("latin", encoding): 30 for encoding in ("cp1252", "cp850", _AS_READ)},
}
"""Letters of a language, beyond ASCII, in an encoding of single bytes."""
