"""Bring a worker from one snapshot to the next: swap tables; open, keep and close listeners.

A change costs what changed: only the hostnames that it touches are compiled, endpoints change in place, and
nothing else is rebuilt. What cannot be built is reported as a problem, and what stood before it stays.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import ssl
from collections import Counter as Tally
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Literal, Protocol, TypeAlias

import msgspec

from gateway.base.clock import Clock
from gateway.downstream.alpn import AlpnProtocol
from gateway.downstream.http1 import DownstreamHttp1
from gateway.downstream.port import ListenerPort
from gateway.filters import builtin
from gateway.filters.api.filter_metrics import Room
from gateway.interfaces import Endpoint
from gateway.l4 import splice
from gateway.l4.tcp import Mode, StreamConnection, StreamListener, StreamRoute, TlsInspector, stream_listeners
from gateway.l4.tcp import StreamCounters as RelayTally
from gateway.l4.udp import Datagrams
from gateway.proxy.route import Counter, Route
from gateway.routing.table import HostKey, HostRules, RouteMatch, Table
from gateway.runtime.memory_trimmer import Trimmer
from gateway.scripting import loader
from gateway.scripting.listener_filters import ConnectionGate, is_early
from gateway.scripting.program import FilterProgram
from gateway.scripting.sandbox import supervisor
from gateway.scripting.sandbox.forkserver_client import Forkserver
from gateway.scripting.sandbox.host import SandboxedFilter
from gateway.scripting.services import ServiceFactory, supplier
from gateway.scripting.timers import LAST, Timers
from gateway.scripting.watchdog import watch
from gateway.snapshot import Backend as BackendPart
from gateway.snapshot import (
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
    key,
)
from gateway.tls import contexts as tls
from gateway.transport.turns import Turns
from gateway.upstream.backend import Backend
from gateway.upstream.health_checks import Checks
from gateway.upstream.pools import Address, Pools

log = logging.getLogger("fsm.filters")
HANDSHAKE = 10.0  # seconds that a client may take for a TLS handshake
BACKLOG = 4096
LARGE = 500  # parts in a change that is more than an edit
SLICE = 0.004  # seconds of work on a change before requests get their turn


class Closeable(Protocol):
    """What accepts connections."""

    def close(self) -> None:
        """Accept no more."""


@dataclass
class Open:
    """A TCP port that is open."""

    way: Way
    listener_port: ListenerPort  # HTTP requests go through it
    stream_listener: StreamListener  # connections that are passed on as bytes
    chooser: tls.Chooser
    gate: ConnectionGate
    server: Closeable


@dataclass
class Touched:
    """What a change asks to be rebuilt."""

    hosts: set[HostKey] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)


# How a port's connections begin: in the clear, with TLS, with a look at the ClientHello first, or as bytes of no concern.
Way: TypeAlias = Literal["plain", "tls", "peek", "bytes"]


def way_of(listeners: Sequence[Listener]) -> Way:
    """How the connections of these listeners, which share a port, begin."""
    if any(listener.passthrough for listener in listeners):
        return "peek"
    match listeners[0].protocol:
        case "TCP":
            return "bytes"
        case "HTTP":
            return "plain"
        case _:
            return "tls"


@contextmanager
def blamed(problems: list[Problem], whom: str | Callable[[], list[str]]) -> Iterator[None]:
    """What is raised here is a problem of these parts. ValueErrors are about what was configured; others are our own faults."""
    try:
        yield
    except Exception as error:
        words = str(error)
        names = [whom] if isinstance(whom, str) else whom()
        if not isinstance(error, ValueError):
            logging.getLogger("fsm.worker").exception("%s cannot be put into force", ", ".join(names))
            words = f"the gateway fails at it ({type(error).__name__}: {error}); what was in force before stays where it can"
        problems += [Problem(name, words) for name in names]


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
        self._bind = bind
        self._offset = port_offset
        self._phase = index / count  # where weighted turns begin, so that workers together are as exact as one
        self.clock = Clock(asyncio.get_running_loop().time())
        self.parts: Parts = {}
        self.counters: dict[tuple[str, str], Counter] = {}
        self._turns = Turns()
        self._pools = Pools(self.clock, self._turns)
        self._addresses: Tally[Address] = Tally()
        self._reached: dict[str, tuple[Address, ...]] = {}  # by backend
        self._security: dict[str, tls.Security] = {}  # by backend
        self._backends: dict[str, Backend] = {}
        self._entries: dict[str, tuple[RouteMatch[Route], ...]] = {}  # of each rule; they share its route
        self._members: dict[HostKey, dict[str, None]] = {}  # the rules of each hostname
        self._listeners: dict[str, Listener] = {}
        self._hosts: dict[str, dict[HostKey, HostRules[Route]]] = {}  # by listener
        self._lines: dict[str, StreamRoute] = {}  # by relay
        self.tallies: dict[str, RelayTally] = {}  # by relay
        self.programs: dict[str, FilterProgram] = {}
        self._room = Room()  # for what their filters measure
        self.forkserver = Forkserver()
        self._stock = ServiceFactory(self._reach, memory, index, count)
        self._timers: dict[str, Timers] = {}  # of programs that run here
        self._working: set[asyncio.Task[None]] = set()
        self._keepers: dict[str, supervisor.SandboxSupervisor] = {}  # of programs in processes of their own
        self._relays: dict[str, dict[str, None]] = {}  # by listener
        self._contexts: dict[str, tuple[object, list[tls.Shown]]] = {}  # by listener, with what they were made of
        self.open: dict[int, Open] = {}
        self.tickets = b""  # a secret that workers share; empty where there is one
        self.datagrams: dict[int, Datagrams] = {}
        self.steps = 0  # of changes; who asks sees whether there is progress
        self.draining = False
        self._quiet = asyncio.Event()
        self._trimmer = Trimmer()

    # --- changes ---

    async def apply(self, change: Change) -> list[Problem]:
        """Bring the worker forward. Returns what could not be done, part by part.

        Requests go on meanwhile, by the tables that stand: a large change is worked through in slices.
        """
        is_large = len(change.put) > LARGE
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
        touched = Touched()
        pace = Pace()
        drop = list(change.drop)
        if change.reset:
            staying = {key(part) for part in change.put}
            drop = [k for k in self.parts if k not in staying]
        for part in change.put:
            await self._step(pace)
            old = self.parts.get(key(part))
            if old == part:
                continue
            with blamed(problems, part.name):
                if isinstance(part, Script):
                    await self._put_script(part)
                    spec = Scripted(part.name)
                    touched.ports.update(one.port for one in self._listeners.values() if spec in one.filters)
                else:
                    self._put(part, old, touched, problems)
                self.parts[key(part)] = part
        for k in drop:
            if k[0] != "backend":
                await self._step(pace)
                with blamed(problems, k[1]):
                    self._drop(k, touched)
        for host in touched.hosts:
            await self._step(pace)
            with blamed(problems, partial(self._suspects, host, change)):
                self._compile(host, touched)
        for port in sorted(touched.ports):
            self.steps += 1
            with blamed(problems, partial(self._names, port)):
                problems += await self._open_or_close(port)
        for port in touched.ports:
            with blamed(problems, partial(self._names, port)):
                self._swap(port)
        for k in drop:
            if k[0] == "backend":  # not before no table leads there any more
                with blamed(problems, k[1]):
                    self._drop(k, touched)
        return problems

    async def _step(self, pace: Pace) -> None:
        self.steps += 1
        await pace.rest()

    def _suspects(self, host: HostKey, change: Change) -> list[str]:
        """The rules of a host that have changed: what is wrong with its table began with them."""
        names = self._members.get(host, {})
        return [part.name for part in change.put if isinstance(part, Rule) and part.name in names] or [*names] or [host[0]]

    def _names(self, port: int) -> list[str]:
        return [one.name for one in self._listeners.values() if one.port == port] or [f"port {port}"]

    def _put(self, part: Part, old: Part | None, touched: Touched, problems: list[Problem]) -> None:
        match part:
            case BackendPart():
                self._put_backend(part)
            case Rule():
                self._put_rule(part, old if isinstance(old, Rule) else None, touched)
            case Relay():
                self._put_relay(part, old if isinstance(old, Relay) else None, touched)
            case Listener():
                self._listeners[part.name] = part
                touched.ports.add(part.port)
                if isinstance(old, Listener):
                    touched.ports.add(old.port)
            case Certificate():
                tls.context(part)  # refused here, so that the old one stays
                touched.ports.update(one.port for one in self._listeners.values() if part.name in one.certificates)
                self._renew_backends(part, problems)

    def _drop(self, k: Key, touched: Touched) -> None:
        part = self.parts.pop(k, None)
        match part:
            case BackendPart():
                self._put_backend(BackendPart(part.name))
            case Script():
                self._drop_script(part.name)
            case Rule():
                self._detach(part, touched)
                self._entries.pop(part.name, None)
            case Relay():
                self._detach_relay(part, touched)
                self._lines.pop(part.name, None)
            case Listener():
                self._listeners.pop(part.name, None)
                self._contexts.pop(part.name, None)
                touched.ports.add(part.port)
            case _:
                pass

    def _put_backend(self, part: BackendPart) -> None:
        backend = self.backend(part.name)
        is_http2 = part.protocol == "h2c"
        security = self._secure(part)
        new = tuple(Address(e.address, e.port, is_http2, security) for e in part.endpoints)
        self._addresses.update(new)
        backend.endpoints.set([self._pools.get(address) for address in new])
        backend.endpoints.prefer(_load if part.balance == "LeastLoad" else None)
        self._check(backend, part)
        before, self._reached[part.name] = self._reached.get(part.name, ()), new
        # An address that no backend has any more takes its connections along.
        for address in before:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
                self._pools.retire(address)

    def _check(self, backend: Backend, part: BackendPart) -> None:
        """Have the health of its endpoints looked at, as it says."""
        if backend.checks is not None and backend.checks.health != part.health:
            backend.checks.stop()
            backend.checks = None
        if part.health is not None:
            if backend.checks is None:
                backend.checks = Checks(part.health, backend.endpoints)
            backend.checks.follow(backend.endpoints)

    def _secure(self, part: BackendPart) -> tls.Security | None:
        """How to speak TLS to a backend; the same as before where nothing of that has changed, so that pools stay."""
        if part.tls is None:
            self._security.pop(part.name, None)
            return None
        before = self.parts.get(key(part))
        certificate = self.parts.get(("certificate", part.tls.certificate))
        if not isinstance(before, BackendPart) or before.tls != part.tls or part.name not in self._security:
            if part.tls.certificate and not isinstance(certificate, Certificate):
                raise ValueError(f"certificate {part.tls.certificate} is not known")
            given = part.tls.own or (certificate if isinstance(certificate, Certificate) else None)
            made = tls.towards(part.tls, given, "h2" if part.protocol == "h2c" else "http/1.1")
            self._security[part.name] = made
        return self._security[part.name]

    def _renew_backends(self, certificate: Certificate, problems: list[Problem]) -> None:
        """Backends to which a certificate of ours is shown: connections that stand stay, new ones show the new one."""
        self.parts[key(certificate)] = certificate
        for part in list(self.parts.values()):
            if isinstance(part, BackendPart) and part.tls is not None and part.tls.certificate == certificate.name:
                self._security.pop(part.name, None)
                with blamed(problems, part.name):
                    self._put_backend(part)

    def _put_rule(self, rule: Rule, old: Rule | None, touched: Touched) -> None:
        before = self._entries.get(rule.name)
        route = before[0].route if before else None
        same = old is not None and _leads(old) == _leads(rule)
        if route is None or not same:
            route = Route(rule, self.backend, self.counter, self.program, self._phase)
        entries = tuple(RouteMatch(match, rule.order, route) for match in rule.matches)
        for entry in entries:
            HostRules([entry])  # compiles its expressions; refused here, the old rule stays
        if old is not None:
            self._detach(old, touched)
        self._entries[rule.name] = entries
        for at in rule.at:
            host = (at.listener, at.hostname)
            members = self._members.get(host)
            if members is None:
                members = self._members[host] = {}
            members[rule.name] = None
            touched.hosts.add(host)

    def _detach(self, rule: Rule, touched: Touched) -> None:
        for at in rule.at:
            self._members.get((at.listener, at.hostname), {}).pop(rule.name, None)
            touched.hosts.add((at.listener, at.hostname))

    def _put_relay(self, relay: Relay, old: Relay | None, touched: Touched) -> None:
        if old is None or (old.targets, old.filters) != (relay.targets, relay.filters):
            tally = self.tallies.setdefault(relay.name, RelayTally())
            self._lines[relay.name] = StreamRoute(relay, self.backend, self.program, self._phase, tally)
        if old is not None:
            self._detach_relay(old, touched)
        for at in relay.at:
            self._relays.setdefault(at.listener, {})[relay.name] = None
            self._touch_listener(at.listener, touched)

    def _detach_relay(self, relay: Relay, touched: Touched) -> None:
        for at in relay.at:
            self._relays.get(at.listener, {}).pop(relay.name, None)
            self._touch_listener(at.listener, touched)

    def _touch_listener(self, name: str, touched: Touched) -> None:
        if name in self._listeners:
            touched.ports.add(self._listeners[name].port)

    def _compile(self, host: HostKey, touched: Touched) -> None:
        """Build what a change touched beside what stands."""
        names = self._members.get(host)
        if names:
            entries = [entry for name in names for entry in self._entries[name]]
            self._hosts.setdefault(host[0], {})[host] = HostRules(entries)
        else:
            self._hosts.get(host[0], {}).pop(host, None)
            self._members.pop(host, None)
        if host[0] in self._listeners:
            touched.ports.add(self._listeners[host[0]].port)

    def _swap(self, port: int) -> None:
        """One assignment a port; requests under way keep the table they started with."""
        if port in self.datagrams:
            lines = self._stream_listener(self._on(port, udp=True))
            self.datagrams[port].line = lines.get("")
            for listener in self._on(port, udp=True)[:1]:
                self.datagrams[port].limits = listener.limits
        if port not in self.open:
            return
        listeners = self._on(port)
        owners = {listener.hostname: listener.name for listener in listeners}
        hosts: dict[HostKey, HostRules[Route]] = {}
        for name in owners.values():
            hosts.update(self._hosts.get(name, {}))
        opened = self.open[port]
        listener_port = opened.listener_port
        listener_port.table = Table(owners, hosts, listener_port.virtual_hosts, secure=listener_port.scheme == b"https")
        opened.stream_listener.lines = self._stream_listener(listeners)
        opened.stream_listener.modes = {listener.hostname: mode_of(listener) for listener in listeners}
        self._post(opened, listeners)
        limits = listeners[0].limits
        opened.stream_listener.limits = limits
        if listener_port.limits != limits:
            listener_port.limit(limits)

    def _post(self, opened: Open, listeners: Sequence[Listener]) -> None:
        """Have the listeners' filters at their port."""
        opened.gate.programs, arrivals = self._meeting(listeners)
        opened.listener_port.meet(arrivals)

    def _meeting(self, listeners: Sequence[Listener]) -> tuple[tuple[FilterProgram, ...], tuple[FilterProgram, ...]]:
        """Filters that meet connections (those that cannot be used, too: nobody may pass them), and that meet requests."""
        names = dict.fromkeys(spec.script for listener in listeners for spec in listener.filters)
        programs = [self.program(name) for name in names]
        greeting = tuple(p for p in programs if p.hooks is None or p.hooks.connect is not None)
        return greeting, tuple(p for p in programs if p.hooks is not None and is_early(p.hooks))

    def _stream_listener(self, listeners: Sequence[Listener]) -> Mapping[str, StreamRoute]:
        """Which relay carries the connections of which hostname."""
        attached: list[tuple[str, Relay]] = []
        for listener in listeners:
            for name in self._relays.get(listener.name, ()):
                relay = self.parts[("relay", name)]
                assert isinstance(relay, Relay)
                attached += [(at.hostname, relay) for at in relay.at if at.listener == listener.name]
        return stream_listeners(attached, lambda relay: self._lines[relay.name])

    def _on(self, port: int, *, udp: bool = False) -> list[Listener]:
        return [one for one in self._listeners.values() if one.port == port and (one.protocol == "UDP") == udp]

    def backend(self, name: str) -> Backend:
        """The backend of a name; one that nothing is known of yet has no endpoints."""
        backend = self._backends.get(name)
        if backend is None:
            backend = self._backends[name] = Backend(name)
        return backend

    def ejected(self) -> tuple[tuple[str, str], ...]:
        """Endpoints that stand aside, with their backends."""
        return tuple(
            (name, "{}:{}".format(*one.where)) for name, backend in self._backends.items() for one in backend.endpoints.ejected
        )

    def counter(self, rule: str, backend: str) -> Counter:
        """The counter of a target; it outlives changes of the rule."""
        return self.counters.setdefault((rule, backend), Counter())

    def program(self, name: str) -> FilterProgram:
        """The program of a name; one whose source has not come cannot be used yet."""
        program = self.programs.get(name)
        if program is None:
            program = self.programs[name] = FilterProgram(name, self._room)
        return program

    async def _put_script(self, part: Script) -> None:
        """Put a source into force. Raises ScriptError where it cannot be used; the one before stays then."""
        program = self.program(part.name)
        supply = supplier(self._stock, program.measures)
        before = program.hooks
        source = builtin.source(part.built_in) if part.built_in else part.source
        if part.execution == "inline":
            if part.is_tried and not part.built_in:
                await supervisor.tried(self.forkserver, supply(part))
            watch.start()
            try:
                code = program.hooks = loader.load(part.name, source, part.config, supply(part).inline())
            except SystemExit:
                raise loader.ScriptError(part.name, 0, "it ends the process that loads it (SystemExit)") from None
            self._stop_timers(part.name)
            if code.timers:
                self._timers[part.name] = Timers(code.timers, partial(program.run, hooks=code))
            program.overdue = partial(self._move_out, part) if not part.built_in else lambda: None
            if part.name in self._keepers:
                self._keepers.pop(part.name).drop()
            if isinstance(before, SandboxedFilter):
                before.retire()
        else:
            kept = self._keepers.get(part.name)
            if kept is None:
                kept = self._keepers[part.name] = supervisor.SandboxSupervisor(self.forkserver, program, supply)
            try:
                await kept.put(part)
            except loader.ScriptError as error:
                if program.hooks is None:
                    program.passes = part.passes
                    if not error.line:
                        kept.keep_trying(part)
                raise
            self._stop_timers(part.name)
        program.passes, program.patience = part.passes, part.seconds
        if part.built_in:
            program.measures.own()
        elif program.measures.dropped:
            program.measures.forget()  # the source before this one measured too much
        if isinstance(before, loader.Code):
            before.unload()

    def _reach(self, host: str, port: int, security: tls.Security | None) -> Endpoint:
        return self._pools.get(Address(host, port, False, security))

    def _move_out(self, part: Script) -> None:
        """A filter keeps this worker from its work: from now on it runs in a process of its own, until it is edited."""
        self.program(part.name).overdue = lambda: None
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
            if self.parts.get(key(part)) == part:
                await self._put_script(msgspec.structs.replace(part, execution="process"))
        except ValueError as error:
            log.error("filter %s stays where it is: %s", part.name, error)

    async def stop_filters(self) -> None:
        """Let timers run for the last time, and end the processes of filters."""
        for name in list(self._timers):
            self._stop_timers(name)
        if self._working:
            await asyncio.wait(self._working, timeout=LAST)
        for kept in self._keepers.values():
            kept.drop()
        await self.forkserver.stop()
        await self._stock.close()

    def _drop_script(self, name: str) -> None:
        kept = self._keepers.pop(name, None)
        if kept is not None:
            kept.drop()
        self._stop_timers(name)
        program = self.program(name)
        program.hooks = None
        program.measures.forget()

    # --- ports ---

    async def _open_or_close(self, port: int) -> list[Problem]:
        return await self._open_or_close_tcp(port) + await self._open_or_close_udp(port)

    async def _open_or_close_udp(self, port: int) -> list[Problem]:
        listeners = self._on(port, udp=True)
        if not listeners:
            closed = self.datagrams.pop(port, None)
            if closed is not None:
                closed.close()
        elif port not in self.datagrams:
            try:
                listening = self._bound(port, socket.SOCK_DGRAM)
                made = Datagrams(port)
                await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, sock=listening)
            except OSError as error:
                return [Problem(listener.name, self._cannot_listen(port, error)) for listener in listeners]
            self.datagrams[port] = made
        return []

    async def _open_or_close_tcp(self, port: int) -> list[Problem]:
        listeners = self._on(port)
        opened = self.open.get(port)
        if not listeners:
            if opened is not None:
                del self.open[port]
                opened.server.close()
                opened.listener_port.drain()
            return []
        way = way_of(listeners)
        if opened is None or opened.way != way:
            scheme = b"https" if way in ("tls", "peek") else b"http"
            if opened is None or opened.listener_port.scheme != scheme:
                listener_port = ListenerPort(
                    port, self.clock, self._turns, self.backend, scheme=scheme, splice=splice.splice, ended=self._quiet.set
                )
                stream_listener, chooser = StreamListener(splice.splice, self._quiet.set, port), tls.Chooser(self.tickets, port)
            else:
                listener_port, stream_listener, chooser = opened.listener_port, opened.stream_listener, opened.chooser
            gate = opened.gate if opened is not None else ConnectionGate(port, scheme.decode())
            gate.programs = self._meeting(listeners)[0]
            try:
                server = await self._listen(way, listener_port, stream_listener, chooser, gate)
            except OSError as error:
                return [Problem(listener.name, self._cannot_listen(port, error)) for listener in listeners]
            if opened is not None:  # another way from now on; connections that stand go on
                opened.server.close()
                if opened.listener_port is not listener_port:
                    opened.listener_port.drain()
            if self.draining:
                listener_port.drain()
            opened = self.open[port] = Open(way, listener_port, stream_listener, chooser, gate, server)
        return self._certify(opened, listeners) if way in ("tls", "peek") else []

    def _bound(self, port: int, kind: socket.SocketKind) -> socket.socket:
        """A socket on a port, shared with the other workers."""
        everywhere = not self._bind and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if everywhere or ":" in self._bind else socket.AF_INET
        made = socket.socket(family, kind)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6 and not self._bind:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            made.bind((self._bind, port + self._offset))
            made.setblocking(False)
        except OSError:
            made.close()
            raise
        return made

    async def _listen(
        self,
        way: Way,
        listener_port: ListenerPort,
        stream_listener: StreamListener,
        chooser: tls.Chooser,
        gate: ConnectionGate,
    ) -> Closeable:
        listening = self._bound(listener_port.port, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        try:
            if way == "peek":
                listening.listen(BACKLOG)
                return TlsInspector(listening, partial(_decided, listener_port, stream_listener, chooser, gate))
            made: Callable[[], asyncio.BaseProtocol] = partial(DownstreamHttp1, listener_port)
            if way == "bytes":
                made = partial(StreamConnection, stream_listener)
            elif way == "tls":
                made = partial(AlpnProtocol, listener_port, stream_listener)
            context = chooser.front if way == "tls" else None
            patience = HANDSHAKE if context is not None else None
            return await loop.create_server(
                lambda: gate.protocol(made), sock=listening, backlog=BACKLOG, ssl=context, ssl_handshake_timeout=patience
            )
        except OSError:
            listening.close()
            raise

    def _cannot_listen(self, port: int, error: OSError) -> str:
        actual = port + self._offset
        if error.errno == errno.EACCES:
            return f"port {actual} needs the right to bind ports below 1024"
        if error.errno == errno.EADDRINUSE:
            return f"port {actual} is in use by another program"
        return f"port {actual}: {error.strerror or error}"

    def _certify(self, opened: Open, listeners: list[Listener]) -> list[Problem]:
        contexts: dict[str, Sequence[tls.Shown]] = {}
        problems = []
        for listener in listeners:
            if listener.passthrough:
                continue
            try:
                contexts[listener.hostname] = self._shown(listener)
            except ValueError as error:
                contexts[listener.hostname] = ()
                problems.append(Problem(listener.name, str(error)))
        opened.chooser.contexts = contexts
        try:
            opened.chooser.configure([listener for listener in listeners if not listener.passthrough])
        except (ValueError, ssl.SSLError) as error:
            # Who must show a certificate is among what was not put in force: nobody gets in until it is.
            opened.chooser.contexts = {}
            problems += [Problem(listener.name, str(error)) for listener in listeners]
        return problems

    def _shown(self, listener: Listener) -> list[tls.Shown]:
        """A listener's certificates, loaded anew only where one has changed. Raises ValueError for one that is not known."""
        found: list[Certificate] = []
        for name in listener.certificates:
            certificate = self.parts.get(("certificate", name))
            if not isinstance(certificate, Certificate):
                raise ValueError(f"certificate {name} is not known")
            found.append(certificate)
        made_of = (tuple(found), listener)
        before = self._contexts.get(listener.name)
        if before is not None and before[0] == made_of:
            return before[1]
        # A TLSRoute's backend speaks what it likes: nothing is promised for it.
        protocols = tls.ALPN if listener.protocol == "HTTPS" else ()
        shown = [tls.Shown(frozenset(one.names), tls.context(one, listener, protocols)) for one in found]
        self._contexts[listener.name] = (made_of, shown)
        return shown

    # --- time ---

    def tick(self, now: float) -> None:
        """Once a second: close what has waited too long."""
        self.clock.now = now
        for opened in self.open.values():
            opened.listener_port.tick()
        for port in self.datagrams.values():
            port.tick(now)
        self._pools.sweep()
        self._trimmer.tick(now)

    # --- the end ---

    def drain(self) -> None:
        """From now on every answer closes its connection; new connections are still served."""
        self.draining = True
        for opened in self.open.values():
            opened.listener_port.drain()

    def relayed(self) -> int:
        """Connections that are passed on as bytes, and flows of datagrams."""
        return sum(opened.stream_listener.open for opened in self.open.values()) + sum(map(len, self.datagrams.values()))

    def busy(self) -> int:
        """Requests and tunnels under way."""
        listener_ports = [opened.listener_port for opened in self.open.values()]
        relayed = sum(opened.stream_listener.open for opened in self.open.values())
        return (
            relayed
            + sum(not c.is_idle for listener_port in listener_ports for c in listener_port.connections)
            + sum(listener_port.tunnels for listener_port in listener_ports)
        )

    async def wait_idle(self) -> None:
        """Until no request and no tunnel is under way."""
        while self.busy():
            self._quiet.clear()
            await self._quiet.wait()

    def close(self) -> None:
        """Accept nothing more, and let idle connections go."""
        for backend in self._backends.values():
            if backend.checks is not None:
                backend.checks.stop()
        for opened in self.open.values():
            opened.server.close()
            for connection in list(opened.listener_port.connections):
                connection.close_if_idle()
        for port in self.datagrams.values():
            port.close()


def _load(endpoint: Endpoint) -> int:
    return endpoint.load


def _leads(rule: Rule) -> tuple[object, ...]:
    """Everything of a rule but when it applies."""
    return rule.targets, rule.filters, rule.timeouts, rule.retry, rule.persistence, rule.grpc


def mode_of(listener: Listener) -> Mode:
    """What becomes of a connection that is this listener's."""
    if listener.protocol in ("HTTP", "HTTPS"):
        return "http"
    return "passthrough" if listener.passthrough else "terminate"


def _decided(
    listener_port: ListenerPort,
    stream_listener: StreamListener,
    chooser: tls.Chooser,
    gate: ConnectionGate,
    connection: socket.socket,
    name: str,
) -> None:
    """A connection whose ClientHello asks for a name: pass it on as it is, or speak TLS with it."""
    loop = asyncio.get_running_loop()
    mode = stream_listener.mode(name)
    if mode is None:
        stream_listener.refused += 1
        connection.close()
    elif mode == "passthrough":
        made = partial(gate.protocol, partial(StreamConnection, stream_listener, name))
        stream_listener.spawn(lambda: loop.connect_accepted_socket(made, connection))
    else:
        stream_listener.spawn(partial(_greet, listener_port, stream_listener, chooser, gate, connection))


async def _greet(
    listener_port: ListenerPort,
    stream_listener: StreamListener,
    chooser: tls.Chooser,
    gate: ConnectionGate,
    connection: socket.socket,
) -> None:
    try:
        loop = asyncio.get_running_loop()
        made = partial(gate.protocol, partial(AlpnProtocol, listener_port, stream_listener))
        await loop.connect_accepted_socket(made, connection, ssl=chooser.front, ssl_handshake_timeout=HANDSHAKE)
    except OSError:  # the handshake failed, or the client is gone
        connection.close()
