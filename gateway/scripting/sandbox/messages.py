"""What a worker and the process of a filter say to each other: msgpack values, each behind its length.

The process is not trusted: what comes of it is read as a client's bytes are. Types say how long a text may be, how many
there may be of anything, and which words there are; numbers are finite; whatever is not said here is refused, and a frame
that is too long or cannot be read ends the process. What a message means is checked where it is used (`api`'s setters do).
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

from gateway.filters.api import Reply
from gateway.filters.api.filter_metrics import Measured
from gateway.filters.api.http_client import Call as HttpCall
from gateway.filters.api.shared_state import Operation
from gateway.scripting.hooks import HOOKS, HookName
from gateway.transport import framing

FORK, KILL, STAND_BACK = b"f", b"k", b"b"  # what a worker says to the forkserver, each with a number, the first with a socket
MAX_FRAME_BYTES: Final = 32 << 20  # octets of a frame to a cell
LONGEST_SAID: Final = 4 << 20  # and from it: of a body, of a value, of everything
WORDS: Final = 4096  # characters of a line of the log, of what is said of a failure
FIELDS: Final = 1000  # of a head that comes back
AT_ONCE: Final = 100  # things that were measured, in one message

Pairs: TypeAlias = list[tuple[bytes, bytes]]
FewPairs: TypeAlias = Annotated[list[tuple[bytes, bytes]], msgspec.Meta(max_length=FIELDS)]
Octets: TypeAlias = memoryview  # of the message itself: a body of megabytes is not copied only to be read
Number: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Some: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Words: TypeAlias = Annotated[str, msgspec.Meta(max_length=WORDS)]
Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=512)]
Long: TypeAlias = Annotated[str, msgspec.Meta(max_length=1 << 16)]
Layer: TypeAlias = Literal["limits", "landlock", "seccomp"]


class RequestData(msgspec.Struct, array_like=True):
    """A request's head."""

    method: str
    target: str
    host: str
    headers: Pairs
    http10: bool = False
    address: str = ""
    port: int = 0
    scheme: str = "http"
    route: str = ""
    connection: int = 0
    choices: tuple[str, ...] = ()


class ResponseData(msgspec.Struct, array_like=True):
    """A response's head."""

    status: int
    headers: Pairs


class ChangedRequest(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A request's head as a filter wants it, and a body in place of the client's."""

    method: Name
    target: Long
    host: Long
    headers: FewPairs
    body: Octets | None = None


class MadeResponse(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """A response's head, and a body in place of the backend's."""

    status: Annotated[int, msgspec.Meta(ge=0, le=999)]
    headers: FewPairs
    body: Octets | None = None


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


class HookCall(msgspec.Struct, tag=True):
    """Call a function of the filter, and answer `Done`."""

    number: int
    exchange: int
    hook: HookName
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


class Loaded(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """The source is loaded and passed its tests; or `fault`, on `line`."""

    hooks: Annotated[tuple[HookName, ...], msgspec.Meta(max_length=len(HOOKS))] = ()
    layers: Annotated[tuple[Layer, ...], msgspec.Meta(max_length=3)] = ()
    tests: Some = 0
    timers: Some = 0
    fault: Words = ""
    line: Some = 0


class Want(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """Send the whole body of an exchange's request, or response."""

    number: Number
    exchange: Number
    of: Literal["request", "response"]
    limit: Number


class Ask(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """Make a request to somebody else, or do something with what is shared."""

    number: Number
    what: HttpCall | Operation


class Told(msgspec.Struct, tag=True):
    """What came of it; or why nothing did, and whose fault that is."""

    number: int
    result: Reply | bool | float | bytes | None = None
    fault: str = ""
    kind: str = ""


class Measure(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """Count these."""

    what: Annotated[tuple[Measured, ...], msgspec.Meta(max_length=AT_ONCE)]


class Said(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """A line for the log."""

    level: Annotated[int, msgspec.Meta(ge=0, le=100)]
    text: Words


class Done(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """What came of a call; None for what stays as it is."""

    number: Number
    request: ChangedRequest | None = None
    response: MadeResponse | None = None
    data: Octets | None = None
    choice: tuple[Name, Long | None] | None = None
    status: Annotated[int, msgspec.Meta(ge=0, le=999)] = 0  # of a request that the filter refuses
    admitted: bool | None = None  # whether a client may connect
    watches: bool = False  # it wants to know of the connection's end
    answer: Octets | None = None  # to a datagram
    failure: Words = ""


class Pong(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """Here I am."""


ToCell: TypeAlias = Load | HookCall | Closed | Finish | Whole | Told | Cancel | Forget | Ping
FromCell: TypeAlias = Loaded | Want | Ask | Measure | Said | Done | Pong

_to_cell: msgspec.msgpack.Decoder[ToCell] = msgspec.msgpack.Decoder(ToCell)
_from_cell: msgspec.msgpack.Decoder[FromCell] = msgspec.msgpack.Decoder(FromCell)


async def read_to_cell(reader: asyncio.StreamReader) -> ToCell:
    """The next message to a cell; raises IncompleteReadError at the end."""
    return _to_cell.decode(await framing.read(reader, MAX_FRAME_BYTES))


def from_cell(data: bytes | memoryview) -> FromCell:
    """A message from a cell. Raises ValueError (or whatever a decoder may) for what is none."""
    return _from_cell.decode(data)


def said(message: FromCell) -> bytes:
    """A message from a cell, framed: refused here, by ValueError, where it would not be understood there."""
    framed = framing.framed(message)
    if len(framed) - 4 > LONGEST_SAID:
        raise ValueError(f"{len(framed) - 4} bytes are more than can be passed on at once; {LONGEST_SAID} are not")
    _from_cell.decode(memoryview(framed)[4:])
    return framed
