"""One task for each object that has work, which tries again until it is done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from controller.kubernetes.api import ApiError

KeyT = TypeVar("KeyT")
FIRST_RETRY: Final = 0.2  # seconds, and twice as many each time
MAX_RETRY: Final = 30.0


class Upkeep(Generic[KeyT]):
    """Runs `work` for keys while `leading`. It brings what is there to what is wanted, and is run again where it is asked for
    meanwhile. `words`: what a key is about."""

    def __init__(self, work: Callable[[KeyT], Awaitable[None]], words: Callable[[KeyT], str], log: logging.Logger) -> None:
        self._work = work
        self._words = words
        self._log = log
        self._tasks: dict[KeyT, asyncio.Task[None]] = {}
        self._again: set[KeyT] = set()
        self.leading = False

    def start(self, key: KeyT) -> None:
        """There is work."""
        if not self.leading:
            return
        if key in self._tasks:
            self._again.add(key)
            return
        self._tasks[key] = asyncio.create_task(self._run(key))

    async def stop(self) -> None:
        """End what is under way."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, key: KeyT) -> None:
        delay = FIRST_RETRY
        try:
            while True:
                self._again.discard(key)
                pause = delay
                try:
                    await self._work(key)
                except ApiError as error:
                    self._log.warning("%s: %s", self._words(key), error)
                    pause = error.retry_after or delay
                except Exception:  # of our own: it stays this object's
                    self._log.exception(self._words(key))
                else:
                    delay = FIRST_RETRY
                    if key not in self._again:
                        return
                    continue
                await asyncio.sleep(pause)
                delay = min(2 * delay, MAX_RETRY)
        finally:
            self._tasks.pop(key, None)
