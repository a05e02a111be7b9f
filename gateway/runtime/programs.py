"""The filters in Python of a worker: loaded here or in processes of their own, with their timers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial

import msgspec

from gateway.filters import builtin
from gateway.filters.api.filter_metrics import Room
from gateway.interfaces import Endpoint
from gateway.scripting import loader
from gateway.scripting.program import FilterProgram
from gateway.scripting.sandbox import supervisor
from gateway.scripting.sandbox.forkserver_client import Forkserver
from gateway.scripting.services import ServiceFactory, Supply, supplier
from gateway.scripting.shared_state.memory import Memory
from gateway.scripting.timers import LAST, Timers
from gateway.scripting.watchdog import watch
from gateway.snapshot import Parts, Script, key
from gateway.tls.contexts import Security

log = logging.getLogger("fsm.filters")


class Programs:
    """Filters by name."""

    def __init__(
        self, parts: Parts, reach: Callable[[str, int, Security | None], Endpoint], memory: int | None, index: int, count: int
    ) -> None:
        self._parts = parts
        self.by_name: dict[str, FilterProgram] = {}
        self.forkserver = Forkserver()
        self._room = Room()  # for what they measure
        self._services = ServiceFactory(reach, memory, index, count)
        self._timers: dict[str, Timers] = {}  # of those that run here
        self._supervisors: dict[str, supervisor.SandboxSupervisor] = {}  # of those in processes of their own
        self._working: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> FilterProgram:
        """The program of a name; one whose source has not come cannot be used yet."""
        program = self.by_name.get(name)
        if program is None:
            program = self.by_name[name] = FilterProgram(name, self._room)
        return program

    def shared_memory(self) -> Memory:
        """The memory that all workers map."""
        return self._services.memory()

    async def put(self, part: Script) -> None:
        """Put a source into force. Raises ScriptError where it cannot be used; the one before stays then."""
        program = self.get(part.name)
        supply = supplier(self._services, program.measures)
        if part.execution == "inline":
            await self._put_inline(part, program, supply)
        elif not await self._put_in_process(part, program, supply):
            return  # something newer is in force
        program.passes, program.patience = part.passes, part.seconds
        if part.built_in:
            program.measures.own()
        elif program.measures.dropped:
            program.measures.forget()  # the source before this one measured too much

    async def _put_inline(self, part: Script, program: FilterProgram, supply: Supply) -> None:
        source = builtin.source(part.built_in) if part.built_in else part.source
        if part.is_tried and not part.built_in:
            await supervisor.tried(self.forkserver, supply(part))
        watch.start()
        try:
            code = loader.load(part.name, source, part.config, supply(part).inline())
        except SystemExit:
            raise loader.ScriptError(part.name, 0, "it ends the process that loads it (SystemExit)") from None
        # Nothing is awaited from here on: what was in force, wherever it came from meanwhile, is ended.
        before, program.hooks = program.hooks, code
        if part.name in self._supervisors:
            self._supervisors.pop(part.name).drop()
        if before is not None:
            before.retire()
        self._stop_timers(part.name)
        if code.timers:
            self._timers[part.name] = Timers(code.timers, partial(program.run, hooks=code))
        program.overdue = partial(self._move_out, part) if not part.built_in else lambda: None

    async def _put_in_process(self, part: Script, program: FilterProgram, supply: Supply) -> bool:
        """Whether it is in force, rather than something newer."""
        before = self._supervisors.get(part.name)
        kept = before or supervisor.SandboxSupervisor(self.forkserver, program, supply)
        self._supervisors[part.name] = kept
        try:
            is_in_force = await kept.put(part)
        except loader.ScriptError as error:
            if program.hooks is None:
                program.passes, program.patience = part.passes, part.seconds
                if not error.line:
                    kept.keep_trying(part)
            elif before is None and self._supervisors.get(part.name) is kept:
                del self._supervisors[part.name]  # what runs in this process stays
            raise
        if is_in_force:
            self._stop_timers(part.name)
        return is_in_force

    def _move_out(self, part: Script) -> None:
        """A filter keeps this worker from its work: from now on it runs in a process of its own, until it is edited."""
        self.get(part.name).overdue = lambda: None
        log.error("filter %s keeps a worker from its work and is moved to a process of its own", part.name)
        self._spawn(self._put_elsewhere(part))

    def _stop_timers(self, name: str) -> None:
        timers = self._timers.pop(name, None)
        if timers is not None:
            self._spawn(timers.stop())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _put_elsewhere(self, part: Script) -> None:
        try:
            if self._parts.get(key(part)) == part and part.name not in self._supervisors:
                await self.put(msgspec.structs.replace(part, execution="process"))
        except ValueError as error:
            log.error("filter %s stays where it is: %s", part.name, error)
        program = self.get(part.name)
        if self._parts.get(key(part)) == part and isinstance(program.hooks, loader.Code):
            program.overdue = partial(self._move_out, part)  # the next time, then

    async def stop(self) -> None:
        """Let timers run for the last time, and end the processes of filters."""
        for name in list(self._timers):
            self._stop_timers(name)
        if self._working:
            await asyncio.wait(self._working, timeout=LAST)
        for kept in self._supervisors.values():
            kept.drop()
        await self.forkserver.stop()
        await self._services.close()

    def tried(self) -> list[str]:
        """The filters that processes are made for, also those that never came into force."""
        return list(self._supervisors)

    def drop(self, name: str) -> None:
        """A filter is gone."""
        kept = self._supervisors.pop(name, None)
        if kept is not None:
            kept.drop()
        self._stop_timers(name)
        program = self.get(name)
        if program.hooks is not None:
            program.hooks.retire()
        program.hooks = None
        program.measures.forget()
