"""Filters that take part in exchanges, as the request path knows them: names that outlive their code.

A rule names a program; what the program runs can be swapped at any time. An exchange takes the code that is in force
when it begins and keeps it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter as Tally
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final, TypeAlias

from gateway.base.logs import plain
from gateway.filters.api.filter_metrics import Measures, Room
from gateway.scripting.hooks import Hooks
from gateway.scripting.loader import Code, blame
from gateway.scripting.watchdog import StalledError, Watched, watch

log = logging.getLogger("fsm.filters")
SLOW: Final = 0.05  # seconds on the loop that are too long
OFTEN: Final = 8  # such calls, after which a filter must leave the loop
LINES: Final = 20  # of the log, a second, about its failures
WORDS: Final = 1000  # characters of one
FORGIVEN: Final = 60.0  # seconds between two of them, after which they are not counted together


ActiveFilter: TypeAlias = "tuple[FilterProgram, Hooks]"  # a filter, with the code that was in force when its work began


class StuckError(Exception):
    """A filter had to be interrupted."""


class FilterProgram:
    """A name, and the code that is in force."""

    __slots__ = (
        "_last_slow",
        "_lines",
        "_said",
        "_since",
        "_streak",
        "calls",
        "failures",
        "hooks",
        "last_failure",
        "measures",
        "name",
        "overdue",
        "passes",
        "patience",
        "slow",
    )

    def __init__(self, name: str, room: Room | None = None) -> None:
        self.name = name
        self.hooks: Hooks | None = None  # None: it has never been good
        self.passes = False  # where it fails, the request goes on
        self.patience = 1.0  # seconds to wait for what it does later
        self.calls = 0
        self.failures = 0
        self.slow = 0
        self.last_failure = ""
        self.measures = Measures(name, room)
        self.overdue: Callable[[], None] = lambda: None  # called where it keeps everybody waiting
        self._streak = 0  # slow calls that are counted together
        self._last_slow = 0.0
        self._said: Tally[str] = Tally()
        self._since = 0.0
        self._lines = 0

    def failed(self, error: BaseException, hooks: Hooks) -> None:
        """Count a failure, and say it: the first time, the second, the fourth, the eighth…"""
        self.failures += 1
        words = plain(self._blamed(error, hooks), WORDS)
        self.last_failure = words
        self._said[words] += 1
        times = self._said[words]
        if len(self._said) > 100:
            self._said.clear()
        if times & (times - 1) == 0 and self._may_say():
            log.error("filter %s, %s%s", self.name, words, f" ({times} times)" if times > 1 else "")

    def _may_say(self) -> bool:
        """Failures that are all different are no reason to fill a log."""
        now = monotonic()
        if now - self._since > 1:
            self._since, self._lines = now, 0
        self._lines += 1
        return self._lines <= LINES

    def _blamed(self, error: BaseException, hooks: Hooks) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self.patience:g} s"
        if not isinstance(hooks, Code):
            return str(error)
        line, words = blame(error, hooks.file)
        return f"line {line}: {words}" if line else words

    def call(self, hook: Any, *arguments: Any) -> Any:
        """Call a function of the filter on the loop, watched and counted. Raises what it raises, or StuckError."""
        watch.running = since = monotonic()
        try:
            return hook(*arguments)
        except StalledError as error:
            watch.running = None
            raise self._stuck(error) from None
        finally:
            watch.running = None
            self.calls += 1
            if monotonic() - since > SLOW:
                self._note_slow(monotonic() - since)

    def _stuck(self, error: StalledError) -> StuckError:
        self.overdue()
        return StuckError("it did not come back, and was interrupted here").with_traceback(error.__traceback__)

    def _note_slow(self, seconds: float) -> None:
        self.slow += 1
        if self.slow & (self.slow - 1) == 0:
            log.warning(
                "filter %s kept everybody waiting for %.0f ms (%d times); execution: process would not",
                self.name, seconds * 1000, self.slow,
            )  # fmt: skip
        now = monotonic()
        self._streak = 1 if now - self._last_slow > FORGIVEN else self._streak + 1
        self._last_slow = now
        if self._streak >= OFTEN:
            self._streak = 0
            self.overdue()

    async def run(self, function: Callable[[], Any], hooks: Hooks) -> None:
        """Call something that nobody waits for, such as a timer's function; failures are counted and said."""
        try:
            result = self.call(function)
            if inspect.isawaitable(result):
                await self.settle(result)
        except Exception as error:
            self.failed(error, hooks)

    async def settle(self, later: Awaitable[Any]) -> Any:
        """What a filter does later, watched as well, for as long as it may take. Raises TimeoutError, StuckError."""
        try:
            async with asyncio.timeout(self.patience):
                return await Watched(later)
        except StalledError as error:
            raise self._stuck(error) from None
