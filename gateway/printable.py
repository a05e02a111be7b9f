"""Text of others, as it may stand in a log, a terminal or a status: on one line, visible, and not without end."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 500


def printable(text: str, most: int = LONGEST) -> str:
    """The text with a space for whatever cannot be seen (controls, line ends, marks of direction), and cut where it is long."""
    short = text[:most]
    if not short.isprintable():
        short = "".join(one if one.isprintable() else " " for one in short)
    return short if len(text) <= most else f"{short}…"
