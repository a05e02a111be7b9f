"""Standalone mode: files instead of a cluster, workers as children instead of a Deployment; the rest is the same."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from controller.delivery.reconcile import Reconciler
from controller.files.source import FileSource, Origin
from controller.files.watcher import Watcher
from controller.inspect.complaints import Complaint, located, of_remarks, of_status
from controller.inspect.one_address import crowded_out
from controller.inspect.status_report import described
from controller.objects.base import Ref
from controller.objects.documents import DocumentFault
from controller.ports import sign
from controller.standalone.ports import OwnPorts, wanted
from controller.standalone.source_editor import SourceEditor
from controller.state.problems import ObjectProblem
from controller.state.world import Report, World
from controller.translate import GatewayName
from controller.translate.gateways.gateways import Running
from controller.translate.remarks import Remarks
from controller.translate.shared.names import FilterName
from controller.translate.shared.status import RouteStatus, Status
from controller.translate.xbackends import Pods
from gateway.admin.server import Admin, Saved
from gateway.process.supervisor import Workers
from gateway.snapshot import Change, Key, Listener, Part, Relay, Rule, key
from gateway.snapshot import Problem as PartProblem

_TOLD_BY_WORKERS: Final = "Accepted ScriptInvalid"  # as a problem of a part


class Summary(NamedTuple):
    """What is in force, in short."""

    routes: int
    listeners: tuple[Listener, ...]


class PortsUnavailableError(Exception):
    """Ports that others have, or that there cannot be: where, and in words."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


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
        self.world.note(("setting", "remarks"), True)
        self.reconciler = Reconciler(self.world, self, before=self._look, after=self._settled)
        editor = SourceEditor(self.world, self.source, self._after)
        extra = {"/status": self._statuses, "/faults": self._faults}
        self.admin = Admin(self.workers, extra=extra, editor=editor)
        self.on_applied: Callable[[Change, float, tuple[PartProblem, ...]], None] = lambda *_: None
        self.on_faults: Callable[[list[DocumentFault]], None] = lambda _: None
        self.on_complaints: Callable[[list[Complaint]], None] = lambda _: None  # all that there are, where they have changed
        self.on_problems: Callable[[tuple[PartProblem, ...]], None] = lambda _: None  # the same, of parts
        self.on_settled: Callable[[Summary], None] = lambda _: None
        self.on_problem: Callable[[str, bool], None] = lambda *_: None  # and whether it is one still
        self.on_failure: Callable[[str], None] = self.workers.on_failure
        self.workers.on_failure = self._failed
        self.reconciler.problems.told = partial(self._told, stands=True)
        self.reconciler.problems.over = partial(self._told, stands=False)
        self._path = path
        self._watcher: Watcher | None = None
        self._rules: dict[str, dict[GatewayName, Rule]] = {}
        self._shared: dict[Key, dict[GatewayName, Part]] = {}
        self._gateways: set[GatewayName] = set()
        self._served: dict[str, Listener] = {}
        self._without_place: dict[str, tuple[Listener, str]] = {}  # listeners that others are in the way of, and the words
        self._ports = OwnPorts(bind, port_offset, self._freed)
        self._sign: socket.socket | None = None  # at the port of the admin page
        self._said: list[DocumentFault] = []
        self._complaints: dict[Ref, list[Complaint]] = {}
        self._remarks: dict[Ref, Remarks] = {}
        self._have_changed = True  # what is complained of
        self._routes: set[Ref] = set()  # that are accepted
        self._unavailable: list[str] | None = None  # ports, at the start; None before anybody has looked
        self._is_freed = False  # a port that somebody else had
        self._first = True
        self._seen = 0.0  # when files changed that nobody has looked at yet
        self._began = 0.0  # when those changed whose meaning is on its way
        self._task: asyncio.Task[None] | None = None

    async def start(self, admin: tuple[str, int] | None) -> None:
        """Start the workers, bring everything up once, and follow the files from then on.

        Raises PortsUnavailableError where another process has a port that is to be served; nothing is served then.
        """
        if admin is not None:
            await self.admin.start(*admin)  # first: whether there is a worker yet is what health says
            self._sign = sign("TCP", int(self.admin.address.rpartition(":")[2]))
        await self.workers.start()
        loop = asyncio.get_running_loop()
        self._watcher = Watcher(self._path, loop.call_soon_threadsafe, self._changed)
        self._changed()
        await self.reconciler.round()
        if self._unavailable:
            raise PortsUnavailableError(self._unavailable)
        await self.reconciler.round()  # what the workers acknowledged goes into the statuses
        self._complain()
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
        self._ports.close()
        await self.admin.stop()
        if self._sign is not None:
            self._sign.close()

    @property
    def has_place_for_none(self) -> bool:
        """Whether there are listeners, and none can be served for want of a port."""
        return bool(self._without_place) and not self._serving()

    def summary(self) -> Summary:
        """What is in force, in short."""
        return Summary(len(self._routes), self._serving())

    def _serving(self) -> tuple[Listener, ...]:
        unable = {problem.part for problem in self.workers.problems}
        return tuple(one for name, one in sorted(self._served.items()) if name not in unable)

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
            self.source.load(self._watcher.take(), patient=True)
            if self.source.missing:
                self._watcher.note_gone(sorted(self.source.missing))
        faults = self.source.faults
        if faults != self._said:
            self._said = faults
            self.world.note(("refused",), frozenset(fault.object for fault in faults))
            self.on_faults(faults)
            self.admin.told()
        if self._is_freed:
            self._is_freed = False
            await self._try_again()

    async def _after(self, file: Path, name: str) -> Saved:
        """What became of a filter whose file was written: once that is known."""
        assert self._watcher is not None
        began = time.perf_counter()
        self._watcher.note([file])
        await self.reconciler.settled()
        took = time.perf_counter() - began
        problem = next((reported.message for reported in self.workers.problems if reported.part == name), "")
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
        if self._unavailable is None:
            self._unavailable = self._not_to_be_had()
        if self._unavailable and self._task is None:
            return  # nothing is served
        await self._apply(change.version, put, drop)
        self._gateways.add(gateway)
        self._report_all()

    async def _apply(self, version: str, put: dict[Key, Part], drop: list[Key]) -> None:
        self._keep_apart(put, drop)
        merged = Change(version, tuple(put.values()), tuple(drop))
        problems = await self.workers.apply(merged)
        self._ports.keep(map(wanted, self._served.values()))
        started, self._began = self._began or time.perf_counter(), 0.0
        took = time.perf_counter() - started
        names = tuple(f"{kind} {name}" for kind, name in (*map(key, merged.put), *merged.drop))
        self.admin.applied(version, names, took)
        self.on_applied(merged, took, problems)
        self.on_problems(tuple(one for one in problems if one.part not in self._served))  # of those their conditions tell

    def _report_all(self) -> None:
        for one in self._gateways:  # what one Gateway lets go, another may get
            self._report(one, self.workers.problems)

    # --- ports ---

    def _not_to_be_had(self) -> list[str]:
        """Take the ports of all listeners, before any is served; says of which ones nothing will come by itself."""
        found = []
        for _, parts in sorted(self.reconciler.translator.parts.items()):
            for part in parts.values():
                refused = self._ports.take(wanted(part)) if isinstance(part, Listener) else None
                if refused is not None and refused.is_final:
                    found.append(f"{key(part)[1]}: {refused.words}")
        return found

    def _freed(self) -> None:
        """Who had a port that is wanted here is gone."""
        self._is_freed = True
        self.reconciler.wake()

    async def _try_again(self) -> None:
        if self._without_place:
            await self._apply(self.workers.version, {}, [])
            self._report_all()

    def _keep_apart(self, put: dict[Key, Part], drop: list[Key]) -> None:
        """On a cluster each Gateway has an address of its own; here a port and hostname can be only one listener's.

        A port that another process has is nobody's; each change tries again, and so does the end of that process.
        """
        before = set(self._served)
        for kind, name in drop:
            if kind == "listener":
                self._served.pop(name, None)
                self._without_place.pop(name, None)
        waiting = {name: listener for name, (listener, _) in self._without_place.items()}
        self._without_place.clear()
        for part in [*put.values(), *waiting.values()]:
            if not isinstance(part, Listener) or (part.name in waiting and key(part) in put and part is not put[key(part)]):
                continue
            words = crowded_out(self._served.values(), part)
            if not words and (refused := self._ports.take(wanted(part))) is not None:
                words = refused.words
            if words:
                self._without_place[part.name] = (part, words)
                self._served.pop(part.name, None)
            else:
                self._served[part.name] = put[key(part)] = part
        for name in self._without_place:
            put.pop(("listener", name), None)
            if name in before:
                drop.append(("listener", name))

    def _report(self, gateway: GatewayName, problems: tuple[PartProblem, ...]) -> None:
        # Its own listeners, and those of its ListenerSets.
        parts = self.reconciler.publications[gateway].parts
        names = {name for kind, name in parts if kind in ("listener", "script")}
        own = tuple((p.part, p.message) for p in problems if p.part in names)
        own += tuple((name, words) for name, (_, words) in self._without_place.items() if name in names)
        if self.world.note(("report", *gateway), Report(True, "Served by this process.", own)):
            self.reconciler.wake()

    async def write(self, statuses: dict[Ref, Status | None]) -> None:
        """There is no API server to hold them: they are shown instead, and what they complain of is told."""
        for ref, status in statuses.items():
            before = self._complaints.pop(ref, [])
            now = of_status(ref, status) if status is not None else []
            if now:
                self._complaints[ref] = now
            self._have_changed |= now != before
            self._routes.discard(ref)
            if isinstance(status, RouteStatus) and any(parent.conditions[0].is_true for parent in status.parents):
                self._routes.add(ref)
        self.admin.told()

    async def _settled(self) -> None:
        if self._task is not None:  # before that there is more to come
            self._complain()
            self.on_settled(self.summary())

    def _complain(self) -> None:
        remarks = self.reconciler.translator.remarks
        if not self._have_changed and remarks == self._remarks:
            return
        self._have_changed, self._remarks = False, dict(remarks)
        self.on_complaints([one for one in self.complaints() if one.reason != _TOLD_BY_WORKERS])
        self.admin.told()

    def complaints(self) -> list[Complaint]:
        """All that is complained of now."""
        found = [one for _, several in sorted(self._complaints.items()) for one in several]
        return found + [one for ref, several in sorted(self._remarks.items()) for one in of_remarks(ref, several)]

    async def look_for(self, pods: dict[Ref, Pods | None]) -> None:
        """Here are no pods: whoever writes the files writes their EndpointSlices."""

    async def follow(self, gateways: dict[GatewayName, Running | None]) -> None:
        """The workers run already."""

    async def _statuses(self) -> Any:
        return described(self.reconciler.translator.statuses, self.reconciler.translator.remarks)

    async def _faults(self) -> list[DocumentFault]:
        """All that is wrong, each thing once: what a condition tells of a part is not told of the part again."""
        found, origins = self.complaints(), dict(self.source.origins)
        of_objects = [_as_fault(one, origins) for one in self.reconciler.problems]
        scripts = {str(FilterName(*one.about[1:], one.about.kind)) for one in found if one.reason == _TOLD_BY_WORKERS}
        unable = [one for one in self.workers.problems if one.part not in self._served]
        of_parts = [
            DocumentFault("", 0, not_in_force(one), one.part) for one in unable if one.part.partition("#")[0] not in scripts
        ]
        of_files = list(self.source.faults)
        of_conditions = await asyncio.to_thread(located, found, origins)  # it reads files, for lines
        return [*of_files, *of_objects, *of_conditions, *of_parts]

    def _told(self, problem: ObjectProblem, *, stands: bool) -> None:
        origin = self.source.origins.get(problem.about)
        self.on_problem(f"{f'{origin.file}:{origin.line}: ' if origin and stands else ''}{problem}", stands)
        self.admin.told()

    def _failed(self, words: str) -> None:
        self.on_failure(words)
        self.admin.told()  # perhaps something is set aside


def not_in_force(problem: PartProblem) -> str:
    """What is said of a part that cannot be put into force."""
    words = problem.message.removeprefix(problem.part).lstrip(" ,:")
    return f"is not in force: {words}"


def _as_fault(problem: ObjectProblem, origins: Mapping[Ref, Origin]) -> DocumentFault:
    file, line = origins.get(problem.about, ("", 0))
    return DocumentFault(file, line, problem.message, str(problem.about), problem.part)


def _merged(parts: list[Part]) -> Part:
    first = parts[0]
    if not isinstance(first, Rule | Relay):
        return parts[-1]
    at = dict.fromkeys(at for part in parts if isinstance(part, Rule | Relay) for at in part.at)
    return msgspec.structs.replace(parts[-1], at=tuple(at))


def default_workers() -> int:
    """One for each core that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
