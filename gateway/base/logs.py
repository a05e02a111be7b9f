"""Words of others, as they may be shown in a log, a terminal or a status: whatever would move the cursor, change a colour,
turn the direction of the text or begin a line of its own is written out (`\\x1b`, `\\n`), since it may matter what it was;
and what has no end is cut.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from typing import Any, Final, TextIO

MAX_LINE_CHARS: Final = 4096  # characters of one line
SHORT: Final = 500  # of one that is told to somebody: an answer, a report, a status
LINES: Final = 50  # of one message


def plain(text: str, most: int = MAX_LINE_CHARS) -> str:
    """One line of no more characters than this, all of which can be printed."""
    if len(text) <= most and text.isprintable():
        return text
    shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def plain_lines(text: str, most: int = MAX_LINE_CHARS) -> str:
    """Several, where a text has several."""
    if text.isprintable() and len(text) <= most:
        return text
    lines = text.split("\n", LINES)
    return "\n".join([*(plain(line, most) for line in lines[:LINES]), *("…" for _ in lines[LINES:])])


_PARTS: Final = re.compile(r"([^/?#]*//)?([^/?#]*)(.*)", re.DOTALL)


def whereto(url: str) -> str:
    """A URL as it may be shown: users, paths and queries may be keys (RFC 3986 §3.2.1; those of webhooks are)."""
    found = _PARTS.fullmatch(url)
    assert found is not None
    scheme, authority, rest = found.groups()
    _, user, host = authority.rpartition("@")
    return plain(f"{scheme or ''}{'…@' if user else ''}{host}{rest if len(rest) < 2 else '/…'}", SHORT)


class Plainly(logging.Filter):
    """Makes what a logger is given plain, before any handler sees it."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            record.msg, record.args = plain_lines(record.getMessage()), ()
        except Exception as error:  # it does not fit its arguments
            record.msg, record.args = plain(f"{record.msg!r} cannot be said: {error}"), ()
        if record.exc_info:
            record.exc_text = plain_lines(logging.Formatter().formatException(record.exc_info))
        return True


_plainly: Final = Plainly()


def logger(name: str) -> logging.Logger:
    """The logger of a name; what is said to it is plain."""
    found = logging.getLogger(name)
    found.addFilter(_plainly)  # once, however often this is said
    return found


class Plain(io.TextIOBase):
    """A stream to which everything is written plainly, line by line."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text if text.isprintable() else "\n".join(plain(line, sys.maxsize) for line in text.split("\n")))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> Any:  # type: ignore[override]
        return self._stream.encoding


def speak_plainly() -> None:
    """Whatever this process says from now on, on both of its streams."""
    sys.stdout, sys.stderr = Plain(sys.stdout), Plain(sys.stderr)
