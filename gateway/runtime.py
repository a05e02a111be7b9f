"""Bring a worker from one snapshot to the next: swap tables; open, keep and close listeners.

A change costs what changed: only the hostnames that it touches are compiled, endpoints change in place, and
nothing else is rebuilt. What cannot be built is reported as a problem, and what stood before it stays.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
from collections import Counter as Tally
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

from gateway import tls, tunnel
from gateway.door import Clock, Door
from gateway.downstream import Arrival, Downstream
from gateway.pools import Address, Pools
from gateway.prepared import Backend, Counter, Route
from gateway.routing import Entry, HostKey, HostRules, Table
from gateway.snapshot import Backend as BackendPart
from gateway.snapshot import Certificate, Change, Key, Listener, Part, Parts, Problem, Rule, key

BACKLOG = 4096
LARGE = 500  # parts in a change that is more than an edit
SLICE = 0.004  # seconds of work on a change before requests get their turn


@dataclass
class Open:
    """A port that is open."""

    door: Door
    server: asyncio.Server
    chooser: tls.Chooser | None


@dataclass
class Touched:
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

    def __init__(self, *, bind: str = "", port_offset: int = 0, phase: float = 0.0) -> None:
        self._bind = bind
        self._offset = port_offset
        self._phase = phase
        self.clock = Clock(asyncio.get_running_loop().time())
        self.parts: Parts = {}
        self.counters: dict[tuple[str, str], Counter] = {}
        self._pools = Pools(self.clock)
        self._addresses: Tally[Address] = Tally()
        self._reached: dict[str, tuple[Address, ...]] = {}  # by backend
        self._security: dict[str, tls.Security] = {}  # by backend
        self._backends: dict[str, Backend] = {}
        self._entries: dict[str, tuple[Entry[Route], ...]] = {}  # of each rule; they share its route
        self._members: dict[HostKey, dict[str, None]] = {}  # the rules of each hostname
        self._listeners: dict[str, Listener] = {}
        self._hosts: dict[str, dict[HostKey, HostRules[Route]]] = {}  # by listener
        self.open: dict[int, Open] = {}
        self.draining = False
        self._quiet = asyncio.Event()

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
        problems: list[Problem] = []
        touched = Touched()
        pace = Pace()
        drop = list(change.drop)
        if change.reset:
            staying = {key(part) for part in change.put}
            drop = [k for k in self.parts if k not in staying]
        for part in change.put:
            await pace.rest()
            old = self.parts.get(key(part))
            if old == part:
                continue
            try:
                self._put(part, old, touched)
            except ValueError as error:
                problems.append(Problem(part.name, str(error)))
                continue
            self.parts[key(part)] = part
        for k in drop:
            if k[0] != "backend":
                await pace.rest()
                self._drop(k, touched)
        for host in touched.hosts:
            await pace.rest()
            self._compile(host, touched)
        for port in sorted(touched.ports):
            problems += await self._open_or_close(port)
        self._swap(touched)
        for k in drop:
            if k[0] == "backend":  # not before no table leads there any more
                self._drop(k, touched)
        return problems

    def _put(self, part: Part, old: Part | None, touched: Touched) -> None:
        match part:
            case BackendPart():
                self._put_backend(part)
            case Rule():
                self._put_rule(part, old if isinstance(old, Rule) else None, touched)
            case Listener():
                self._listeners[part.name] = part
                touched.ports.add(part.port)
                if isinstance(old, Listener):
                    touched.ports.add(old.port)
            case Certificate():
                tls.context(part)  # refused here, so that the old one stays
                touched.ports.update(one.port for one in self._listeners.values() if part.name in one.certificates)
                self._renew_backends(part)

    def _drop(self, k: Key, touched: Touched) -> None:
        part = self.parts.pop(k, None)
        match part:
            case BackendPart():
                self._put_backend(BackendPart(part.name))
            case Rule():
                self._detach(part, touched)
                self._entries.pop(part.name, None)
            case Listener():
                self._listeners.pop(part.name, None)
                touched.ports.add(part.port)
            case _:
                pass

    def _put_backend(self, part: BackendPart) -> None:
        backend = self.backend(part.name)
        is_http2 = part.protocol == "h2c"
        security = self._secure(part)
        new = tuple(Address(e.address, e.port, is_http2, security) for e in part.endpoints)
        self._addresses.update(new)
        backend.ring.set([self._pools.get(address) for address in new])
        before, self._reached[part.name] = self._reached.get(part.name, ()), new
        # An address that no backend has any more takes its connections along.
        for address in before:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
                self._pools.retire(address)

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
            given = certificate if isinstance(certificate, Certificate) else None
            made = tls.towards(part.tls, given, "h2" if part.protocol == "h2c" else "http/1.1")
            self._security[part.name] = made
        return self._security[part.name]

    def _renew_backends(self, certificate: Certificate) -> None:
        """Backends to which a certificate of ours is shown: connections that stand stay, new ones show the new one."""
        self.parts[key(certificate)] = certificate
        for part in list(self.parts.values()):
            if isinstance(part, BackendPart) and part.tls is not None and part.tls.certificate == certificate.name:
                self._security.pop(part.name, None)
                self._put_backend(part)

    def _put_rule(self, rule: Rule, old: Rule | None, touched: Touched) -> None:
        before = self._entries.get(rule.name)
        route = before[0].route if before else None
        same = old is not None and (old.targets, old.filters, old.timeouts) == (
            rule.targets,
            rule.filters,
            rule.timeouts,
        )
        if route is None or not same:
            route = Route(rule, self.backend, self.counter, self._phase)
        entries = tuple(Entry(match, rule.order, route) for match in rule.matches)
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

    def _swap(self, touched: Touched) -> None:
        """One assignment a port; requests under way keep the table they started with."""
        for port in touched.ports:
            if port not in self.open:
                continue
            owners = {listener.hostname: listener.name for listener in self._on(port)}
            hosts: dict[HostKey, HostRules[Route]] = {}
            for name in owners.values():
                hosts.update(self._hosts.get(name, {}))
            door = self.open[port].door
            door.table = Table(owners, hosts, door.sites, secure=door.scheme == b"https")
            limits = self._on(port)[0].limits
            if door.limits != limits:
                door.limit(limits)

    def _on(self, port: int) -> list[Listener]:
        return [listener for listener in self._listeners.values() if listener.port == port]

    def backend(self, name: str) -> Backend:
        """The backend of a name; one that nothing is known of yet has no endpoints."""
        backend = self._backends.get(name)
        if backend is None:
            backend = self._backends[name] = Backend(name)
        return backend

    def counter(self, rule: str, backend: str) -> Counter:
        """The counter of a target; it outlives changes of the rule."""
        return self.counters.setdefault((rule, backend), Counter())

    # --- ports ---

    async def _open_or_close(self, port: int) -> list[Problem]:
        listeners = self._on(port)
        if not listeners:
            closed = self.open.pop(port, None)
            if closed is not None:
                closed.server.close()
                closed.door.drain()
            return []
        secure = listeners[0].protocol == "HTTPS"
        if port not in self.open:
            scheme = b"https" if secure else b"http"
            door = Door(port, self.clock, self.backend, scheme=scheme, splice=tunnel.splice, ended=self._quiet.set)
            chooser = tls.Chooser() if secure else None
            try:
                server = await self._listen(door, chooser)
            except OSError as error:
                return [Problem(listener.name, self._cannot_listen(port, error)) for listener in listeners]
            if self.draining:
                door.drain()
            self.open[port] = Open(door, server, chooser)
        return self._certify(self.open[port], listeners)

    async def _listen(self, door: Door, chooser: tls.Chooser | None) -> asyncio.Server:
        everywhere = not self._bind and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if everywhere or ":" in self._bind else socket.AF_INET
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6 and not self._bind:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            listening.bind((self._bind, door.port + self._offset))
            listening.setblocking(False)
            context = chooser.front if chooser else None
            arrival = partial(Arrival if chooser else Downstream, door)
            return await asyncio.get_running_loop().create_server(arrival, sock=listening, backlog=BACKLOG, ssl=context)
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
        if opened.chooser is None:
            return []
        contexts = {}
        problems = []
        for listener in listeners:
            for name in listener.certificates[:1]:
                certificate = self.parts.get(("certificate", name))
                if isinstance(certificate, Certificate):
                    contexts[listener.hostname] = tls.context(certificate)
                else:
                    problems.append(Problem(listener.name, f"certificate {name} is not known"))
        opened.chooser.contexts = contexts
        return problems

    # --- time ---

    def tick(self, now: float) -> None:
        """Once a second: close what has waited too long."""
        self.clock.now = now
        for opened in self.open.values():
            opened.door.tick()
        self._pools.sweep()

    # --- the end ---

    def drain(self) -> None:
        """From now on every answer closes its connection; new connections are still served."""
        self.draining = True
        for opened in self.open.values():
            opened.door.drain()

    def busy(self) -> int:
        """Requests and tunnels under way."""
        doors = [opened.door for opened in self.open.values()]
        return sum(not c.is_idle for door in doors for c in door.connections) + sum(door.tunnels for door in doors)

    async def wait_idle(self) -> None:
        """Until no request and no tunnel is under way."""
        while self.busy():
            self._quiet.clear()
            await self._quiet.wait()

    def close(self) -> None:
        """Accept nothing more, and let idle connections go."""
        for opened in self.open.values():
            opened.server.close()
            for connection in list(opened.door.connections):
                connection.close_if_idle()
