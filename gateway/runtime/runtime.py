"""Bring a worker from one snapshot to the next: swap tables; open, keep and close listeners.

A change costs what changed: only the hostnames that it touches are compiled, endpoints change in place, and
nothing else is rebuilt. What cannot be built is reported as a problem, and what stood before it stays.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from gateway.base.clock import Clock
from gateway.l4.tcp import StreamCounters, StreamRoute, stream_listeners
from gateway.proxy.route import Counter, Route
from gateway.routing.table import HostKey, HostRules, RouteMatch, Table, compile_host
from gateway.runtime.backends import Backends
from gateway.runtime.certificates import Certificates
from gateway.runtime.memory_trimmer import Trimmer
from gateway.runtime.ports import OpenPort, Ports, mode_of
from gateway.runtime.problems import blamed
from gateway.runtime.programs import Programs
from gateway.scripting.listener_filters import is_early
from gateway.scripting.program import FilterProgram
from gateway.snapshot import (
    Attachment,
    Certificate,
    Change,
    Key,
    Listener,
    Part,
    Parts,
    Problem,
    Relay,
    Rule,
    Script,
    Scripted,
    Specificity,
    key,
)
from gateway.snapshot import Backend as BackendPart
from gateway.tls import contexts as tls
from gateway.transport.turns import Turns

MAX_EDIT_PARTS = 500  # parts in a change that is more than an edit
SLICE = 0.004  # seconds of work on a change before requests get their turn


@dataclass
class Affected:
    """What a change asks to be rebuilt."""

    hosts: set[HostKey] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)


class Pace:
    """Lets the loop do other work every few milliseconds."""

    def __init__(self) -> None:
        self._until = perf_counter() + SLICE

    async def rest(self) -> None:
        """Rest, if it is time to."""
        if perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = perf_counter() + SLICE


class Runtime:
    """One worker's state."""

    def __init__(
        self, *, bind: str = "", port_offset: int = 0, index: int = 0, count: int = 1, memory: int | None = None
    ) -> None:
        self._phase = index / count  # where weighted turns begin, so that workers together are as exact as one
        self.clock = Clock(asyncio.get_running_loop().time())
        self.parts: Parts = {}
        self.counters: dict[tuple[str, str], Counter] = {}
        self.tallies: dict[tuple[str, str], StreamCounters] = {}  # by relay and backend
        self.steps = 0  # of changes; who asks sees whether there is progress
        self._quiet = asyncio.Event()
        self.turns = Turns()
        self._trimmer = Trimmer()
        self._certificates = Certificates(self.parts)
        self.backends = Backends(self.clock, self.turns, self._certificates, lambda: self.programs.shared_memory())
        self.programs = Programs(self.parts, self.backends.reach, memory, index, count)
        self.ports = Ports(bind, port_offset, self.clock, self.turns, self.backends.get, self._certificates, self._quiet.set)
        self._listeners: dict[str, Listener] = {}
        self._entries: dict[str, tuple[RouteMatch[Route], ...]] = {}  # of each rule; they share its route
        self._members: dict[HostKey, dict[str, Specificity]] = {}  # the rules of each hostname
        self._hosts: dict[str, dict[HostKey, HostRules[Route]]] = {}  # by listener
        self._stream_routes: dict[str, StreamRoute] = {}  # by relay
        self._relays: dict[str, dict[str, None]] = {}  # by listener

    # --- changes ---

    async def apply(self, change: Change) -> list[Problem]:
        """Bring the worker forward. Returns what could not be done, part by part.

        Requests go on meanwhile, by the tables that stand: a large change is worked through in slices.
        """
        is_large = len(change.put) > MAX_EDIT_PARTS
        if is_large:
            gc.disable()  # all of it stays: a collection would stop the loop and find nothing
        try:
            return await self._apply(change)
        finally:
            if is_large:
                gc.freeze()
                gc.enable()

    async def _apply(self, change: Change) -> list[Problem]:
        """Whatever one part makes our code raise is a problem of that part; everything else comes into force."""
        problems: list[Problem] = []
        affected = Affected()
        pace = Pace()
        drop = list(change.drop)
        if change.reset:
            staying = {key(part) for part in change.put}
            drop = [k for k in self.parts if k not in staying]
            known = staying | self.parts.keys()
            drop += [k for name in self.programs.tried() if (k := ("script", name)) not in known]
        for part in change.put:
            await self._step(pace)
            old = self.parts.get(key(part))
            if old == part:
                continue
            with blamed(problems, part.name):
                if isinstance(part, Script):
                    await self.programs.put(part)
                    spec = Scripted(part.name)
                    affected.ports.update(listener.port for listener in self._listeners.values() if spec in listener.filters)
                else:
                    self._put(part, old, affected, problems)
                self.parts[key(part)] = part
        for k in drop:
            if k[0] != "backend":
                await self._step(pace)
                with blamed(problems, k[1]):
                    self._drop(k, affected)
        for host in affected.hosts:
            await self._step(pace)
            with blamed(problems, partial(self._suspects, host, change)):
                self._compile(host, affected)
        for port in sorted(affected.ports):
            self.steps += 1
            with blamed(problems, partial(self._names, port)):
                problems += await self._follow(port)
        for port in affected.ports:
            with blamed(problems, partial(self._names, port)):
                self._swap(port)
        for k in drop:
            if k[0] == "backend":  # not before no table leads there any more
                with blamed(problems, k[1]):
                    self._drop(k, affected)
        return problems

    async def _step(self, pace: Pace) -> None:
        self.steps += 1
        await pace.rest()

    def _suspects(self, host: HostKey, change: Change) -> list[str]:
        """The rules of a host that have changed: what is wrong with its table began with them."""
        names = self._members.get(host, {})
        return [part.name for part in change.put if isinstance(part, Rule) and part.name in names] or [*names] or [host[0]]

    def _names(self, port: int) -> list[str]:
        return [listener.name for listener in self._listeners.values() if listener.port == port] or [f"port {port}"]

    def _put(self, part: Part, old: Part | None, affected: Affected, problems: list[Problem]) -> None:
        match part:
            case BackendPart():
                self.backends.put(part)
            case Rule():
                self._put_rule(part, old if isinstance(old, Rule) else None, affected)
            case Relay():
                self._put_relay(part, old if isinstance(old, Relay) else None, affected)
            case Listener():
                self._listeners[part.name] = part
                affected.ports.add(part.port)
                if isinstance(old, Listener):
                    affected.ports.add(old.port)
            case Certificate():
                tls.context(part)  # refused here, so that the old one stays
                affected.ports.update(
                    listener.port for listener in self._listeners.values() if part.name in listener.certificates
                )
                self._renew_backends(part, problems)

    def _drop(self, k: Key, affected: Affected) -> None:
        part = self.parts.pop(k, None)
        if k[0] == "script":
            self.programs.drop(k[1])  # also one that never came into force, and is still tried
        match part:
            case BackendPart():
                self.backends.put(BackendPart(part.name))
            case Rule():
                self._detach(part, affected)
                self._entries.pop(part.name, None)
            case Relay():
                self._detach_relay(part, affected)
                self._stream_routes.pop(part.name, None)
            case Listener():
                self._listeners.pop(part.name, None)
                self._certificates.forget_listener(part.name)
                affected.ports.add(part.port)
            case _:
                pass

    def _put_rule(self, rule: Rule, old: Rule | None, affected: Affected) -> None:
        before = self._entries.get(rule.name)
        route = before[0].route if before else None
        same = old is not None and _leads(old) == _leads(rule)
        if route is None or not same:
            route = Route(rule, self.backends.get, self.counter, self.programs.get, self._phase)
        entries = tuple(RouteMatch(match, rule.order, route) for match in rule.matches)
        for entry in entries:
            HostRules([entry])  # compiles its expressions; refused here, the old rule stays
        if old is not None:
            self._detach(old, affected)
        self._entries[rule.name] = entries
        for at in rule.at:
            host = (at.listener, at.hostname)
            members = self._members.get(host)
            if members is None:
                members = self._members[host] = {}
            members[rule.name] = at.specificity
            affected.hosts.add(host)

    def _detach(self, rule: Rule, affected: Affected) -> None:
        for at in rule.at:
            self._members.get((at.listener, at.hostname), {}).pop(rule.name, None)
            affected.hosts.add((at.listener, at.hostname))

    def _put_relay(self, relay: Relay, old: Relay | None, affected: Affected) -> None:
        if old is None or (old.targets, old.filters) != (relay.targets, relay.filters):
            self._stream_routes[relay.name] = StreamRoute(
                relay, self.backends.get, self.programs.get, self._phase, self._stream_counters
            )
        if old is not None:
            self._detach_relay(old, affected)
        for at in relay.at:
            self._relays.setdefault(at.listener, {})[relay.name] = None
            self._affect_listener(at.listener, affected)

    def _detach_relay(self, relay: Relay, affected: Affected) -> None:
        for at in relay.at:
            self._relays.get(at.listener, {}).pop(relay.name, None)
            self._affect_listener(at.listener, affected)

    def _affect_listener(self, name: str, affected: Affected) -> None:
        if name in self._listeners:
            affected.ports.add(self._listeners[name].port)

    def _compile(self, host: HostKey, affected: Affected) -> None:
        """Build what a change affected beside what stands."""
        names = self._members.get(host)
        if names:
            entries = ((specificity, self._entries[name]) for name, specificity in names.items())
            self._hosts.setdefault(host[0], {})[host] = compile_host(entries)
        else:
            self._hosts.get(host[0], {}).pop(host, None)
            self._members.pop(host, None)
        if host[0] in self._listeners:
            affected.ports.add(self._listeners[host[0]].port)

    def _swap(self, port: int) -> None:
        """One assignment a port; requests under way keep the table they started with."""
        if port in self.ports.udp:
            lines = self._stream_listener(self._listeners_of(port, udp=True))
            self.ports.udp[port].line = lines.get("")
            for listener in self._listeners_of(port, udp=True)[:1]:
                self.ports.udp[port].limits = listener.limits
        if port not in self.ports.tcp:
            return
        listeners = self._listeners_of(port)
        owners = {listener.hostname: listener.name for listener in listeners}
        hosts: dict[HostKey, HostRules[Route]] = {}
        for name in owners.values():
            hosts.update(self._hosts.get(name, {}))
        opened = self.ports.tcp[port]
        listener_port = opened.listener_port
        listener_port.table = Table(owners, hosts, listener_port.virtual_hosts, secure=listener_port.scheme == b"https")
        opened.stream_listener.lines = self._stream_listener(listeners)
        opened.stream_listener.modes = {listener.hostname: mode_of(listener) for listener in listeners}
        self._update_port_filters(opened, listeners)
        limits = listeners[0].limits
        opened.stream_listener.limits = limits
        if listener_port.limits != limits:
            listener_port.limit(limits)

    def _update_port_filters(self, opened: OpenPort, listeners: Sequence[Listener]) -> None:
        """Have the listeners' filters at their port."""
        opened.gate.programs, arrivals = self._port_filters(listeners)
        opened.listener_port.meet(arrivals)

    def _port_filters(self, listeners: Sequence[Listener]) -> tuple[tuple[FilterProgram, ...], tuple[FilterProgram, ...]]:
        """Filters that meet connections (those that cannot be used, too: nobody may pass them), and that meet requests."""
        names = dict.fromkeys(spec.script for listener in listeners for spec in listener.filters)
        programs = [self.programs.get(name) for name in names]
        gating = tuple(p for p in programs if p.hooks is None or p.hooks.connect is not None)
        return gating, tuple(p for p in programs if p.hooks is not None and is_early(p.hooks))

    def _stream_listener(self, listeners: Sequence[Listener]) -> Mapping[str, StreamRoute]:
        """Which relay carries the connections of which hostname."""
        attached: list[tuple[Attachment, Relay]] = []
        for listener in listeners:
            for name in self._relays.get(listener.name, ()):
                relay = self.parts[("relay", name)]
                assert isinstance(relay, Relay)
                attached += [(at, relay) for at in relay.at if at.listener == listener.name]
        return stream_listeners(attached, lambda relay: self._stream_routes[relay.name])

    def _listeners_of(self, port: int, *, udp: bool = False) -> list[Listener]:
        return [
            listener for listener in self._listeners.values() if listener.port == port and (listener.protocol == "UDP") == udp
        ]

    def counter(self, rule: str, backend: str) -> Counter:
        """The counter of a target; it outlives changes of the rule."""
        return self.counters.setdefault((rule, backend), Counter())

    def _stream_counters(self, relay: str, backend: str) -> StreamCounters:
        """The same of a relay's target; of what came to none, with backend ""."""
        return self.tallies.setdefault((relay, backend), StreamCounters())

    async def _follow(self, port: int) -> list[Problem]:
        """Open, keep or close a port, as its listeners say."""
        listeners = self._listeners_of(port)
        gating, _ = self._port_filters(listeners)
        return [
            *await self.ports.open_or_close_tcp(port, listeners, gating),
            *await self.ports.open_or_close_udp(port, self._listeners_of(port, udp=True)),
        ]

    def _renew_backends(self, certificate: Certificate, problems: list[Problem]) -> None:
        """Backends to which a certificate of ours is shown: connections that stand stay, new ones show the new one."""
        self.parts[key(certificate)] = certificate
        for part in list(self.parts.values()):
            if isinstance(part, BackendPart) and part.tls is not None and part.tls.certificate == certificate.name:
                self._certificates.forget_backend(part.name)
                with blamed(problems, part.name):
                    self.backends.put(part)

    # --- time, and the end ---

    def tick(self, now: float) -> None:
        """Once a second: close what has waited too long."""
        self.clock.now = now
        self.ports.tick(now)
        self.backends.pools.sweep()
        self._trimmer.tick(now)

    def drain(self) -> None:
        """From now on every answer closes its connection; new connections are still served."""
        self.ports.drain()

    async def wait_idle(self) -> None:
        """Until no request and no tunnel is under way."""
        while self.ports.busy():
            self._quiet.clear()
            await self._quiet.wait()

    def close(self) -> None:
        """Accept nothing more, and let idle connections go."""
        self.backends.stop_checks()
        self.ports.close()


def _leads(rule: Rule) -> tuple[object, ...]:
    """Everything of a rule but when it applies."""
    return rule.targets, rule.filters, rule.timeouts, rule.retry, rule.persistence, rule.grpc
