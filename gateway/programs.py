"""Filters that take part in exchanges, as the request path knows them: names that outlive their code.

A rule names a program; what the program runs can be swapped at any time. An exchange takes the code that is in force
when it begins and keeps it.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from time import monotonic
from typing import Any, Final, Protocol

from gateway.filters import api
from gateway.script import Code, blame

log = logging.getLogger("fsm.filters")
SLOW: Final = 0.05  # seconds on the loop that are too long


class Hooks(Protocol):
    """The functions of a filter; None for a moment that it does not take part in. Each may answer at once or later."""

    @property
    def request(self) -> Any: ...
    @property
    def request_body(self) -> Any: ...
    @property
    def response(self) -> Any: ...
    @property
    def response_body(self) -> Any: ...
    @property
    def log(self) -> Any: ...
    @property
    def is_quick(self) -> bool:
        """Whether all that it does is one plain function of the request."""

    def acquire(self) -> None:
        """An exchange keeps to this from now on."""

    def release(self, request: api.Request) -> None:
        """An exchange is over."""


class Program:
    """A name, and the code that is in force."""

    __slots__ = ("_said", "calls", "failures", "fault", "hooks", "last_failure", "name", "passes", "patience", "slow")

    def __init__(self, name: str) -> None:
        self.name = name
        self.hooks: Hooks | None = None  # None: it has never been good
        self.passes = False  # where it fails, the request goes on
        self.patience = 1.0  # seconds to wait for what it does later
        self.fault = "its source has not come"
        self.calls = 0
        self.failures = 0
        self.slow = 0
        self.last_failure = ""
        self._said: Tally[str] = Tally()

    def failed(self, error: BaseException, hooks: Hooks) -> None:
        """Count a failure, and say it: the first time, the second, the fourth, the eighth…"""
        self.failures += 1
        words = self._blamed(error, hooks)
        self.last_failure = words
        self._said[words] += 1
        times = self._said[words]
        if len(self._said) > 100:
            self._said.clear()
        if times & (times - 1) == 0:
            log.error("filter %s, %s%s", self.name, words, f" ({times} times)" if times > 1 else "")

    def _blamed(self, error: BaseException, hooks: Hooks) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self.patience:g} s"
        if not isinstance(hooks, Code):
            return str(error)
        line, words = blame(error, hooks.file)
        return f"line {line}: {words}" if line else words

    def took(self, since: float) -> None:
        """Count a call on the loop that began at `since`."""
        self.calls += 1
        seconds = monotonic() - since
        if seconds > SLOW:
            self.slow += 1
            if self.slow & (self.slow - 1) == 0:
                log.warning(
                    "filter %s kept everybody waiting for %.0f ms (%d times); execution: process would not",
                    self.name, seconds * 1000, self.slow,
                )  # fmt: skip
