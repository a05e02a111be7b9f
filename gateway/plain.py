"""Words of others, as they may be shown in a log or a terminal: whatever would move the cursor, change a colour, turn the
direction of the text or begin a line of its own is written out (`\\x1b`, `\\n`): in logs it may matter what it was.
"""

from __future__ import annotations

import io
import logging
import sys
from typing import Any, Final, TextIO

MOST: Final = 4096  # characters of one line
LINES: Final = 50  # of one message


def plain(text: str, most: int = MOST) -> str:
    """One line, in characters that can be printed."""
    if len(text) > most:
        text = text[: most - 1] + "…"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def plain_lines(text: str, most: int = MOST) -> str:
    """Several, where a text has several."""
    if text.isprintable() and len(text) <= most:
        return text
    lines = text.split("\n", LINES)
    return "\n".join([*(plain(line, most) for line in lines[:LINES]), *("…" for _ in lines[LINES:])])


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
