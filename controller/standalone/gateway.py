"""Standalone mode: files instead of a cluster, workers as children instead of a Deployment; the rest is the same."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from controller.delivery.reconcile import Reconciler
from controller.files.source import FileSource
from controller.files.watcher import Watcher
from controller.inspect.status_report import complaint, described, parts
from controller.objects.base import Ref
from controller.objects.documents import DocumentFault
from controller.standalone.source_editor import SourceEditor
from controller.state.problems import ObjectProblem
from controller.state.world import Report, World
from controller.translate import GatewayName
from controller.translate.gateways.gateways import Running
from controller.translate.shared.status import Status
from controller.translate.xbackends import Pods
from gateway.admin.server import Admin, Saved
from gateway.process.supervisor import Workers
from gateway.snapshot import Change, Key, Listener, Part, Relay, Rule, key
from gateway.snapshot import Problem as PartProblem

# What is told of statuses as it comes up: that what was written is refused or has no effect. Of sockets the workers tell.
_TOLD: Final = ("Accepted", "ResolvedRefs", "FailingClosed")
_TOLD_BY_WORKERS: Final = ("ScriptInvalid", "PortUnavailable")


class Standalone:
    """A gateway on files. Also the reconciler's sink."""

    def __init__(
        self, path: Path, *, bind: str = "127.0.0.1", port_offset: int = 0, workers: int = 1, inline: bool = False
    ) -> None:
        self.world = World()
        self.world.note(("setting", "addresses"), (bind or "0.0.0.0",))
        self.world.note(("setting", "loopback backends"), True)
        self.world.note(("setting", "inline filters"), "default" if inline else "")
        self.source = FileSource(path, self.world)
        self.workers = Workers(workers, bind=bind, port_offset=port_offset)
        self.reconciler = Reconciler(self.world, self, before=self._look)
        editor = SourceEditor(self.world, self.source, self._after)
        self.admin = Admin(self.workers, extra={"/status": self._statuses, "/faults": self._faults}, editor=editor)
        self.on_applied: Callable[[Change, float, tuple[PartProblem, ...]], None] = lambda *_: None
        self.on_faults: Callable[[list[DocumentFault]], None] = lambda _: None
        self.on_refusals: Callable[[list[DocumentFault]], None] = lambda _: None
        self.on_problem: Callable[[str], None] = lambda _: None
        self.reconciler.problems.told = self._told
        self._path = path
        self._watcher: Watcher | None = None
        self._rules: dict[str, dict[GatewayName, Rule]] = {}
        self._shared: dict[Key, dict[GatewayName, Part]] = {}
        self._gateways: set[GatewayName] = set()
        self._crowded_out: dict[str, tuple[Listener, str]] = {}  # listeners that others are in the way of, and the words
        self._said: list[DocumentFault] = []
        self._refusals: dict[Ref, list[DocumentFault]] = {}
        self._first = True
        self._seen = 0.0  # when files changed that nobody has looked at yet
        self._began = 0.0  # when those changed whose meaning is on its way
        self._task: asyncio.Task[None] | None = None

    async def start(self, admin: tuple[str, int] | None) -> None:
        """Start the workers, bring everything up once, and follow the files from then on."""
        if admin is not None:
            await self.admin.start(*admin)  # first: whether there is a worker yet is what health says
        await self.workers.start()
        loop = asyncio.get_running_loop()
        self._watcher = Watcher(self._path, loop.call_soon_threadsafe, self._changed)
        self._changed()
        await self.reconciler.round()
        await self.reconciler.round()  # what the workers acknowledged goes into the statuses
        self.admin.ready = True
        self._task = asyncio.create_task(self.reconciler.run())

    async def stop(self, *, delay: float = 0.0, grace: float = 5.0) -> None:
        """Readiness fails first; then the workers drain."""
        self.admin.ready = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._watcher is not None:
            await asyncio.to_thread(self._watcher.stop)
        await self.workers.stop(delay=delay, grace=grace)
        await self.admin.stop()

    def _changed(self) -> None:
        self._seen = self._seen or time.perf_counter()
        self.reconciler.wake()

    async def _look(self) -> None:
        """Read what has changed; the reconciler calls this before each round."""
        if self._seen:  # an edit before this one that changed nothing has not been on its way since
            self._began, self._seen = self._seen, 0.0
        if self._first:
            self._first = False
            self.source.load()
        elif self._watcher is not None:
            self.source.load(self._watcher.take())
        if self.source.faults != self._said:
            self._said = list(self.source.faults)
            self.on_faults(self._said)

    async def _after(self, file: Path, name: str) -> Saved:
        """What became of a filter whose file was written: once that is known."""
        assert self._watcher is not None
        began = time.perf_counter()
        self._watcher.note([file])
        await self.reconciler.settled()
        took = time.perf_counter() - began
        problem = next((one.message for one in self.workers.problems if one.part == name), "")
        if problem:
            return Saved(False, f"not in force: {problem}; the last good one stays")
        faults = [str(fault) for fault in self.source.faults if fault.file == str(file)]
        if faults:
            return Saved(False, f"not in force: {faults[0]}")
        if ("script", name) not in self.workers.parts:
            return Saved(False, "written, but no rule that is served uses it")
        return Saved(True, f"in force after {took * 1000:.1f} ms")

    # --- Sink ---

    async def publish(self, gateway: GatewayName, change: Change) -> None:
        """All Gateways share the workers here; a rule of several Gateways applies at all their listeners."""
        put: dict[Key, Part] = {}
        drop: list[Key] = []
        for part in change.put:
            owners = self._shared.setdefault(key(part), {})
            owners[gateway] = part
            put[key(part)] = _merged(list(owners.values()))
        for k in change.drop:
            owners = self._shared.get(k, {})
            owners.pop(gateway, None)
            if owners:
                put[k] = _merged(list(owners.values()))
            else:
                self._shared.pop(k, None)
                drop.append(k)
        self._keep_apart(put, drop)
        merged = Change(change.version, tuple(put.values()), tuple(drop))
        problems = await self.workers.apply(merged)
        started, self._began = self._began or time.perf_counter(), 0.0
        took = time.perf_counter() - started
        names = tuple(f"{kind} {name}" for kind, name in (*map(key, merged.put), *merged.drop))
        self.admin.applied(change.version, names, took)
        self.on_applied(merged, took, problems)
        self._gateways.add(gateway)
        for one in self._gateways:  # what one Gateway lets go, another may get
            self._report(one, problems)

    def _keep_apart(self, put: dict[Key, Part], drop: list[Key]) -> None:
        """On a cluster each Gateway has an address of its own; here a port and hostname can be only one listener's."""
        serving = {part.name: part for part in self.workers.parts.values() if isinstance(part, Listener)}
        for kind, name in drop:
            if kind == "listener":
                serving.pop(name, None)
                self._crowded_out.pop(name, None)
        waiting = {name: listener for name, (listener, _) in self._crowded_out.items()}
        self._crowded_out.clear()
        for part in (*put.values(), *waiting.values()):
            if not isinstance(part, Listener):
                continue
            other = next((one for one in serving.values() if one.name != part.name and _collide(one, part)), None)
            if other is None:
                serving[part.name] = put[key(part)] = part
            else:
                self._crowded_out[part.name] = (
                    part,
                    f"port {part.port} is taken by listener {other.name} for the same hostname",
                )
        for name in self._crowded_out:
            put.pop(("listener", name), None)
            if ("listener", name) in self.workers.parts:
                drop.append(("listener", name))

    def _report(self, gateway: GatewayName, problems: tuple[PartProblem, ...]) -> None:
        # Its own listeners, and those of its ListenerSets.
        parts = self.reconciler.publications[gateway].parts
        names = {name for kind, name in parts if kind in ("listener", "script")}
        own = tuple((p.part, p.message) for p in problems if p.part in names)
        own += tuple((name, words) for name, (_, words) in self._crowded_out.items() if name in names)
        if self.world.note(("report", *gateway), Report(True, "Served by this process.", own)):
            self.reconciler.wake()

    async def write(self, statuses: dict[Ref, Status | None]) -> None:
        """There is no API server to hold them: they are shown instead, and refusals told as they come up."""
        news: list[DocumentFault] = []
        for ref, status in statuses.items():
            before = self._refusals.pop(ref, [])
            now = self._refused(ref, status) if status is not None else []
            if now:
                self._refusals[ref] = now
            news += [fault for fault in now if fault not in before]
        if news:
            self.on_refusals(news)

    def _refused(self, ref: Ref, status: Status) -> list[DocumentFault]:
        file, line = self.source.origins.get(ref, (str(self._path), 0))
        return [
            DocumentFault(file, line, words, name)
            for name, said in parts(ref, status)
            for condition in said
            if condition.type in _TOLD and condition.reason not in _TOLD_BY_WORKERS
            if (words := complaint(condition))
        ]

    async def look_for(self, pods: dict[Ref, Pods | None]) -> None:
        """Here are no pods: whoever writes the files writes their EndpointSlices."""

    async def follow(self, gateways: dict[GatewayName, Running | None]) -> None:
        """The workers run already."""

    async def _statuses(self) -> Any:
        return described(self.reconciler.translator.statuses)

    async def _faults(self) -> Any:
        unable = [f"{problem.part} is not in force: {problem.message}" for problem in self.workers.problems]
        return [*map(str, self.source.faults), *map(str, self.reconciler.problems), *unable]

    def _told(self, problem: ObjectProblem) -> None:
        origin = self.source.origins.get(problem.about)
        self.on_problem(f"{f'{origin.file}:{origin.line}: ' if origin else ''}{problem}")


def _collide(one: Listener, other: Listener) -> bool:
    if one.port != other.port or (one.protocol != other.protocol and "UDP" in (one.protocol, other.protocol)):
        return False
    together = one.protocol == other.protocol or {one.protocol, other.protocol} == {"HTTPS", "TLS"}
    return not together or one.hostname == other.hostname


def _merged(parts: list[Part]) -> Part:
    first = parts[0]
    if not isinstance(first, Rule | Relay):
        return parts[-1]
    at = dict.fromkeys(at for part in parts if isinstance(part, Rule | Relay) for at in part.at)
    return msgspec.structs.replace(parts[-1], at=tuple(at))


def default_workers() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
