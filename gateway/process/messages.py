"""What a parent process and its workers say to each other: msgpack values, each behind its length.

A worker meets clients and runs filters, so what it says is believed no more than that: it is decoded strictly (closed sets
of words, lengths, finite numbers that are not below zero), and one that says anything else is replaced.
"""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Final, TypeAlias

import msgspec

from gateway.filters.api.filter_metrics import BUCKETS, OCTETS, Labels
from gateway.snapshot import Change, Part, Problem
from gateway.transport import framing

PIECE = 100  # parts in one message
VALUES: Final = {"counter": 1, "gauge": 1, "histogram": BUCKETS + 1}  # of what filters measure
MAX_MESSAGE_BYTES: Final = 64 << 20  # octets of a message from a worker

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Total: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Counts6: TypeAlias = Annotated[tuple[Count, ...], msgspec.Meta(min_length=6, max_length=6)]
Counts32: TypeAlias = Annotated[tuple[Count, ...], msgspec.Meta(min_length=32, max_length=32)]


class Apply(msgspec.Struct, frozen=True, tag=True):
    """Bring yourself forward, and say `Applied`."""

    change: Change


class Parts(msgspec.Struct, frozen=True, tag=True):
    """A piece of a large change: parts to put, for the `Apply` that follows."""

    put: tuple[Part, ...]


class Tickets(msgspec.Struct, frozen=True, tag=True):
    """A secret that all workers of a data plane share, first of all: a TLS session that one began is resumed by another."""

    secret: bytes


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Answer what comes for `delay` more seconds, then stop; leave at the latest after `grace` more."""

    delay: float
    grace: float


class AskStatistics(msgspec.Struct, frozen=True, tag=True):
    """Send `Statistics`."""


class Ping(msgspec.Struct, frozen=True, tag=True):
    """Send `Pong`, from your loop."""

    number: int


class Ready(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The worker's loop runs."""

    pid: int


class Pong(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The worker's loop goes round. `steps` grows while it gets on with a change."""

    number: int
    steps: Count


class Applied(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A change is in force, but for the problems."""

    version: str
    problems: tuple[Problem, ...]


class TargetStatistics(msgspec.Struct, frozen=True, array_like=True):
    """What happened at one target: responses by hundreds of status, and by duration (slot n: < 2**n * 0.5 ms)."""

    rule: str
    backend: str
    classes: Counts6
    slots: Counts32
    seconds: Total


class RelayStatistics(msgspec.Struct, frozen=True, array_like=True):
    """Connections or flows of one target of a relay; backend "" for those that came to none."""

    relay: str
    backend: str
    accepted: Count
    refused: Count


class FilterStatistics(msgspec.Struct, frozen=True, array_like=True):
    """A filter in Python: calls, those that failed, those that kept the worker's loop too long; the last failure in words,
    and where it runs: inline, or in a process behind which layers."""

    name: str
    calls: Count
    failures: Count
    slow: Count
    last_failure: str = ""
    runs: str = ""
    measures: tuple[tuple[str, str, Labels, tuple[float, ...]], ...] = ()  # kind, name, labels, values
    dropped: int = 0  # of what it measured
    most: int = OCTETS  # that it may show

    def __post_init__(self) -> None:
        for kind, name, _, values in self.measures:
            if VALUES.get(kind) != len(values):
                raise ValueError(f"{len(values)} values of a {kind}, {name}")


class Statistics(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Counts since the worker started, and what is under way."""

    targets: tuple[TargetStatistics, ...] = ()
    unmatched: Count = 0
    refused: Count = 0
    turned_away: Count = 0
    gated: Count = 0  # connections that a filter did not let in
    unrouted: Count = 0  # connections that belong to no route: a server name that nobody serves
    dropped_datagrams: Count = 0  # of which filters, limits or routes took none
    connections: Count = 0
    tunnels: Count = 0
    relays: tuple[RelayStatistics, ...] = ()
    relayed: Count = 0  # connections and flows that are open
    filters: tuple[FilterStatistics, ...] = ()
    ejected: tuple[tuple[str, str], ...] = ()  # backend, and an endpoint of it that stands aside
    unconnected: tuple[tuple[str, str, Count], ...] = ()  # backend, reason, attempts to connect that failed
    refused_retries: tuple[tuple[str, Count], ...] = ()  # of what a budget is for; retries

    def __post_init__(self) -> None:
        if not all(math.isfinite(target.seconds) for target in self.targets):
            raise ValueError("seconds that are no number")


ToWorker: TypeAlias = Parts | Apply | Tickets | Drain | AskStatistics | Ping
FromWorker: TypeAlias = Ready | Applied | Statistics | Pong

_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


async def read_to_worker(reader: asyncio.StreamReader) -> ToWorker:
    """The next message to a worker; raises IncompleteReadError at the end."""
    return _to_worker.decode(await framing.read(reader))


async def read_from_worker(reader: asyncio.StreamReader) -> FromWorker:
    """The next message from a worker; raises IncompleteReadError at the end, ValueError for what is none."""
    return _from_worker.decode(await framing.read(reader, MAX_MESSAGE_BYTES))


def change(whole: Change) -> bytes:
    """A change, in pieces that a worker decodes between two requests."""
    cut = max(len(whole.put) - PIECE, 0)
    pieces = [framing.framed(Parts(whole.put[at : min(at + PIECE, cut)])) for at in range(0, cut, PIECE)]
    return b"".join([*pieces, framing.framed(Apply(msgspec.structs.replace(whole, put=whole.put[cut:])))])
