"""JSON taken apart without being read: the members of an object, the elements of a list, each as the bytes that it is.

Decoders go into depth, and give up at some depth: then one object that is nested too deeply would hide the list that it is
in. This goes through the bytes once, and keeps no more than a number of how deep it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_MARKS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]', re.DOTALL)


def members(data: bytes) -> dict[str, bytes]:
    """The members of an object, by name. Nothing is checked that was not asked for; what is no object has none."""
    result: dict[str, bytes] = {}
    for piece, name in _pieces(data, b"{"):
        if name is not None:
            result[name] = piece
    return result


def elements(data: bytes) -> list[bytes]:
    """The elements of a list; what is no list has none."""
    return [piece for piece, _ in _pieces(data, b"[") if piece]


def _pieces(data: bytes, opening: bytes) -> Iterator[tuple[bytes, str | None]]:
    data = bytes(data).strip()
    if not data.startswith(opening):
        return
    depth, start, name = 0, 1, None
    last: bytes = b""
    for mark in _MARKS.finditer(data):
        token = mark.group()
        if token in b"[{" and len(token) == 1:
            depth += 1
        elif token in b"]}" and len(token) == 1:
            depth -= 1
            if depth == 0:
                yield data[start : mark.start()].strip(), name
                return
        elif depth == 1 and token == b":" and name is None and opening == b"{":
            name, start = last[1:-1].decode(errors="replace"), mark.end()
        elif depth == 1 and token == b",":
            yield data[start : mark.start()].strip(), name
            start, name = mark.end(), None
        else:
            last = token
