"""Keeps the process of a program alive: an edit is a new one, which takes the place of the one before once it is good.

One that dies is replaced, the later the more often that was; one that broke the rules still later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from time import monotonic
from typing import Final

from gateway.base.logs import plain
from gateway.scripting.loader import ScriptError
from gateway.scripting.program import FilterProgram
from gateway.scripting.sandbox.forkserver_client import Forkserver
from gateway.scripting.sandbox.host import SandboxedFilter
from gateway.scripting.services import FilterServices, Supply
from gateway.snapshot import Script

log = logging.getLogger("fsm.filters")
AGAIN: Final = (0.0, 0.1, 0.5, 2.0, 5.0)  # seconds before a process that died is replaced, the more often the longer
# The same for one that broke the rules: not to be borne for long, but it may have been another's data.
PUNISHED: Final = (0.5, 2.0, 5.0, 15.0, 60.0)
CALM: Final = 30.0  # seconds that a process must have lived for deaths before it to be forgotten


class SandboxSupervisor:
    """Keeps a sandboxed filter's process alive, and the newest source in force."""

    def __init__(self, forkserver: Forkserver, program: FilterProgram, supply: Supply) -> None:
        self._supply = supply
        self._forkserver = forkserver
        self._program = program
        self._deaths = 0
        self._next_attempt: asyncio.Task[None] | None = None
        self._wanted: Script | None = None  # the newest source; what is brought up for another never comes into force

    async def put(self, script: Script) -> bool:
        """Bring a source into force; False where a newer one was wanted meanwhile. Raises ScriptError; what was in force before
        stays then."""
        before, self._wanted = self._wanted, script
        self._attempt(None)
        try:
            return await self._bring(script)
        except BaseException:
            if self._wanted == script:
                self._wanted = before
                hooks = self._program.hooks
                if isinstance(hooks, SandboxedFilter) and hooks.is_dead and self._next_attempt is None:
                    self._follow(hooks)  # what was to replace it was called off
                elif hooks is None and before is not None:
                    self.keep_trying(before)
            raise

    async def _bring(self, script: Script) -> bool:
        """Start a process, which takes the place of the one before, if its source is still wanted once it is ready."""
        sandbox = SandboxedFilter(self._forkserver, self._supply(script))
        await sandbox.start()
        if self._wanted != script:
            sandbox.retire()
            return False
        before, self._program.hooks = self._program.hooks, sandbox
        if before is not None:
            if isinstance(before, SandboxedFilter) and before.script != script:
                self._deaths = 0
            before.retire()
        sandbox.on_death = self._died
        if sandbox.is_dead:  # already
            self._died(sandbox)
        return True

    def keep_trying(self, script: Script) -> None:
        """Nothing is in force, and no line of the source was to blame: it may have been the moment."""
        self._wanted = script
        self._attempt(self._try_again(script))

    def _attempt(self, work: Coroutine[None, None, None] | None) -> None:
        """What is tried next, in place of what was to be tried."""
        before = self._next_attempt
        if before is not None and before is not asyncio.current_task():
            before.cancel()
        self._next_attempt = asyncio.create_task(work) if work is not None else None

    async def _try_again(self, script: Script) -> None:
        for delay in (*AGAIN[1:], *(AGAIN[-1],) * 10):
            await asyncio.sleep(delay)
            error = await self._failure(script)
            if error is None or (isinstance(error, ScriptError) and error.line):
                return

    async def _failure(self, script: Script) -> Exception | None:
        """Try once more; what was in the way."""
        try:
            await self._bring(script)
        except Exception as error:
            log.error("filter %s", error if isinstance(error, ScriptError) else plain(f"{self._program.name}: {error!r}"))
            return error
        return None

    def drop(self) -> None:
        """The filter is gone: end its process, and bring up no other."""
        self._wanted = None
        self._attempt(None)
        if isinstance(self._program.hooks, SandboxedFilter):
            self._program.hooks.retire()

    def _died(self, dead: SandboxedFilter) -> None:
        if monotonic() - dead.began > CALM:
            self._deaths = 0
        self._follow(dead)

    def _follow(self, dead: SandboxedFilter) -> None:
        """Have another in the place of one that died, the later the more have."""
        if self._program.hooks is not dead:
            return
        delays = PUNISHED if dead.broke_rules else AGAIN
        delay = delays[min(self._deaths, len(delays) - 1)]
        self._deaths += 1
        log.error("filter %s: %s; another follows in %g s", self._program.name, dead.end, delay)
        self._attempt(self._replace(dead, delay))

    async def _replace(self, dead: SandboxedFilter, delay: float) -> None:
        await asyncio.sleep(delay)
        if self._program.hooks is dead and await self._failure(dead.script) is not None:
            self._follow(dead)


async def tried(forkserver: Forkserver, supplies: FilterServices) -> None:
    """Load a source and run its tests where they can do no harm. Raises ScriptError."""
    sandbox = SandboxedFilter(forkserver, supplies)
    await sandbox.start()
    sandbox.retire()
