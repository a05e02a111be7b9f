"""What a parent process and its workers say to each other: msgpack values, each behind its length."""

from __future__ import annotations

import asyncio
from typing import TypeAlias

import msgspec

from gateway import frames
from gateway.filters.measuring import Labels
from gateway.snapshot import Change, Part, Problem

PIECE = 100  # parts in one message


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


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The worker's loop runs."""

    pid: int


class Applied(msgspec.Struct, frozen=True, tag=True):
    """A change is in force, but for the problems."""

    version: str
    problems: tuple[Problem, ...]


class TargetStatistics(msgspec.Struct, frozen=True, array_like=True):
    """What happened at one target: responses by hundreds of status, and by duration (slot n: < 2**n * 0.5 ms)."""

    rule: str
    backend: str
    classes: tuple[int, ...]
    slots: tuple[int, ...]
    seconds: float


class RelayStatistics(msgspec.Struct, frozen=True, array_like=True):
    """Connections or flows of one relay."""

    relay: str
    accepted: int
    refused: int


class FilterStatistics(msgspec.Struct, frozen=True, array_like=True):
    """A filter in Python: calls, those that failed, those that kept the worker's loop too long; the last failure in words,
    and where it runs: inline, or in a process behind which layers."""

    name: str
    calls: int
    failures: int
    slow: int
    last_failure: str = ""
    runs: str = ""
    measures: tuple[tuple[str, str, Labels, tuple[float, ...]], ...] = ()  # kind, name, labels, values


class Statistics(msgspec.Struct, frozen=True, tag=True):
    """Counts since the worker started, and what is under way."""

    targets: tuple[TargetStatistics, ...] = ()
    unmatched: int = 0
    refused: int = 0
    turned_away: int = 0
    connections: int = 0
    tunnels: int = 0
    relays: tuple[RelayStatistics, ...] = ()
    relayed: int = 0  # connections and flows that are open
    filters: tuple[FilterStatistics, ...] = ()
    resting: tuple[tuple[str, str], ...] = ()  # backend, and an endpoint of it that stands aside


ToWorker: TypeAlias = Parts | Apply | Tickets | Drain | AskStatistics
FromWorker: TypeAlias = Ready | Applied | Statistics

_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


async def read_to_worker(reader: asyncio.StreamReader) -> ToWorker:
    """The next message to a worker; raises IncompleteReadError at the end."""
    return _to_worker.decode(await frames.read(reader))


async def read_from_worker(reader: asyncio.StreamReader) -> FromWorker:
    """The next message from a worker; raises IncompleteReadError at the end."""
    return _from_worker.decode(await frames.read(reader))


def change(whole: Change) -> bytes:
    """A change, in pieces that a worker decodes between two requests."""
    cut = max(len(whole.put) - PIECE, 0)
    pieces = [frames.framed(Parts(whole.put[at : min(at + PIECE, cut)])) for at in range(0, cut, PIECE)]
    return b"".join([*pieces, frames.framed(Apply(msgspec.structs.replace(whole, put=whole.put[cut:])))])
