"""What is done in one turn of the loop, and what waits for the next ones, so that nobody else waits long.

Connections that have sent more than is read at once go on one after another, one each turn (`Turns`): however many are kept
busy by their clients, what everybody else waits for is one of them. Those from which much is read stand in the same queue once
a turn has had its share of that. Connections to backends are begun one each turn (`Starts`): a client may ask for a hundred.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

SECONDS: Final = 0.0001  # of work for one connection, after which others have theirs
MUCH: Final = 1 << 14  # octets that are more than a small message


class Turns:
    """The turns of a worker's loop. One for all connections of a worker."""

    OCTETS: Final = 1 << 16  # a turn's share of what comes in large pieces: whoever has read so much lets others go on
    CROWD: Final = 16  # connections in the queue: where there are so many, every large piece ends its connection's turn

    __slots__ = ("_octets", "_waiting", "starts")

    def __init__(self) -> None:
        self.starts = Starts()
        self._octets = 0  # that came in large pieces in this turn
        self._waiting: deque[tuple[Callable[[], None], asyncio.Transport]] = deque()

    def is_due(self, octets: int) -> bool:
        """Count what was read in one piece: whether others are due now, and who read it should wait."""
        if octets < MUCH:
            return False
        if not self._octets:
            asyncio.get_running_loop().call_soon(self._forget)
        self._octets += octets
        return self._octets > self.OCTETS or self.is_crowded

    @property
    def is_crowded(self) -> bool:
        """Whether so many wait that whoever has much to be read waits with them."""
        return len(self._waiting) >= self.CROWD

    def _forget(self) -> None:
        self._octets = 0

    def wait(self, go_on: Callable[[], None], transport: asyncio.Transport) -> None:
        """Call `go_on` when it is its turn; what it raises ends the connection, as it does where the loop calls."""
        self._waiting.append((go_on, transport))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        go_on, transport = self._waiting[0]
        try:
            go_on()  # which may wait again, behind all others
        except BaseException:
            transport.abort()
            raise
        finally:
            self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._next)


class Starts:
    """So many are begun at once, the others in the turns of the loop that follow, in order."""

    A_TURN: Final = 1  # each is a task and system calls, and as much again once it is there

    __slots__ = ("_begun", "_waiting")

    def __init__(self) -> None:
        self._begun = 0  # in this turn
        self._waiting: deque[Callable[[], None]] = deque()

    def begin(self, start: Callable[[], None]) -> None:
        """Call `start` now, or as soon as it is its turn."""
        if self._begun >= self.A_TURN:
            self._waiting.append(start)
            return
        if not self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        self._begun += 1
        start()

    def _next_turn(self) -> None:
        self._begun = min(len(self._waiting), self.A_TURN)
        if self._begun:
            asyncio.get_running_loop().call_soon(self._next_turn)
        for _ in range(self._begun):
            self._waiting.popleft()()
