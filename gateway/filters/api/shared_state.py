"""What filters share: counts, turns and values that are one for all workers of a data plane, or for all replicas of it.

    from gateway.filters.api import shared

    async def request(request):
        wait = await shared.take(request.connection.address, requests=10, interval=1)
        if wait is None:
            return Response(429)

Keys are the filter's own. Where a store is named (`spec.store`), everything is kept in that Redis or Valkey.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Annotated, Any, Final, Literal, Protocol, TypeAlias

import msgspec

KEY: Final = 1 << 16  # characters
Amount: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e18, le=1e18)]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=-1e9, le=1e9)]
Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]


class Operation(msgspec.Struct, array_like=True, tag=True, forbid_unknown_fields=True):
    """Something to be done where it is shared."""

    kind: Literal["add", "count", "take", "hold", "release", "get", "set", "drop"]
    key: Annotated[str, msgspec.Meta(max_length=KEY)]
    amount: Amount = 0.0  # to add; of take: seconds from one turn to the next
    seconds: Seconds = 0.0  # that it is kept
    burst: Count = 0
    backlog: Count = 0
    value: bytes = b""
    units: Count = 1  # turns that are taken together

    @property
    def pace(self) -> bytes:
        """Part of the key of turns: a limit that was edited begins anew, rather than owe what another one granted."""
        return b"%b/%d" % (f"{self.amount:g}".encode(), self.burst)


class SharedAnswer(Protocol):
    """What comes of it, now (`done()`) or later; await it either way."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def __await__(self) -> Generator[Any, Any, Any]: ...


class Known:
    """An answer that is there already."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def done(self) -> bool:
        """Always true: the answer is there."""
        return True

    def result(self) -> Any:
        """The answer."""
        return self._value

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._value
        yield


class Shared:
    """What filters share over all workers, or over all replicas.

    Whatever is asked of a store that cannot be reached raises OSError, soon.
    """

    def __init__(self, do: Callable[[Operation], SharedAnswer]) -> None:
        self._do = do

    def add(self, key: str, amount: float = 1, *, seconds: float = 0) -> SharedAnswer:
        """Add to a count and return it. It begins anew `seconds` after it was first added to."""
        return self._do(Operation("add", key, amount, seconds))

    def count(self, key: str) -> SharedAnswer:
        """A count; 0 where there is none."""
        return self._do(Operation("count", key))

    def take(
        self, key: str = "", *, requests: float, interval: float, burst: int = 0, backlog: int = 0, units: int = 1
    ) -> SharedAnswer:
        """A turn, of `requests` each `interval` seconds: the seconds to wait for it; None if there is none to be had.

        Turns that nobody took are saved, up to `burst` (as many as `requests`, where it is not given). Up to `backlog` who
        come too early are told to wait. What costs more than others takes several `units` at once.
        """
        each = interval / requests
        return self._do(Operation("take", key, each, 0.0, burst or max(int(requests), 1), backlog, units=units))

    def hold(self, key: str = "", *, most: int) -> SharedAnswer:
        """Be one of at most so many at a time, of this data plane's: whether that is possible. Give it back by `release`."""
        return self._do(Operation("hold", key, most))

    def release(self, key: str = "") -> SharedAnswer:
        """Give back what was held."""
        return self._do(Operation("release", key))

    def get(self, key: str) -> SharedAnswer:
        """A value, as bytes; None where there is none any more."""
        return self._do(Operation("get", key))

    def set(self, key: str, value: bytes | str, *, seconds: float = 0) -> SharedAnswer:
        """Keep a value of at most a megabyte, for so many seconds, as long as there is room."""
        return self._do(Operation("set", key, 0.0, seconds, value=value.encode() if isinstance(value, str) else value))

    def drop(self, key: str) -> SharedAnswer:
        """Forget a value and a count."""
        return self._do(Operation("drop", key))
