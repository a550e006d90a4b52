"""The shape of a body of JSON, looked at before it is parsed: a parser takes whatever it gets, and makes much of it.

What bodies have (bodies.py) is flat: a few fields, and a list of as many things as the settings allow. More than that
is refused as soon as it is met, so that a body of a million empty examples costs no more than one that is accepted.
"""

import re

from quickstudy.errors import QuickstudyError

DEPTH = 8
"""Objects and lists within one another; bodies have four."""
FIELDS = 64
"""Of an object."""
LITERAL = 1_000
"""Bytes between two marks: a number, a word, blanks."""
EACH = 32
"""Values that an example may have, on average: its fields, and its tags."""

# Each call takes microseconds, whatever the body: Python does nothing else while a pattern is looked for.
_MARK = re.compile(rb'[^"{}\[\],]{0,%d}+(["{}\[\],])' % LITERAL)
_ESCAPED = re.compile(rb'(?:[^"\\]{1,4096}+|\\.){0,256}+', re.DOTALL)
"""Part of a text that has escaped characters."""


def check_shape(data: bytes, most: int) -> None:
    """Refuse a body that has more than any that is accepted.

    Args:
        most: things of its longest list.

    Raises:
        QuickstudyError: it has too much of something. That it is no JSON the parser tells better.
    """
    counts, lists = [1], [False]  # of each object and list that is open, outermost first, what it has so far
    values, end = 0, 0
    while (mark := _MARK.match(data, end)) is not None:
        end, sign = mark.end(), mark[1]
        if sign == b'"':
            if (end := _end_of_text(data, end)) < 0:
                return
        elif sign == b",":
            counts[-1] += 1
            values += 1
            if counts[-1] > (most if lists[-1] else FIELDS) or values > EACH * most:
                raise _too_many(counts[-1], lists[-1], most)
        elif sign in b"{[":
            if len(counts) > DEPTH:
                raise QuickstudyError(f"lies more than {DEPTH} levels deep", where="the body")
            counts.append(1)
            lists.append(sign == b"[")
        elif len(counts) > 1:
            counts.pop()
            lists.pop()
        else:
            return
    if len(data) - end > LITERAL:
        raise QuickstudyError(f"more than {LITERAL} bytes of one number, word or blank", where="the body")


def _end_of_text(data: bytes, begin: int) -> int:
    """Where a text ends that begins here, behind its quotation mark; -1 where it does not."""
    end = data.find(b'"', begin)
    if end < 0 or data.find(b"\\", begin, end) < 0:
        return end + 1 if end >= 0 else -1
    while begin < len(data) and data[begin] != 0x22:
        part = _ESCAPED.match(data, begin)
        if part is None or part.end() == begin:
            return -1
        begin = part.end()
    return begin + 1 if begin < len(data) else -1


def _too_many(count: int, of_list: bool, most: int) -> QuickstudyError:
    if of_list and count > most:
        what = f"a list of more than the {most} allowed"
    elif not of_list and count > FIELDS:
        what = f"an object of more than {FIELDS} fields"
    else:
        what = f"more than {EACH * most} values"
    return QuickstudyError(what, where="the body")
