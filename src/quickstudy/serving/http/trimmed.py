"""A file without what follows its end.

Decoders read an image or a recording to its end and no further; what lies behind would be kept, exported and handed on
unseen. Where an end cannot be told, as of a file that is damaged, all of it is kept; the quotas count it.
"""

import re
import struct
from collections.abc import Callable

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Of JPEG, within the coded pixels: neither a byte of them nor a restart."""
_GRAPHIC, _EXTENSION, _TRAILER = 0x2C, 0x21, 0x3B
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Of TIFF's types, bytes of a value."""
_PLACES = {273: 279, 324: 325, 513: 514}
"""Of TIFF's tags, those that say where strips, tiles and a JPEG begin, and those that say how long they are."""
_TABLES = (330, 34665, 34853)
"""And those that say where more tables begin."""


def trimmed(data: bytes) -> bytes:
    """Return a file up to its end, all of it where that cannot be told."""
    for start, end_of in _ENDS.items():
        if data.startswith(start):
            try:
                end = end_of(data)
            except (struct.error, IndexError, ValueError):
                return data
            return data[:end] if 0 < end < len(data) else data
    return data


def _png(data: bytes) -> int:
    place = 8
    while place < len(data):
        length, kind = struct.unpack_from(">L4s", data, place)
        place += 12 + length
        if kind == b"IEND":
            return place
    return 0


def _jpeg(data: bytes) -> int:
    place = 2
    while True:
        while data[place + 1] == 0xFF:  # fill
            place += 1
        if data[place] != 0xFF:
            return 0
        marker = data[place + 1]
        if marker == 0xD9:
            return place + 2
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:
            place += 2
            continue
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
        if marker == 0xDA:
            found = _MARKER.search(data, place)
            if found is None:
                return 0
            place = found.start()


def _gif(data: bytes) -> int:
    flags = data[10]
    place = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[place] != _TRAILER:
        if data[place] == _GRAPHIC:
            flags = data[place + 9]
            place += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        elif data[place] == _EXTENSION:
            place += 2
        else:
            return 0
        while data[place]:
            place += 1 + data[place]
        place += 1
    return place + 1


def _riff(data: bytes) -> int:
    """WebP and WAV. A recorder that does not know its length yet says none, or the longest."""
    kind, length = data[8:12], int(struct.unpack_from("<L", data, 4)[0])
    place, end = 12, 8 + length + length % 2
    if kind not in (b"WEBP", b"WAVE") or length < 12 or length >= 0xFFFFFFF0 or end > len(data) + 1:
        return 0
    while place + 8 <= end:  # the pieces fill it, else its length is not to be trusted
        place += 8 + int(struct.unpack_from("<L", data, place + 4)[0])
        place += place % 2
    return end if place in (end, end + 1) else 0


def _bmp(data: bytes) -> int:
    size, start, head = struct.unpack_from("<L4xLL", data, 2)
    if head == 12:
        width, height, bits, packed = *struct.unpack_from("<HH2xH", data, 18), 0
    else:
        width, height, bits, packed = struct.unpack_from("<ll2xHL", data, 18)
    if packed in (1, 2):  # run lengths: only the head says how long it is
        return int(size) if size > start else 0
    return int(start + (abs(width) * bits + 31) // 32 * 4 * abs(height))


def _tiff(data: bytes) -> int:
    order = "<" if data[:2] == b"II" else ">"
    tables, seen, end = [int(struct.unpack_from(f"{order}L", data, 4)[0])], set(), 8
    while tables:
        table = tables.pop()
        if not table or table in seen:
            continue
        seen.add(table)
        count = struct.unpack_from(f"{order}H", data, table)[0]
        end = max(end, table + 2 + 12 * count + 4)
        found: dict[int, tuple[int, ...]] = {}
        for entry in range(table + 2, table + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHL", data, entry)
            length = _SIZES[kind] * values if kind in _SIZES else 0
            place = entry + 8 if length <= 4 else int(struct.unpack_from(f"{order}L", data, entry + 8)[0])
            end = max(end, place + length)
            if tag in _PLACES or tag in _PLACES.values() or tag in _TABLES:
                if kind not in (3, 4, 13) or values > len(data):
                    return 0
                found[tag] = struct.unpack_from(f"{order}{values}{'H' if kind == 3 else 'L'}", data, place)
        for start, length_of in _PLACES.items():
            if start in found:
                if len(found.get(length_of, ())) != len(found[start]):
                    return 0
                end = max(end, *(a + b for a, b in zip(found[start], found[length_of], strict=True)))
        tables += [place for tag in _TABLES for place in found.get(tag, ())]
        tables.append(int(struct.unpack_from(f"{order}L", data, table + 2 + 12 * count)[0]))
    return end


def _ogg(data: bytes) -> int:
    """All streams that have begun have ended: what follows is another file."""
    place, streams = 0, 0
    while data[place : place + 4] == b"OggS":
        flags, segments = data[place + 5], data[place + 26]
        place += 27 + segments + sum(data[place + 27 : place + 27 + segments])
        streams += bool(flags & 2) - bool(flags & 4)
        if not streams:
            return place
    return 0


_ENDS: dict[bytes, Callable[[bytes], int]] = {
    b"\x89PNG\r\n\x1a\n": _png,
    b"\xff\xd8\xff": _jpeg,
    b"GIF87a": _gif,
    b"GIF89a": _gif,
    b"RIFF": _riff,
    b"BM": _bmp,
    b"II*\0": _tiff,
    b"MM\0*": _tiff,
    b"OggS": _ogg,
}
"""By how a file begins, what finds its end; 0 where it cannot."""
