"""Which encoding a text file is in, and its lines decoded.

UTF-8 unless the file says otherwise: by a mark at its beginning, by bytes that are none, or by ``--encoding``. Which of
the older encodings it is then, the letters tell: of all that can decode the file the one is taken whose characters are
those of one language. (charset-normalizer, which comes with requests, took seven of nineteen short tables in usual
encodings for another one, Japanese for Korean and CP1252 for CP1250.) It is told in a note, as it is a guess.
"""

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from quickstudy.errors import QuickstudyError
from quickstudy.ingest.importers.archives import MAX_TOTAL

MAX_LINE = 16 << 20  # characters
_BLOCK = 1 << 20
_SAMPLE = 256 << 10  # bytes that an encoding is told from
UTF8 = "utf-8"


@dataclass(frozen=True)
class Encoding:
    """Of a file."""

    name: str
    guessed: bool = False
    """Whether nobody said it: neither a person nor the file."""


# Bytes that are no characters become halves of surrogate pairs, which no text may hold; so one bad byte costs the row
# that it is in (`half`) and not the file. "surrogateescape" knows bytes from 128 on alone, and UTF-16 has others too.
def _bad_bytes(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error("quickstudy-bad-bytes", _bad_bytes)

_HALF = re.compile("[\ud800-\udfff]")
# A pair of halves of which each was written as three bytes (CESU-8), as Java and MySQL do.
_CESU = re.compile("\udced([\udca0-\udcaf])([\udc80-\udcbf])\udced([\udcb0-\udcbf])([\udc80-\udcbf])")


def half(text: str, encoding: str = UTF8) -> str | None:
    """Return what is wrong with a text that holds half a character, or a byte that is none; None where it holds none.

    Such a text can be neither written nor printed.

    Args:
        text: as it was decoded.
        encoding: that it was decoded from.
    """
    if text.isascii() or (found := _HALF.search(text)) is None:
        return None
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:
        byte = f"not {encoding.upper()} (byte {code - 0xDC00:#04x})"
        return f"is {byte}; if it is in another encoding, say which by --encoding"
    return f"holds half a character (\\u{code:04x})"


def check_whole(value: object, field: str, encoding: str = UTF8) -> None:
    """Raise QuickstudyError where a text, or one in a list, holds half a character; ``field`` is what holds it."""
    if isinstance(value, str) and value.isascii():  # nearly all
        return
    for one in value if isinstance(value, list | tuple) else (value,):
        if isinstance(one, str) and (wrong := half(one, encoding)) is not None:
            raise QuickstudyError(f"the {field} {wrong}")


def decoded_lines(
    handle: BinaryIO,
    place: str,
    encoding: Encoding,
    universal: bool = True,
    skipped: int = 0,
    longest: int = MAX_LINE,
    most: int = MAX_TOTAL,
) -> Iterator[str]:
    """The lines of a text file with their ends.

    Args:
        handle: at any place of the file.
        place: the file, for the error.
        encoding: of the file.
        universal: whether a carriage return ends a line too; else only where the file has no other end of a line.
        skipped: lines at the beginning that are left out.
        longest: characters of a line.
        most: characters of all lines.
    """
    handle.seek(0)
    if not universal and encoding.name == UTF8 and not _has_line_feed(handle):
        universal = True
    handle.seek(0)
    name = "utf-8-sig" if encoding.name == UTF8 else encoding.name
    text = io.TextIOWrapper(handle, name, "quickstudy-bad-bytes", newline="" if universal else "\n")
    try:
        number = total = 0
        while line := text.readline(longest + 1):
            number += 1
            total += len(line)
            if total > most:
                raise QuickstudyError(f"holds more than {most >> 20} MB", where=place, fix="Import a part of it")
            if len(line) > longest:
                raise QuickstudyError(f"line {number} is longer than {longest >> 20} MB", where=place)
            if number == 1:
                line = line.removeprefix("\ufeff")  # of UTF-16 whose order somebody said
            if number > skipped:
                yield line if line.isascii() else _CESU.sub(_whole, line)
    finally:
        if not handle.closed:
            text.detach()  # whoever opened it closes it


def _whole(halves: re.Match[str]) -> str:
    a, b, c, d = (ord(part) - 0xDC00 for part in halves.groups())
    return chr(0x10000 + ((((a & 0x0F) << 6) | (b & 0x3F)) << 10) + (((c & 0x0F) << 6) | (d & 0x3F)))


def _has_line_feed(handle: BinaryIO) -> bool:
    return any(b"\n" in block for block in _blocks(handle))


def _blocks(handle: BinaryIO) -> Iterator[bytes]:
    while block := handle.read(_BLOCK):
        yield block


def decode(data: bytes, encoding: Encoding) -> str:
    """Return all of a text."""
    text = data.decode("utf-8-sig" if encoding.name == UTF8 else encoding.name, "quickstudy-bad-bytes")
    return text if text.isascii() else _CESU.sub(_whole, text)


# Which it is


def said_encoding(name: str | None) -> Encoding | None:
    """Return the encoding of that name.

    Raises:
        QuickstudyError: there is none.
    """
    if name is None:
        return None
    try:
        "".encode(name)
        known = codecs.lookup(name).name
    except (LookupError, ValueError, UnicodeError):
        fix = "Usual ones are utf-8, utf-16, cp1252, cp1251, shift_jis, gb18030, big5, euc-kr"
        raise QuickstudyError(f"no encoding {name!r}", where="--encoding", fix=fix) from None
    return Encoding(known)


_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(handle: BinaryIO, said: str | None = None) -> Encoding:
    """Return which encoding a text file is in.

    Args:
        handle: of the file; it is read to its end where need be.
        said: by a person; None to tell it from the file.

    Raises:
        QuickstudyError: there is no encoding of that name.
    """
    if (known := said_encoding(said)) is not None:
        return known
    handle.seek(0)
    head = handle.read(4096)
    if (marked := next((name for mark, name in _MARKS if head.startswith(mark)), None)) is not None:
        return Encoding(marked)
    if (unmarked := _utf16(head)) is not None:
        return Encoding(unmarked, guessed=True)
    handle.seek(0)
    return told_encoding(_blocks(handle))


def told_encoding(blocks: Iterator[bytes]) -> Encoding:
    """Return the encoding that bytes are in, in the order of a file, by their characters.

    A single bad byte makes no other encoding: it is a mistake, and its row says so. Nor do a few in a file that else is
    UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    good = bad = 0
    sample: list[bytes] = []
    size = 0
    for block in blocks:
        if block.isascii():
            decoder.reset()
            continue
        text = decoder.decode(block)
        others = len(text) - len(text.encode("ascii", "ignore"))
        wrong = len(_HALF.findall(text)) if others else 0
        wrong -= 6 * len(_CESU.findall(text)) if wrong else 0
        good, bad = good + others - wrong, bad + wrong
        if wrong and size < _SAMPLE:
            lines = [line for line in re.split(rb"[\r\n]+", block) if not line.isascii()]
            for line in islice(lines, 4000):
                sample.append(line[:4000])
                size += len(sample[-1])
    if bad < 2 or (good and not (bad >= 20 and bad > 1.5 * good)):
        return Encoding(UTF8)
    return Encoding(_likeliest(b"\n".join(sample)[:_SAMPLE]) or UTF8, guessed=True)


def _utf16(head: bytes) -> str | None:
    """UTF-16 without a mark, of a language of letters: every other byte is 0."""
    if len(head) < 8 or b"\0" not in head:
        return None
    pairs = len(head) // 2
    even, odd = head[0::2].count(0) / pairs, head[1::2].count(0) / pairs
    return "utf-16-le" if odd > 0.5 and even < 0.1 else "utf-16-be" if even > 0.5 and odd < 0.1 else None


_TYPE = "–—‘’“”„‚…•·«»‹›€£¥§°©®™ºª¡¿½¼¾²³¹×±µ¶ \xad"
_WEST = ("àâæçéèêëîïôœùûüÿ", "äöüß", "áéíñóúü", "áâãàçéêíóôõú", "àèéìíòóù", "æøåäöé", "ëïéèüöáó", "áéíóúðþýæö")
_ALPHABETS: dict[str, tuple[str, ...]] = {
    "cp1252": _WEST,
    "cp1250": ("áčďéěíňóřšťúůýž", "ąćęłńóśźż", "áéíóöőúüű", "ăâîşţ", "čćđšž", "áäčďéíĺľňóôŕšťúýž"),
    # Before Russian, whose last letters it has not; what is Hebrew could be Russian.
    "cp1255": ("אבגדהוזחטיךכלםמןנסעףפץצקרשת",),
    "cp1251": ("абвгдежзийклмнопрстуфхцчшщъыьэюяё", "абвгґдеєжзиіїйклмнопрстуфхцчшщьюя"),
    "koi8-r": ("абвгдежзийклмнопрстуфхцчшщъыьэюяё",),
    "cp1253": ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋΐΰ",),
    "cp1254": ("çğıöşüâîû",),
    "cp1256": ("ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىيًٌٍَُِّْپچژگ،؛؟",),
    "cp1257": ("āčēģīķļņšūž", "ąčęėįšųūž", "äõöüšž"),
    "cp1258": ("ăâđêôơư",),
    "mac-roman": _WEST,
    "cp850": _WEST,
    "cp866": ("абвгдежзийклмнопрстуфхцчшщъыьэюяё",),
}
_LATIN = frozenset({"cp1252", "cp1250", "cp1254", "cp1257", "cp1258", "mac-roman", "cp850"})
_SCRIPTS = ("cp932", "euc-jp", "cp949", "gb18030", "big5")
"""Encodings of two bytes a character, which single bytes are rarely taken for."""


def _likeliest(sample: bytes) -> str:
    scored = [(_script_score(sample, name), name) for name in _SCRIPTS]
    scored += [(_letter_score(sample, name), name) for name in _ALPHABETS]
    best, name = max(scored, key=lambda one: one[0])  # of equal ones the first
    return name if best > 0 else "cp1252"


def _letter_score(sample: bytes, name: str) -> float:
    """The share of its characters that are letters of one language, or signs where signs may be."""
    try:
        text = sample.decode(name)
    except UnicodeDecodeError:
        return -1.0
    places = [place for place, character in enumerate(text) if ord(character) > 127]
    letters: list[str] = []
    score = 0.0
    for place in places:
        character = text[place]
        before, after = text[place - 1 : place], text[place + 1 : place + 2]
        if character.isalpha() and character not in "ºªµ":
            # Within a word a capital does not follow a small letter, nor one script another.
            score -= character.isupper() and before.islower()
            if name not in _LATIN:
                score -= (before.isascii() and before.isalpha()) or (after.isascii() and after.isalpha())
                score -= 0.2 * character.isupper()
            letters.append(character.lower())
        elif character in _TYPE:
            inside = before.isalpha() and after.isalpha()
            score += 1.0 if not inside or character in "’\xad·" else -1.0
        else:
            score -= 1.0
    share = max(sum(map(alphabet.__contains__, letters)) for alphabet in _ALPHABETS[name])
    every = 0.9 * sum(map(frozenset("".join(_ALPHABETS[name])).__contains__, letters))
    return (score + max(share, every)) / max(1, len(places))


def _script_score(sample: bytes, name: str) -> float:
    """The share of its characters that are common ones of the script."""
    text = sample.decode(name, "replace")
    characters = [character for character in text if ord(character) > 127]
    if not characters or text.count("\ufffd") > 0.01 * len(characters) + 1:  # the sample may end within one
        return -1.0
    score, kana = 0.0, 0
    # A character of these scripts does not stand within a word of letters.
    score -= len(re.findall(r"[a-z][^\x00-\x7f][a-z]", text))
    for character in characters:
        code = ord(character)
        if 0x3040 <= code <= 0x30FF:
            kana += 1
            score += name in ("cp932", "euc-jp")
        elif 0x3000 <= code <= 0x303F or 0xFF01 <= code <= 0xFF5E:
            score += 1
        elif 0xAC00 <= code <= 0xD7A3:
            score += 1.0 if name == "cp949" and _row(character, "euc-kr") <= 0xC8 else -0.5
        elif 0x4E00 <= code <= 0x9FFF:
            if name == "gb18030":
                score += 1.0 if _row(character, "gb2312") <= 0xD7 else 0.3
            elif name == "big5":
                score += 1.0 if 0xA4 <= _row(character, "big5") <= 0xC6 else 0.3
            else:
                score += name in ("cp932", "euc-jp")
        elif character not in "、。「」…—“”·":
            score -= 0.5
    if name in ("cp932", "euc-jp") and kana < 0.1 * len(characters):
        return -1.0
    return score / len(characters)


def _row(character: str, name: str) -> int:
    """The first byte of a character, which the tables of these encodings put the common ones low in."""
    try:
        return character.encode(name)[0]
    except UnicodeEncodeError:
        return 0xFF
