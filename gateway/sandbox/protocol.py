"""What a worker and the process of a filter say to each other: msgpack values, each behind its length.

The process is not trusted: whatever comes of it is checked as if a client had sent it (`api`'s setters do), and a
frame that is too long or cannot be read ends it.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypeAlias

import msgspec

from gateway import frames
from gateway.filters.api import Call as HttpCall
from gateway.filters.api import Reply
from gateway.filters.measuring import Measured
from gateway.filters.sharing import Operation

FORK, KILL = b"f", b"k"  # what a worker says to the zygote, with a socket or a process's number
LONGEST: Final = 32 << 20  # octets of a frame

Pairs: TypeAlias = list[tuple[bytes, bytes]]


class RequestData(msgspec.Struct, array_like=True):
    """A request's head, and a body in place of the client's."""

    method: str
    target: str
    host: str
    headers: Pairs
    body: bytes | None = None
    # Towards the filter only.
    http10: bool = False
    address: str = ""
    port: int = 0
    scheme: str = "http"
    route: str = ""
    connection: int = 0
    choices: tuple[str, ...] = ()


class ResponseData(msgspec.Struct, array_like=True):
    """A response's head, and a body in place of the backend's."""

    status: int
    headers: Pairs
    body: bytes | None = None


class ConnectionData(msgspec.Struct, array_like=True):
    """A client's connection, or where a datagram came from."""

    number: int
    address: str
    port: int
    scheme: str = ""


class Over(msgspec.Struct, array_like=True):
    """An exchange that is over."""

    status: int
    started: float
    seconds: float
    response_bytes: int
    backend: str
    endpoint: str


class Load(msgspec.Struct, tag=True):
    """Load a source, run its tests, and answer `Loaded`; first of all."""

    name: str
    source: str
    config: str
    memory: int
    secrets: tuple[tuple[str, str], ...] = ()


class Call(msgspec.Struct, tag=True):
    """Call the function of a moment, and answer `Done`."""

    number: int
    exchange: int
    moment: str
    request: RequestData | None = None  # where it is not known yet
    response: ResponseData | None = None
    data: bytes = b""
    last: bool = False
    over: Over | None = None
    connection: ConnectionData | None = None
    from_client: bool = True


class Finish(msgspec.Struct, tag=True):
    """Nobody will call any more: let timers run for the last time, and end."""


class Whole(msgspec.Struct, tag=True):
    """The body that was wanted, or why not."""

    number: int
    data: bytes = b""
    status: int = 0
    reason: str = ""


class Cancel(msgspec.Struct, tag=True):
    """Nobody waits for a call any more."""

    number: int


class Closed(msgspec.Struct, tag=True):
    """A connection is gone."""

    connection: int


class Forget(msgspec.Struct, tag=True):
    """An exchange is over."""

    exchange: int


class Ping(msgspec.Struct, tag=True):
    """Say `Pong`."""


class Loaded(msgspec.Struct, tag=True):
    """The source is loaded and passed its tests; or `fault`, on `line`."""

    moments: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    tests: int = 0
    timers: int = 0
    fault: str = ""
    line: int = 0


class Want(msgspec.Struct, tag=True):
    """Send the whole body of an exchange's request, or response."""

    number: int
    exchange: int
    of: str
    limit: int


class Ask(msgspec.Struct, tag=True):
    """Make a request to somebody else, or do something with what is shared."""

    number: int
    what: HttpCall | Operation


class Told(msgspec.Struct, tag=True):
    """What came of it; or why nothing did, and whose fault that is."""

    number: int
    result: Reply | bool | float | bytes | None = None
    fault: str = ""
    kind: str = ""


class Measure(msgspec.Struct, tag=True):
    """Count something."""

    what: Measured


class Said(msgspec.Struct, tag=True):
    """A line for the log."""

    level: int
    text: str


class Done(msgspec.Struct, tag=True):
    """What came of a call; None for what stays as it is."""

    number: int
    request: RequestData | None = None
    response: ResponseData | None = None
    data: bytes | None = None
    choice: tuple[str, str | None] | None = None
    status: int = 0  # of a request that the filter refuses
    admitted: bool | None = None  # whether a client may connect
    watches: bool = False  # it wants to know of the connection's end
    answer: bytes | None = None  # to a datagram
    failure: str = ""


class Pong(msgspec.Struct, tag=True):
    """Here I am."""


ToCell: TypeAlias = Load | Call | Closed | Finish | Whole | Told | Cancel | Forget | Ping
FromCell: TypeAlias = Loaded | Want | Ask | Measure | Said | Done | Pong

_to_cell: msgspec.msgpack.Decoder[ToCell] = msgspec.msgpack.Decoder(ToCell)
_from_cell: msgspec.msgpack.Decoder[FromCell] = msgspec.msgpack.Decoder(FromCell)


async def read_to_cell(reader: asyncio.StreamReader) -> ToCell:
    """The next message to a cell; raises IncompleteReadError at the end."""
    return _to_cell.decode(await frames.read(reader, LONGEST))


async def read_from_cell(reader: asyncio.StreamReader) -> FromCell:
    """The next message from a cell; raises IncompleteReadError at the end, ValueError for what is none."""
    return _from_cell.decode(await frames.read(reader, LONGEST))
