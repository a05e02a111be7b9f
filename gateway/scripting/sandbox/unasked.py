"""What a filter's process says unasked: its log, what it prints, and what it measured; never more than its worker hears."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from gateway.base.logs import LEFT_OUT, LineAllowance
from gateway.filters.api.filter_metrics import Labels, Measured
from gateway.scripting.sandbox.messages import AT_ONCE, WORDS, FromCell, Measure, Said

GATHERING: Final = 0.05  # seconds that what was measured is added up before it is told
GATHERED: Final = 1 << 18  # octets of it, about, at most


class Log:
    """What is said, as lines: as many as are no flood, and how many more there were."""

    def __init__(self, send: Callable[[FromCell], None]) -> None:
        self._send = send
        self._allowance = LineAllowance(lambda over: send(Said(logging.WARNING, LEFT_OUT % over)))

    def say(self, level: int, text: str) -> None:
        """One line."""
        if self._allowance.takes(text):
            words = text[:WORDS].encode("utf-8", "backslashreplace").decode()  # surrogates are no text
            self._send(Said(min(max(level, 0), 100), words[:WORDS]))


class LogHandler(logging.Handler):
    """Sends what is logged to the worker."""

    def __init__(self, say: Callable[[int, str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.levelno, self.format(record))


class Gathered:
    """What was measured, added up for a moment: a message each time would cost the worker more than the request."""

    def __init__(self, send: Callable[[FromCell], None]) -> None:
        self._send = send
        self._numbers: dict[tuple[str, str, Labels], Measured] = {}
        self._durations: list[Measured] = []
        self._octets = 0
        self._later: asyncio.TimerHandle | None = None

    def take(self, measured: Measured) -> None:
        """Count it in."""
        key = measured.kind, measured.name, measured.labels
        known = self._numbers.get(key)
        if known is not None:
            known.value = known.value + measured.value if measured.kind == "counter" else measured.value
            return
        if measured.kind == "histogram":
            self._durations.append(measured)
        else:
            self._numbers[key] = measured
        self._octets += 50 + len(measured.name) + 4 * sum(len(name) + len(value) for name, value in measured.labels)
        if len(self._numbers) + len(self._durations) >= AT_ONCE or self._octets > GATHERED:
            self.send()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(GATHERING, self.send)

    def send(self) -> None:
        """Tell the worker."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        measured = (*self._numbers.values(), *self._durations)
        self._numbers.clear()
        self._durations.clear()
        self._octets = 0
        if measured:
            self._send(Measure(measured))
