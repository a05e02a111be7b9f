"""One process per core, all on the same ports (SO_REUSEPORT); the parent starts them, tells them, adds them up.

A worker that dies, or does not answer, is replaced and brought up to date, for as long as the parent lives; the others do
not notice. What ends workers is set aside, and the last good one stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, get_args

import msgspec

from gateway.process.messages import Applied, Statistics, Tickets
from gateway.process.metrics import Supervision
from gateway.process.trial import culprits
from gateway.process.worker_process import BEAT, Reason, WorkerProcess
from gateway.scripting.shared_state import memory
from gateway.snapshot import RANK, Change, Key, Part, Parts, Problem, apply, difference, key
from gateway.transport import framing

log = logging.getLogger("fsm.workers")
STARTING: Final = 30.0  # seconds after which those that are ready begin without the others
PATIENCE: Final = 0.9  # seconds to wait for what a worker answers at once
AGAIN: Final = (0.0, 0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds before another is started, the more often the longer
CALM: Final = 20.0  # seconds of a life after which the deaths before it are forgotten
DOUBTFUL: Final = 3  # deaths of workers that began with what was good once, one after another, until that is doubted
SETTLED: Final = 0.5  # seconds that a worker must live with what is doubted


class StoppedError(Exception):
    """There will be no worker any more."""


class Workers:
    """All workers of this data plane."""

    def __init__(self, count: int, *, bind: str = "", port_offset: int = 0) -> None:
        self._count = count
        self.bind = bind
        self.port_offset = port_offset
        self._tickets = secrets.token_bytes(32)
        self._memory = memory.create()
        self.on_failure: Callable[[str], None] = log.error
        # What is wanted, and what workers are told.
        self.parts: Parts = {}
        self.version = ""
        self._good: Parts = {}  # what a worker has put into force and lived; a new one begins with it
        self._aside: dict[Key, Part] = {}  # what ends workers, until it is edited or dropped
        self._told: set[Problem] = set()  # by workers
        self._turn = asyncio.Lock()  # changes go one after another
        # Who is told.
        self._keepers: list[asyncio.Task[None]] = []
        self._workers: dict[int, WorkerProcess] = {}  # that run, by index
        self._following: list[WorkerProcess] = []  # that are told of changes, the oldest first
        self._is_doubting = False  # what is in force is put anew, piece by piece
        self._early = 0  # deaths, one after another, of workers that were being brought up to date
        self._doubts: asyncio.Task[None] | None = None
        self._restarts = dict.fromkeys(get_args(Reason), 0)
        self._stopping = False
        self._news = asyncio.Event()  # a new one for each time that something changes with the workers

    async def start(self) -> None:
        """Start every worker and wait until all are ready; where some cannot be started, until one is."""
        self._keepers = [asyncio.create_task(self._keep(index)) for index in range(self._count)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTING):
                await self._until(lambda: len(self._in_force()) == self._count or self._stopping)
        await self._until(lambda: bool(self._in_force()) or self._stopping)

    async def apply(self, change: Change) -> tuple[Problem, ...]:
        """Bring every worker forward; returns when the last one has that answers, with what could not be done.

        A worker that is silent takes the change when it comes back, or its successor does. A change that ends workers is
        put piece by piece, and what ended them is set aside.
        """
        async with self._turn:
            apply(self.parts, change)
            self.version = change.version
            # A problem stands until its part is put again or dropped.
            renewed = {part.name for part in change.put} | {name for _, name in change.drop}
            self._told = set() if change.reset else {p for p in self._told if p.part not in renewed}
            allowed = self._without_aside(change)
            with contextlib.suppress(StoppedError):
                await self._until_some(lambda: self._following)
                if not await self._deliver(allowed, self._following):
                    await self._until_some(self._in_force)
                    await self._try(allowed, deaths=1)
            return self.problems

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is not in force as it is written, part by part."""
        aside = {Problem(k[1], _words(k in self._good)) for k in self._aside}
        return tuple(sorted(self._told | aside, key=lambda p: (p.part, p.message)))

    async def statistics(self) -> list[Statistics]:
        """The counts of each worker; of one that does not answer in time, the last that it sent."""
        asked = {worker: worker.ask() for worker in self._in_force()}
        if asked:
            await asyncio.wait(asked.values(), timeout=PATIENCE)
        return [worker.statistics for worker in asked if worker.statistics is not None]

    async def is_well(self, *, whole: bool = False) -> bool:
        """Whether a worker that serves answers, now: they are asked. `whole`: one that serves all that is in force."""
        waiting = {worker.ping() for worker in self._in_force() if worker.is_whole or not whole}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        while waiting and (left := deadline - loop.time()) > 0:
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if any(pong.result() is not None for pong in done):
                return True
        return False

    def supervision(self) -> Supervision:
        """How the workers are."""
        answering = sum(not worker.is_silent for worker in self._in_force())
        return Supervision(answering, self._count, self._restarts, len(self._aside))

    async def stop(self, *, delay: float = 0.0, grace: float = 5.0) -> None:
        """Serve for `delay` more seconds while saying goodbye, then let requests finish for up to `grace`."""
        if self._memory < 0:
            return
        self._stopping = True
        self._tell()
        for worker in self._workers.values():
            worker.leave(delay, grace)
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=delay + grace + 2)
        for worker in self._workers.values():
            worker.kill()
        if self._keepers:
            await asyncio.wait(self._keepers, timeout=2)
        for task in (*self._keepers, self._doubts):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        os.close(self._memory)
        self._memory = -1

    def pids(self) -> list[int]:
        """The process ids of workers that serve."""
        return [worker.process.pid for worker in self._in_force()]

    # --- one change ---

    def _without_aside(self, change: Change) -> Change:
        """A change without what is set aside, in place of which the last good one stays. What was edited is tried again."""
        for k in [k for k in self._aside if self.parts.get(k) != self._aside[k]]:
            del self._aside[k]
        if not self._aside:
            return change
        put = [part for part in change.put if key(part) not in self._aside]
        if change.reset:
            put += [self._good[k] for k in self._aside if k in self._good]
        return msgspec.structs.replace(change, put=tuple(put))

    async def _deliver(self, change: Change, whom: Sequence[WorkerProcess]) -> bool:
        """Tell workers of a change and wait until all have applied it that answer. False where it ended all of them."""
        outcomes = {worker: worker.apply(change) for worker in whom}
        waiting = set(outcomes.values())
        lives = False
        while waiting:
            # Who waits for an answer of the silent waits for as long as nobody else has one.
            done, waiting = await asyncio.wait(waiting, timeout=BEAT)
            for answer in [future.result() for future in done]:
                self._note(answer)
                lives |= answer is not None
            if lives and all(worker.is_silent for worker, outcome in outcomes.items() if outcome in waiting):
                break
        for late in waiting:
            late.add_done_callback(lambda future: None if future.cancelled() else self._note(future.result()))
        if lives:
            apply(self._good, change)
            # In one step with that, so that nobody misses it: who came meanwhile began without it.
            for worker in self._following:
                if worker not in outcomes:
                    worker.apply(change).add_done_callback(lambda future: self._note(future.result()))
        return lives

    def _note(self, answer: Applied | None) -> None:
        if answer is not None:
            self._told.update(answer.problems)

    async def _try(self, change: Change, *, deaths: int, settle: float = 0.0) -> None:
        """Put a change that ended workers piece by piece, and set aside what ends them. One worker tastes for all."""
        self._say("workers end while they put a change into force; it is put piece by piece")
        if change.reset:
            change = difference(self._good, {key(part): part for part in change.put}, change.version)

        async def survives(put: Sequence[Part], drop: tuple[Key, ...] = ()) -> bool:
            await self._until_some(self._in_force)
            worker = self._in_force()[-1]
            worker.is_tasting = True
            if not await self._deliver(Change(change.version, tuple(put), drop), [worker]):
                return False
            await asyncio.sleep(settle)
            pong = worker.ping()
            await asyncio.wait([pong])
            worker.is_tasting = pong.result() is None
            return not worker.is_tasting

        for part in await culprits(change.put, survives, deaths=deaths):
            self._aside[key(part)] = part
            self._say(f"{' '.join(key(part))}: {_words(key(part) in self._good)}")
        if change.drop and not await survives((), change.drop):
            apply(self._good, Change(drop=change.drop))  # whoever comes now begins without it
        await self._until_some(self._in_force)
        await self._deliver(Change(change.version), self._following)  # until the others have it as well

    # --- one worker ---

    async def _keep(self, index: int) -> None:
        """Run one worker, again and again if need be; whatever happens, another follows."""
        failures = 0
        while not self._stopping:
            began = asyncio.get_running_loop().time()
            is_tasting = False
            try:
                worker = await self._spawn(index)
                await self._run(worker)
                reason, words, is_tasting = worker.reason, worker.words, worker.is_tasting
            except Exception as error:
                reason, words = "unstartable", f"cannot be started: {error}"
                log.debug("worker %d", index, exc_info=True)
            if self._stopping:
                return
            lasted = asyncio.get_running_loop().time() - began
            failures = 0 if lasted > CALM else failures + (not is_tasting)
            delay = AGAIN[min(failures, len(AGAIN) - 1)]
            self._restarts[reason] += 1
            self._say(f"worker {index} {words}; starting another" + (f" in {delay:g} s" if delay else ""))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._until(lambda: self._stopping)

    async def _run(self, worker: WorkerProcess) -> None:
        self._workers[worker.index] = worker
        worker.on_ready = lambda: self._bring_up(worker)
        if self._stopping:
            worker.kill()
        try:
            await worker.run()
        finally:
            del self._workers[worker.index]
            if worker in self._following:
                self._following.remove(worker)
            self._tell()

    def _bring_up(self, worker: WorkerProcess) -> None:
        """Tell a new worker what is in force; from then on it is told of changes like the others."""
        if self._stopping:
            worker.leave(0, 0)
            return
        self._following.append(worker)
        worker.is_whole = not self._is_doubting
        put = sorted(self._good.values(), key=lambda part: RANK[key(part)[0]])
        worker.apply(Change(self.version, tuple(put), reset=True)).add_done_callback(partial(self._brought_up, worker))
        self._tell()

    def _brought_up(self, worker: WorkerProcess, outcome: asyncio.Future[Applied | None]) -> None:
        answer = outcome.result()
        self._note(answer)
        if answer is not None:
            worker.is_in_force = True
            self._early = 0
            self._tell()
        elif not self._stopping:
            self._early += 1
            if self._early >= DOUBTFUL and (self._doubts is None or self._doubts.done()):
                self._doubts = asyncio.create_task(self._doubt())

    async def _doubt(self) -> None:
        """What was good once ends every worker that begins with it: put it piece by piece, into one that has nothing."""
        async with self._turn:
            if self._early < DOUBTFUL:
                return
            whole = tuple(sorted(self._good.values(), key=lambda part: RANK[key(part)[0]]))
            self._good.clear()
            self._is_doubting = True
            for worker in self._following:
                worker.is_whole = worker.is_in_force  # the others were told of a whole that may end them
            try:
                await self._try(Change(self.version, whole), deaths=1, settle=SETTLED)
            except StoppedError:
                pass
            finally:
                self._early = 0
                self._is_doubting = False
                for worker in self._following:
                    worker.is_whole = True

    def _in_force(self) -> list[WorkerProcess]:
        return [worker for worker in self._following if worker.is_in_force]

    def _say(self, words: str) -> None:
        try:
            self.on_failure(words)
        except Exception:  # whoever listens must not keep a worker from being replaced
            log.exception("%s", words)

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._news.wait()

    async def _until_some(self, workers: Callable[[], Sequence[WorkerProcess]]) -> None:
        """Until there is a worker. Raises StoppedError where there will be none."""
        await self._until(lambda: bool(workers()) or self._stopping)
        if self._stopping:
            raise StoppedError

    async def _spawn(self, index: int) -> WorkerProcess:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        process = None
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "gateway.process.worker", "--fd", str(theirs.fileno()), "--index", str(index),
                    "--count", str(self._count), "--bind", self.bind, "--port-offset", str(self.port_offset),
                    "--memory", str(self._memory), pass_fds=(theirs.fileno(), self._memory),
                    stdin=asyncio.subprocess.DEVNULL, env=_environment(),
                )  # fmt: skip
            reader, writer = await asyncio.open_connection(sock=ours, limit=1 << 26)
        except BaseException:
            ours.close()
            if process is not None and process.returncode is None:
                process.kill()
            raise
        framing.write(writer, Tickets(self._tickets))
        return WorkerProcess(index, process, reader, writer)


def _words(has_good: bool) -> str:
    """What is said of a part that is set aside."""
    stays = "the one before it stays" if has_good else "it is not in force"
    return f"it ends the workers that put it into force and is set aside: {stays}; it is tried again when it is edited"


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
