"""Words of others, as they may be shown in a log, a terminal or a status: whatever would move the cursor, change a colour,
turn the direction of the text or begin a line of its own is written out (`\\x1b`, `\\n`), since it may matter what it was;
and what has no end is cut.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final, TextIO

MAX_LINE_CHARS: Final = 4096  # characters of one line
SHORT: Final = 500  # of one that is told to somebody: an answer, a report, a status
LINES: Final = 50  # of one message
LINES_A_SECOND: Final = 100  # that are taken of one who may say what it likes
CHARACTERS_A_SECOND: Final = 1 << 16
FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"


def plain(text: str, most: int = MAX_LINE_CHARS) -> str:
    """One line of no more characters than this, all of which can be printed."""
    if len(text) <= most and text.isprintable():
        return text
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text[: most + 1]
    )
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
    match = _PARTS.fullmatch(url)
    assert match is not None
    scheme, authority, rest = match.groups()
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
    plain_logger = logging.getLogger(name)
    plain_logger.addFilter(_plainly)  # once, however often this is said
    return plain_logger


class LineAllowance:
    """How much is taken of somebody's words in a second; `left_out` is told how many lines there were besides."""

    def __init__(self, left_out: Callable[[int], None]) -> None:
        self._left_out = left_out
        self._since = 0.0
        self._lines = 0
        self._characters = 0
        self._over = 0
        self._later: asyncio.TimerHandle | None = None

    def takes(self, text: str) -> bool:
        """Whether there is room for a text."""
        now = monotonic()
        if now - self._since > 1:
            self._since, self._lines, self._characters = now, 0, 0
            self._tell()
        lines = 1 + text.count("\n")
        self._lines += lines
        self._characters += len(text)
        if self._lines <= LINES_A_SECOND and self._characters <= CHARACTERS_A_SECOND:
            return True
        self._over += lines
        if self._later is None:
            with suppress(RuntimeError):  # there is no loop here: it is told when there is more to say
                self._later = asyncio.get_running_loop().call_later(1, self._tell)
        return False

    def _tell(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        over, self._over = self._over, 0
        if over:
            self._left_out(over)


class Bounded(logging.Filter):
    """Keeps each logger from filling a log."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler
        self._allowances: dict[str, LineAllowance] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "is_of_ours", False):
            return True
        name = record.name
        if name not in self._allowances:
            self._allowances[name] = LineAllowance(lambda over: self._say(name, over))
        return self._allowances[name].takes(record.getMessage())

    def _say(self, name: str, over: int) -> None:
        said = logging.LogRecord(name, logging.WARNING, __file__, 0, LEFT_OUT, (over,), None)
        said.is_of_ours = True
        self._handler.handle(said)


LEFT_OUT: Final = f"%d more lines were left out: {LINES_A_SECOND} lines and {CHARACTERS_A_SECOND >> 10} KiB a second are taken"


class Printed(io.TextIOBase):
    """What is printed, line by line."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._begun = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._say(line)
        self._begun = self._begun[-MAX_LINE_CHARS:]
        return len(text)


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
