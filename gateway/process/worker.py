"""One worker process: a loop, a runtime, and a pipe to the parent that tells it what to do.

It answers while it works on a change: the parent replaces one that does not. On SIGUSR1 it writes to the log where it stands.

Imports nothing that it does not need: an idle worker is small. Leaves by itself when its parent is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import logging
import os
import signal
import socket

import msgspec
import uvloop

from gateway.base import descriptors, logs
from gateway.base.privacy import keep_to_yourself
from gateway.base.scheduling import ask_for_short_slices
from gateway.process import messages
from gateway.process.messages import (
    Applied,
    Apply,
    AskStatistics,
    Drain,
    FilterStatistics,
    Ping,
    Pong,
    Ready,
    RelayStatistics,
    Statistics,
    TargetStatistics,
    Tickets,
)
from gateway.runtime.runtime import Runtime
from gateway.snapshot import Change, Part, Problem
from gateway.transport import framing

log = logging.getLogger("fsm.worker")
TICK = 1.0  # seconds; the coarseness of every idle timeout


class Worker:
    """Follows the parent's messages."""

    def __init__(self, runtime: Runtime, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._runtime = runtime
        self._reader = reader
        self._writer = writer
        self._leaving: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Until told to leave, or until the parent is gone."""
        framing.write(self._writer, Ready(os.getpid()))
        self._tick()
        early: list[Part] = []  # of a change that comes in pieces
        changes: asyncio.Queue[Change] = asyncio.Queue()
        applying = asyncio.create_task(self._apply(changes))
        while True:
            try:
                message = await messages.read_to_worker(self._reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            match message:
                case messages.Parts(put):
                    early += put
                case Apply(change):
                    changes.put_nowait(msgspec.structs.replace(change, put=(*early, *change.put)))
                    early.clear()
                case Tickets(secret):
                    self._runtime.ports.tickets = secret
                case AskStatistics():
                    framing.write(self._writer, self._count())
                case Ping(number):
                    framing.write(self._writer, Pong(number, self._runtime.steps))
                case Drain(delay, grace):
                    self._runtime.drain()
                    self._leaving = asyncio.create_task(self._leave(delay, grace))
        if self._leaving is None:  # the parent died
            self._runtime.drain()
            self._leaving = asyncio.create_task(self._leave(0, 5))
        await self._leaving
        applying.cancel()
        await self._runtime.programs.stop()

    async def _apply(self, changes: asyncio.Queue[Change]) -> None:
        """One change after another, while questions are answered."""
        while True:
            change = await changes.get()
            try:
                problems = await self._runtime.apply(change)
            except Exception as error:  # the runtime blames a part for whatever it can; this is the rest
                log.exception("a change is not in force")
                problems = [Problem("the change", f"{type(error).__name__}: {error}")]
            framing.write(self._writer, Applied(change.version, tuple(problems)))

    def _count(self) -> Statistics:
        try:
            return self._statistics()
        except Exception:
            log.exception("nothing is counted")
            return Statistics()

    async def _leave(self, delay: float, grace: float) -> None:
        await asyncio.sleep(delay)
        self._runtime.close()
        try:
            async with asyncio.timeout(grace):
                await self._runtime.wait_idle()
        except TimeoutError:
            pass
        self._writer.close()
        self._reader.feed_eof()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._runtime.tick(loop.time())
        loop.call_later(TICK, self._tick)

    def _statistics(self) -> Statistics:
        listener_ports = [opened.listener_port for opened in self._runtime.ports.tcp.values()]
        return Statistics(
            targets=tuple(
                TargetStatistics(rule, backend, tuple(c.classes), tuple(c.slots), c.seconds)
                for (rule, backend), c in self._runtime.counters.items()
            ),
            unmatched=sum(listener_port.unmatched for listener_port in listener_ports),
            refused=sum(listener_port.refused for listener_port in listener_ports),
            turned_away=sum(listener_port.turned_away for listener_port in listener_ports),
            gated=sum(opened.gate.turned_away for opened in self._runtime.ports.tcp.values()),
            unrouted=sum(opened.unrouted for opened in self._runtime.ports.tcp.values()),
            dropped_datagrams=sum(port.refused for port in self._runtime.ports.udp.values()),
            connections=sum(len(listener_port.connections) for listener_port in listener_ports),
            tunnels=max(sum(listener_port.tunnels for listener_port in listener_ports), 0),
            relays=tuple(
                RelayStatistics(relay, backend, t.accepted, t.refused) for (relay, backend), t in self._runtime.tallies.items()
            ),
            relayed=max(self._runtime.ports.relayed(), 0),
            filters=tuple(
                FilterStatistics(
                    name,
                    program.calls,
                    program.failures,
                    program.slow,
                    program.last_failure,
                    program.hooks.runs if program.hooks is not None else "",
                    tuple((*key, tuple(values)) for key, values in program.measures.series.items()),
                    program.measures.dropped,
                    program.measures.most,
                )
                for name, program in self._runtime.programs.by_name.items()
            ),
            ejected=self._runtime.backends.ejected(),
            unconnected=self._runtime.backends.failures(),
            refused_retries=self._runtime.backends.refused_retries(),
        )


async def _run(arguments: argparse.Namespace) -> None:
    # The parent decides when a worker leaves; a Ctrl-C in a terminal reaches both.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    pipe = socket.socket(fileno=arguments.fd)
    pipe.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=pipe, limit=1 << 26)
    memory = arguments.memory if arguments.memory >= 0 else None
    runtime = Runtime(
        bind=arguments.bind, port_offset=arguments.port_offset, index=arguments.index, count=arguments.count, memory=memory
    )
    # What was made while starting lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    await Worker(runtime, reader, writer).follow()


def hear_filters() -> None:
    """Of filters also what is printed is heard, which is no warning; they cannot fill a log with it."""
    heard, handler = logging.getLogger("fsm.filter"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter(logs.FORMAT))
    handler.addFilter(logs.Bounded(handler))
    heard.addHandler(handler)
    heard.setLevel(logging.INFO)
    heard.propagate = False


def main() -> None:
    """Entry point; started by `gateway.process.supervisor`."""
    parser = argparse.ArgumentParser(description="one worker of the data plane; started by its parent")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--bind", default="")
    parser.add_argument("--port-offset", type=int, default=0)
    parser.add_argument("--memory", type=int, default=-1, help="a file descriptor of the memory that workers share")
    arguments = parser.parse_args()
    descriptors.keep_only(arguments.fd, arguments.memory)
    keep_to_yourself()
    ask_for_short_slices()
    faulthandler.register(signal.SIGUSR1)
    logs.speak_plainly()  # filters that run inline print here, and in logs they repeat what clients have sent
    logging.basicConfig(level=logging.WARNING, format=logs.FORMAT)
    hear_filters()
    uvloop.run(_run(arguments))


if __name__ == "__main__":
    main()
