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

_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["{}\[\],]', re.DOTALL)


def check_shape(data: bytes, most: int) -> None:
    """Refuse a body that has more than any that is accepted.

    Args:
        most: things of its longest list.

    Raises:
        QuickstudyError: it has too much of something. That it is no JSON the parser tells better.
    """
    counts, lists = [1], [False]  # of each object and list that is open, outermost first, what it has so far
    values, end = 0, 0
    for mark in _MARK.finditer(data):
        begin = mark.start()
        if begin - end > LITERAL:
            break
        end, sign = mark.end(), data[begin]
        if sign == 0x22:
            if end - begin == 1:  # a text that does not end
                return
        elif sign == 0x2C:
            counts[-1] += 1
            values += 1
            _check(counts[-1], lists[-1], values, most)
        elif sign in b"{[":
            if len(counts) > DEPTH:
                raise QuickstudyError(f"lies more than {DEPTH} levels deep", where="the body")
            counts.append(1)
            lists.append(sign == 0x5B)
        elif len(counts) > 1:
            counts.pop()
            lists.pop()
        else:
            return
    if len(data) - end > LITERAL:
        raise QuickstudyError(f"more than {LITERAL} bytes of one number, word or blank", where="the body")


def _check(count: int, of_list: bool, values: int, most: int) -> None:
    if not of_list and count > FIELDS:
        raise QuickstudyError(f"an object of more than {FIELDS} fields", where="the body")
    if of_list and count > most:
        raise QuickstudyError(f"a list of more than the {most} allowed", where="the body")
    if values > EACH * most:
        raise QuickstudyError(f"more than {EACH * most} values", where="the body")
