"""Objects → parts and statuses: everything the world implies for our Gateways.

`Translator.update` looks again at what a change may affect, and at nothing else; `translate` does it once for a
whole world. Both run the same functions, so a user's YAML is a test case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec

from controller.objects import CONTROLLER, ROUTES, Ref
from controller.state.view import View
from controller.state.world import Key, World
from controller.translate import backends, python_filters
from controller.translate.gateways import gateways
from controller.translate.gateways.gateways import Running
from controller.translate.policies import attachment as attached
from controller.translate.policies import backend_tls, guarding
from controller.translate.policies import kinds as meanings
from controller.translate.routes import routes
from controller.translate.shared.names import BackendName, FilterName, Needed
from controller.translate.shared.status import Status
from gateway import snapshot
from gateway.snapshot import Part, Parts

GatewayName = tuple[str, str]  # namespace, name


def _is_own(key: snapshot.Key) -> bool:
    """Whether a part is a Gateway's own, rather than a route's."""
    return key[0] in ("listener", "certificate") or (key[0] == "rule" and key[1].startswith("listener/"))


class Update(NamedTuple):
    """What a round of changes came to: parts by Gateway (None: dropped), and statuses (None: not ours any more)."""

    parts: dict[GatewayName, dict[snapshot.Key, Part | None]]
    statuses: dict[Ref, Status | None]
    gateways: dict[GatewayName, Running | None]  # Gateways whose infrastructure may have to follow


class Translator:
    """Keeps what was translated, so that a change costs what changed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.view = View(world)
        self.parts: dict[GatewayName, Parts] = {}
        self.statuses: dict[Ref, Status] = {}
        self._routes: dict[Ref, routes.RouteInfo] = {}
        self._needed: dict[GatewayName, Counter[Needed]] = {}
        self._users: dict[Needed, dict[GatewayName, None]] = {}
        self._by_name: dict[str, BackendName] = {}
        self._attached: dict[GatewayName, Counter[str]] = {}
        self._own: dict[GatewayName, tuple[Needed, ...]] = {}  # that listeners need
        self._of: dict[tuple[str, str, str], Counter[GatewayName]] = {}  # which Gateways use a Service, or a Filter
        self._spoken: dict[tuple[str, str], Counter[str]] = {}  # how routes speak to a Service
        self.gateways: dict[GatewayName, Running] = {}
        self._roots: set[Key] = set()
        self._update = Update({}, {}, {})

    def update(self) -> Update:
        """Work out what has changed since the last time."""
        self._update = Update({}, {}, {})
        for _ in range(2):  # attached routes are noted in the first pass and read in the second
            changed = self._take_changes()
            affected = self.view.update(changed)
            todo = affected & self._roots | self._discover(changed)
            self._translate_gateways(todo)
            self._translate_routes(todo)
            self._translate_needed(todo)
            self._say(todo)
        update, self._update = self._update, Update({}, {}, {})
        return update

    def _take_changes(self) -> set[Key]:
        changed, self.world.changed = self.world.changed, set()
        return changed

    def _discover(self, changed: set[Key]) -> set[Key]:
        """The values to work out for objects that changed themselves."""
        found: set[Key] = set()
        for key in changed:
            if key[0] != "object":
                continue
            ref: Ref = key[1]
            where = (ref.namespace, ref.name)
            match ref.kind:
                case "Gateway":
                    found |= {(f, *where) for f in (gateways.gateway, gateways.gateway_status, gateways.running)}
                case "GatewayClass":
                    found.add((gateways.class_status, ref.name))
                case kind if kind in ROUTES:
                    found.add((routes.route, kind, *where))
                case "ListenerSet":
                    found.add((gateways.listener_set_status, *where))
                case "Filter":
                    found.add((python_filters.status, *where))
                case "ListenerFilter" | "RouteRuleFilterPolicy":
                    found.add((guarding.status, ref.kind, *where))
                case kind if kind in meanings.POLICIES:
                    found.add((attached.status, kind, *where))
                case "BackendTLSPolicy":
                    found.add((backend_tls.status, *where))
                case _:
                    pass
        self._roots |= found
        return found

    # --- gateways ---

    def _translate_gateways(self, todo: set[Key]) -> None:
        for _, namespace, name in _calls(todo, gateways.gateway):
            where = (namespace, name)
            info = self.view.call(gateways.gateway, namespace, name)
            new = {snapshot.key(part): part for part in (info.parts if info is not None else ())}
            self._replace(where, _is_own, new)
            self._need_exactly(where, info.backends if info is not None else ())
            for backend in self._needed.get(where, ()):  # what we show to them may have changed
                self._put_needed(where, backend)
        for _, namespace, name in _calls(todo, gateways.running):
            where = (namespace, name)
            running = self.view.call(gateways.running, namespace, name)
            if (gateways.running, *where) in self.view.failures:
                continue  # what runs is left as it is
            if self.gateways.get(where) != running:
                self._update.gateways[where] = running
                if running is None:
                    self.gateways.pop(where, None)
                else:
                    self.gateways[where] = running

    def _need_exactly(self, where: GatewayName, names: Iterable[Needed]) -> None:
        """The backends that a Gateway's own listeners need from now on."""
        needed = self._needed.setdefault(where, Counter())
        before, after = self._own.pop(where, ()), tuple(names)
        for name in after:
            needed[name] += 1
            if needed[name] == 1:
                self._need(where, name)
        for name in before:
            needed[name] -= 1
            if not needed[name]:
                self._need_no_more(where, name)
        if after:
            self._own[where] = after

    def _replace(self, where: GatewayName, is_own: Callable[[snapshot.Key], bool], new: dict[snapshot.Key, Part]) -> None:
        for key in [k for k in self.parts.get(where, ()) if is_own(k) and k not in new]:
            self._drop(where, key)
        for part in new.values():
            self._put(where, part)

    def _put(self, where: GatewayName, part: Part) -> None:
        parts = self.parts.setdefault(where, {})
        key = snapshot.key(part)
        if parts.get(key) != part:
            parts[key] = part
            self._update.parts.setdefault(where, {})[key] = part

    def _drop(self, where: GatewayName, key: snapshot.Key) -> None:
        if self.parts.get(where, {}).pop(key, None) is not None:
            self._update.parts.setdefault(where, {})[key] = None
            if not self.parts[where]:
                del self.parts[where]

    # --- routes ---

    def _translate_routes(self, todo: set[Key]) -> None:
        for key in _calls(todo, routes.route):
            ref = Ref(*key[1:])
            new = self.view.call(routes.route, *key[1:])
            old = self._routes.pop(ref, routes.RouteInfo(None, ()))
            if new.status is not None or new.served:
                self._routes[ref] = new
            self._serve(old, new)
            self.world.note(("gateways of route", *key[1:]), frozenset((one.namespace, one.gateway) for one in new.served))
            self._status(ref, new.status)
            if self.world.read(("object", ref)) is None:
                self._roots.discard(key)
                self.view.forget(key)

    def _serve(self, old: routes.RouteInfo, new: routes.RouteInfo) -> None:
        before = {(s.namespace, s.gateway): s for s in old.served}
        after = {(s.namespace, s.gateway): s for s in new.served}
        for where in before.keys() | after.keys():
            was, now = before.get(where), after.get(where)
            rules = {snapshot.key(rule): rule for rule in now.rules} if now else {}
            needed = self._needed.setdefault(where, Counter())
            attached = self._attached.setdefault(where, Counter())
            for name in now.backends if now else ():
                needed[name] += 1
                if needed[name] == 1:
                    self._need(where, name)
            for rule in rules.values():
                self._put(where, rule)
            for rule in was.rules if was else ():
                if snapshot.key(rule) not in rules:
                    self._drop(where, snapshot.key(rule))
            for name in was.backends if was else ():
                needed[name] -= 1
                if not needed[name]:
                    self._need_no_more(where, name)
            attached.update(now.attached if now else ())
            attached.subtract(was.attached if was else ())
            self.world.note(("attached", *where), dict(+attached))

    # --- what rules need ---

    def _need(self, where: GatewayName, name: Needed) -> None:
        self._users.setdefault(name, {})[where] = None
        if isinstance(name, BackendName):
            self._by_name[str(name)] = name
        self._roots.add(_maker(name))
        self._put_needed(where, name)
        self._note_user(where, name, 1)

    def _put_needed(self, where: GatewayName, name: Needed) -> None:
        part: Part | str = self.view.value(_maker(name))
        if isinstance(part, snapshot.Backend) and part.tls is not None and part.tls.own is None:
            info = self.view.call(gateways.gateway, *where)
            if info is not None and info.shown is not None:
                part = msgspec.structs.replace(part, tls=msgspec.structs.replace(part.tls, certificate=info.shown.name))
        if not isinstance(part, str):  # a filter that cannot be used any more: its routes say so, and ask for it no longer
            self._put(where, part)

    def _note_user(self, where: GatewayName, name: Needed, by: int) -> None:
        """Who sends requests to a Service, or has a Filter look at them."""
        if isinstance(name, BackendName) and name.kind != "Service":
            return
        kind = "service" if isinstance(name, BackendName) else name.kind
        users = self._of.setdefault((kind, name.namespace, name.name), Counter())
        users[where] += by
        self.world.note((f"gateways of {kind}", name.namespace, name.name), frozenset(+users))
        if isinstance(name, BackendName):
            spoken = self._spoken.setdefault((name.namespace, name.name), Counter())
            spoken[name.spoken] += by
            self.world.note(("spoken to service", name.namespace, name.name), frozenset(+spoken))

    def _need_no_more(self, where: GatewayName, name: Needed) -> None:
        del self._needed[where][name]
        self._note_user(where, name, -1)
        users = self._users[name]
        del users[where]
        self._drop(where, _key(name))
        if not users:
            del self._users[name]
            if isinstance(name, BackendName):
                del self._by_name[str(name)]
                self.view.forget((backends.is_fresh, *name))
            self._roots.discard(_maker(name))
            self.view.forget(_maker(name))

    def _translate_needed(self, todo: set[Key]) -> None:
        found: list[Needed] = [BackendName(*key[1:]) for key in _calls(todo, backends.backend)]
        found += [FilterName(*key[1:]) for key in (*_calls(todo, python_filters.script), *_calls(todo, attached.script))]
        for name in found:
            for where in self._users.get(name, ()):
                self._put_needed(where, name)

    # --- statuses ---

    def _say(self, todo: set[Key]) -> None:
        for _, name in _calls(todo, gateways.class_status):
            self._status(Ref("GatewayClass", "", name), self.view.call(gateways.class_status, name))
        for _, namespace, name in _calls(todo, gateways.gateway_status):
            self._status(Ref("Gateway", namespace, name), self.view.call(gateways.gateway_status, namespace, name))
        for _, namespace, name in _calls(todo, gateways.listener_set_status):
            status = self.view.call(gateways.listener_set_status, namespace, name)
            self._status(Ref("ListenerSet", namespace, name), status)
        for _, namespace, name in _calls(todo, backend_tls.status):
            self._status(Ref("BackendTLSPolicy", namespace, name), self.view.call(backend_tls.status, namespace, name))
        for _, namespace, name in _calls(todo, python_filters.status):
            self._status(Ref("Filter", namespace, name), self.view.call(python_filters.status, namespace, name))
        for _, kind, namespace, name in _calls(todo, guarding.status):
            self._status(Ref(kind, namespace, name), self.view.call(guarding.status, kind, namespace, name))
        for _, kind, namespace, name in _calls(todo, attached.status):
            self._status(Ref(kind, namespace, name), self.view.call(attached.status, kind, namespace, name))

    def _status(self, ref: Ref, status: Status | None) -> None:
        if self.statuses.get(ref) == status:
            return
        if status is None:
            self.statuses.pop(ref, None)
        else:
            self.statuses[ref] = status
        self._update.statuses[ref] = status

    def failing(self) -> dict[Ref, list[tuple[str, str]]]:
        """The objects at which our own code fails, and at what of them: parts and messages."""
        found: dict[Ref, list[tuple[str, str]]] = {}
        for key, several in self.view.failures.items():
            for part, error in several.items():
                found.setdefault(_about(key), []).append((part, f"{type(error).__name__}: {error}"))
        return found

    def is_fresh(self, name: str) -> bool:
        """Whether a backend of this name has endpoints, and they are the ones that its Service selects now."""
        backend = self._by_name.get(name)
        return backend is None or self.view.call(backends.is_fresh, *backend)


