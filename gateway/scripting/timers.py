"""Functions that a filter wants called every so many seconds: from when it comes into force until it is replaced, and once
more then, so that what it has gathered is not lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

Run = Callable[[Callable[[], Any]], Awaitable[None]]  # calls a function and says what went wrong, if anything did
LAST: Final = 2.0  # seconds for the last call


class Timers:
    """The timers of one source."""

    def __init__(self, timers: Sequence[tuple[float, Callable[[], Any]]], run: Run) -> None:
        self._functions = [function for _, function in timers]
        self._run = run
        self._tasks = [asyncio.create_task(self._repeat(seconds, function)) for seconds, function in timers]

    async def _repeat(self, seconds: float, function: Callable[[], Any]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._run(function)

    async def stop(self) -> None:
        """Call each of them for the last time."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(LAST):
                for function in self._functions:
                    await self._run(function)
        except TimeoutError:
            pass
