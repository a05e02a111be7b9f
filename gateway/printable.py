"""Text of others, as it may stand in a log, a terminal or a status: on one line, visible, and not without end."""

from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 500


def printable(text: str, most: int = LONGEST) -> str:
    """The text with a space for whatever cannot be seen (controls, line ends, marks of direction), and cut where it is long."""
    short = text[:most]
    if not short.isprintable():
        short = "".join(one if one.isprintable() else " " for one in short)
    return short if len(text) <= most else f"{short}…"


_PARTS: Final = re.compile(r"([^/?#]*//)?([^/?#]*)(.*)", re.DOTALL)


def whereto(url: str) -> str:
    """A URL as it may be shown: users, paths and queries may be keys (RFC 3986 §3.2.1; those of webhooks are)."""
    found = _PARTS.fullmatch(url)
    assert found is not None
    scheme, authority, rest = found.groups()
    _, user, host = authority.rpartition("@")
    return printable(f"{scheme or ''}{'…@' if user else ''}{host}{rest if len(rest) < 2 else '/…'}")