def _about(key: Key) -> Ref:
    """The object that a value is about."""
    function, arguments = key[0], key[1:]
    kinds = {
        gateways.gateway: "Gateway", gateways.gateway_status: "Gateway", gateways.running: "Gateway",
        gateways.class_status: "GatewayClass", gateways.listener_set_status: "ListenerSet", python_filters.status: "Filter",
        backend_tls.status: "BackendTLSPolicy", backend_tls.validated: "BackendTLSPolicy",
    }  # fmt: skip
    if function in kinds:
        return Ref(kinds[function], *(("", *arguments) if len(arguments) == 1 else arguments))
    if function in (python_filters.script, attached.script):
        namespace, name, kind = (*arguments, "Filter")[:3]
        return Ref(kind, namespace, name.partition("#")[0])
    kind, namespace, name = (str(one) for one in arguments[:3])
    return Ref(kind, namespace, name)


def _maker(name: Needed) -> Key:
    """The call that makes a part."""
    if isinstance(name, BackendName):
        return (backends.backend, *name)
    return (attached.script if name.kind in meanings.POLICIES else python_filters.script, *name)


def _key(name: Needed) -> snapshot.Key:
    return "backend" if isinstance(name, BackendName) else "script", str(name)


def _calls(keys: set[Key], function: Any) -> list[Key]:
    return sorted((key for key in keys if key[0] is function), key=lambda key: key[1:])


class Translation(NamedTuple):
    """A whole world, translated."""

    parts: dict[GatewayName, Parts]
    statuses: dict[Ref, Status]
    failing: dict[Ref, list[tuple[str, str]]]  # at what our own code fails: parts of objects, and messages


def translate(world: World) -> Translation:
    """Everything the world implies for our Gateways: what each should do, and what to say about it."""
    translator = Translator(world)
    translator.update()
    return Translation(translator.parts, translator.statuses, translator.failing())


__all__ = ["CONTROLLER", "GatewayName", "Translation", "Translator", "Update", "translate"]
