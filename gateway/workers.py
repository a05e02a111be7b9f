"""One process per core, all on the same ports (SO_REUSEPORT); the parent starts them, tells them, adds them up.

A worker that dies is replaced and brought up to date; the others do not notice.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable
from typing import Final

from gateway import frames, messages
from gateway.messages import Applied, AskStatistics, Drain, Ready, Statistics, Tickets
from gateway.shared import memory
from gateway.snapshot import Change, Parts, Problem, apply

log = logging.getLogger("fsm.workers")


class WorkerProcess:
    """The parent's end of one worker."""

    def __init__(self, index: int, process: asyncio.subprocess.Process, writer: asyncio.StreamWriter) -> None:
        self.index = index
        self.process = process
        self.writer = writer
        self.answers: asyncio.Queue[Applied | Statistics] = asyncio.Queue()


class Workers:
    """All workers of this data plane."""

    def __init__(self, count: int, *, bind: str = "", port_offset: int = 0) -> None:
        self._count = count
        self._bind = bind
        self._offset = port_offset
        self._workers: dict[int, WorkerProcess] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()  # changes and questions go one after another
        self._stopping = False
        self._tickets = secrets.token_bytes(32)
        self._memory = memory.create()
        self.parts: Parts = {}
        self.version = ""
        self.problems: tuple[Problem, ...] = ()
        self.on_failure: Callable[[str], None] = log.error

    async def start(self) -> None:
        """Start every worker and wait until all are ready."""
        ready = [asyncio.get_running_loop().create_future() for _ in range(self._count)]
        self._keepers = [asyncio.create_task(self._keep(index, ready[index])) for index in range(self._count)]
        await asyncio.gather(*ready)

    async def apply(self, change: Change) -> tuple[Problem, ...]:
        """Bring every worker forward; returns when the last one has, with what could not be done."""
        async with self._turn:
            apply(self.parts, change)
            self.version = change.version
            workers = list(self._workers.values())
            frames = messages.change(change)
            for worker in workers:
                worker.writer.write(frames)
            answers = await asyncio.gather(*(worker.answers.get() for worker in workers))
            fresh = {p for a in answers if isinstance(a, Applied) for p in a.problems}
            # A problem stands until its part is put again or dropped.
            renewed = {part.name for part in change.put} | {name for _, name in change.drop}
            kept = set() if change.reset else {p for p in self.problems if p.part not in renewed}
            self.problems = tuple(sorted(kept | fresh, key=lambda p: (p.part, p.message)))
            return self.problems

    async def statistics(self) -> list[Statistics]:
        """One answer for each worker."""
        async with self._turn:
            workers = list(self._workers.values())
            for worker in workers:
                frames.write(worker.writer, AskStatistics())
            answers = await asyncio.gather(*(worker.answers.get() for worker in workers))
            return [answer for answer in answers if isinstance(answer, Statistics)]

    async def stop(self, *, delay: float = 0.0, grace: float = 5.0) -> None:
        """Serve for `delay` more seconds while saying goodbye, then let requests finish for up to `grace`."""
        self._stopping = True
        for worker in self._workers.values():
            frames.write(worker.writer, Drain(delay, grace))
        processes = [worker.process for worker in self._workers.values()]
        try:
            async with asyncio.timeout(delay + grace + 2):
                await asyncio.gather(*(process.wait() for process in processes))
        except TimeoutError:
            for process in processes:
                if process.returncode is None:
                    process.kill()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        os.close(self._memory)

    def pids(self) -> list[int]:
        """The workers' process ids."""
        return [worker.process.pid for worker in self._workers.values()]

    async def _keep(self, index: int, ready: asyncio.Future[None]) -> None:
        """Run one worker, again and again if need be."""
        while not self._stopping:
            worker, reader = await self._spawn(index)
            try:
                await self._listen(worker, reader, ready)
            finally:
                self._workers.pop(index, None)
                worker.writer.close()
                if worker.process.returncode is None and not self._stopping:
                    await worker.process.wait()
            # Whoever waits for an answer of the dead gets an empty one.
            worker.answers.put_nowait(Applied(self.version, ()))
            if not self._stopping:
                self.on_failure(f"worker {index} ended with status {worker.process.returncode}; starting another")

    async def _listen(self, worker: WorkerProcess, reader: asyncio.StreamReader, ready: asyncio.Future[None]) -> None:
        while True:
            try:
                message = await messages.read_from_worker(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if not isinstance(message, Ready):
                worker.answers.put_nowait(message)
                continue
            if self.parts:
                async with self._turn:
                    change = Change(version=self.version, put=tuple(self.parts.values()), reset=True)
                    worker.writer.write(messages.change(change))
                    await messages.read_from_worker(reader)
                    self._workers[worker.index] = worker
            else:
                self._workers[worker.index] = worker
            if not ready.done():
                ready.set_result(None)

    async def _spawn(self, index: int) -> tuple[WorkerProcess, asyncio.StreamReader]:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.worker", "--fd", str(theirs.fileno()), "--index", str(index),
                "--count", str(self._count), "--bind", self._bind, "--port-offset", str(self._offset),
                "--memory", str(self._memory), pass_fds=(theirs.fileno(), self._memory), stdin=asyncio.subprocess.DEVNULL,
                env=_environment(),
            )  # fmt: skip
        reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 26)
        frames.write(writer, Tickets(self._tickets))
        return WorkerProcess(index, process, writer), reader


# uvloop takes 256 KB for each read of a TLS connection, which glibc's malloc by default gets from the kernel and gives back
# each time, page faults and all: 42 µs of CPU a request, against 19 where it keeps some. Other C libraries do not look.
MALLOC: Final = {
    "MALLOC_MMAP_THRESHOLD_": f"{1 << 20}",
    "MALLOC_TRIM_THRESHOLD_": f"{16 << 20}",
    "MALLOC_TOP_PAD_": f"{1 << 20}",
}


def _environment() -> dict[str, str]:
    """The parent's environment, with its import path: a worker runs the same code wherever it was started."""
    return {**MALLOC, **os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
