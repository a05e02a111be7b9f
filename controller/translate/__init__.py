"""Objects → parts and statuses: everything the world implies for our Gateways.

`Translator.update` looks again at what a change may affect, and at nothing else; `translate` does it once for a
whole world. Both run the same functions, so a user's YAML is a test case.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from controller.objects.base import CONTROLLER, Key, Ref
from controller.objects.policies import POLICIES
from controller.objects.routes import ROUTES
from controller.state.view import View
from controller.state.world import World
from controller.translate import backends, python_filters, remarks, xbackends
from controller.translate.gateways import gateways, telemetry
from controller.translate.gateways.gateways import Running
from controller.translate.policies import attachment, backend_tls, backend_traffic, guarding
from controller.translate.remarks import Remarks
from controller.translate.routes import routes
from controller.translate.shared.names import BackendName, FilterName, Needed
from controller.translate.shared.status import Status
from controller.translate.xbackends import Pods
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
    pods: dict[Ref, Pods | None]  # XBackends whose Services may have to


class Translator:
    """Keeps what was translated, so that a change costs what changed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.view = View(world)
        self.parts: dict[GatewayName, Parts] = {}
        self.statuses: dict[Ref, Status] = {}
        self.remarks: dict[Ref, Remarks] = {}  # where they are asked for
        self._routes: dict[Ref, routes.RouteInfo] = {}
        self._needed: dict[GatewayName, Counter[Needed]] = {}
        self._users: dict[Needed, dict[GatewayName, None]] = {}
        self._by_name: dict[str, BackendName] = {}
        self._attached: dict[GatewayName, Counter[str]] = {}
        self._own: dict[GatewayName, tuple[Needed, ...]] = {}  # that listeners need
        self._of: dict[tuple[str, str, str], Counter[GatewayName]] = {}  # which Gateways use a Service, or a Filter
        self._spoken: dict[tuple[str, str, str], Counter[str]] = {}  # how routes speak to a backend
        self.gateways: dict[GatewayName, Running] = {}
        self.pods: dict[Ref, Pods] = {}
        self._roots: set[Key] = set()
        self._update = Update({}, {}, {}, {})

    def update(self) -> Update:
        """Work out what has changed since the last time."""
        self._update = Update({}, {}, {}, {})
        for _ in range(2):  # attached routes are noted in the first pass and read in the second
            changed = self._take_changes()
            affected = self.view.update(changed)
            todo = affected & self._roots | self._discover(changed)
            self._translate_gateways(todo)
            self._translate_routes(todo)
            self._translate_needed(todo)
            self._look_for_pods(todo)
            self._say(todo)
        update, self._update = self._update, Update({}, {}, {}, {})
        return update

    def _take_changes(self) -> set[Key]:
        changed, self.world.changed = self.world.changed, set()
        return changed

    def _discover(self, changed: set[Key]) -> set[Key]:
        """The values to work out for objects that changed themselves."""
        keys: set[Key] = set()
        for key in changed:
            if key[0] != "object":
                continue
            ref: Ref = key[1]
            if ref.kind in OWN_VALUES:
                keys.update(OWN_VALUES[ref.kind].keys(ref))
            if ref.kind in REMARKS and self.world.read(("setting", "remarks")):
                keys.update(REMARKS[ref.kind].keys(ref))
        self._roots |= keys
        return keys

    # --- gateways ---

    def _translate_gateways(self, todo: set[Key]) -> None:
        for _, namespace, name in _calls(todo, gateways.gateway):
            gateway = (namespace, name)
            info = self.view.call(gateways.gateway, namespace, name)
            new = {snapshot.key(part): part for part in (info.parts if info is not None else ())}
            self._replace(gateway, _is_own, new)
            self._need_exactly(gateway, info.backends if info is not None else ())
            for backend in self._needed.get(gateway, ()):  # what we show to them may have changed
                self._put_needed(gateway, backend)
        for _, namespace, name in _calls(todo, gateways.running):
            gateway = (namespace, name)
            running = self.view.call(gateways.running, namespace, name)
            if (gateways.running, *gateway) in self.view.failures:
                continue  # what runs is left as it is
            if self.gateways.get(gateway) != running:
                self._update.gateways[gateway] = running
                if running is None:
                    self.gateways.pop(gateway, None)
                else:
                    self.gateways[gateway] = running

    def _need_exactly(self, gateway: GatewayName, names: Iterable[Needed]) -> None:
        """The backends that a Gateway's own listeners need from now on."""
        needed = self._needed.setdefault(gateway, Counter())
        before, after = self._own.pop(gateway, ()), tuple(names)
        for name in after:
            needed[name] += 1
            if needed[name] == 1:
                self._need(gateway, name)
        for name in before:
            needed[name] -= 1
            if not needed[name]:
                self._need_no_more(gateway, name)
        if after:
            self._own[gateway] = after

    def _replace(self, gateway: GatewayName, is_own: Callable[[snapshot.Key], bool], new: dict[snapshot.Key, Part]) -> None:
        for key in [k for k in self.parts.get(gateway, ()) if is_own(k) and k not in new]:
            self._drop(gateway, key)
        for part in new.values():
            self._put(gateway, part)

    def _put(self, gateway: GatewayName, part: Part) -> None:
        parts = self.parts.setdefault(gateway, {})
        key = snapshot.key(part)
        if parts.get(key) != part:
            parts[key] = part
            self._update.parts.setdefault(gateway, {})[key] = part

    def _drop(self, gateway: GatewayName, key: snapshot.Key) -> None:
        if self.parts.get(gateway, {}).pop(key, None) is not None:
            self._update.parts.setdefault(gateway, {})[key] = None
            if not self.parts[gateway]:
                del self.parts[gateway]

    # --- routes ---

    def _translate_routes(self, todo: set[Key]) -> None:
        for key in _calls(todo, routes.route):
            ref = Ref(*key[1:])
            new = self.view.call(routes.route, *key[1:])
            old = self._routes.pop(ref, routes.RouteInfo(None, ()))
            if new.status is not None or new.served:
                self._routes[ref] = new
            self._serve(old, new)
            self.world.note(
                ("gateways of route", *key[1:]), frozenset((served.namespace, served.gateway) for served in new.served)
            )
            self._status(ref, new.status)
            if self.world.read(("object", ref)) is None:
                self._roots.discard(key)
                self.view.forget(key)

    def _serve(self, old: routes.RouteInfo, new: routes.RouteInfo) -> None:
        before = {(s.namespace, s.gateway): s for s in old.served}
        after = {(s.namespace, s.gateway): s for s in new.served}
        for gateway in before.keys() | after.keys():
            was, now = before.get(gateway), after.get(gateway)
            rules = {snapshot.key(rule): rule for rule in now.rules} if now else {}
            needed = self._needed.setdefault(gateway, Counter())
            attached = self._attached.setdefault(gateway, Counter())
            for name in now.backends if now else ():
                needed[name] += 1
                if needed[name] == 1:
                    self._need(gateway, name)
            for rule in rules.values():
                self._put(gateway, rule)
            for rule in was.rules if was else ():
                if snapshot.key(rule) not in rules:
                    self._drop(gateway, snapshot.key(rule))
            for name in was.backends if was else ():
                needed[name] -= 1
                if not needed[name]:
                    self._need_no_more(gateway, name)
            attached.update(now.attached if now else ())
            attached.subtract(was.attached if was else ())
            self.world.note(("attached", *gateway), dict(+attached))

    # --- what rules need ---

    def _need(self, gateway: GatewayName, name: Needed) -> None:
        self._users.setdefault(name, {})[gateway] = None
        if isinstance(name, BackendName):
            self._by_name[str(name)] = name
        self._roots.add(_maker(name))
        self._put_needed(gateway, name)
        self._note_user(gateway, name, 1)

    def _put_needed(self, gateway: GatewayName, name: Needed) -> None:
        part: Part | str = self.view.value(_maker(name))
        if isinstance(part, snapshot.Backend) and part.tls is not None and part.tls.own is None:
            info = self.view.call(gateways.gateway, *gateway)
            if info is not None and info.shown is not None:
                part = msgspec.structs.replace(part, tls=msgspec.structs.replace(part.tls, certificate=info.shown.name))
        if not isinstance(part, str):  # a filter that cannot be used any more: its routes say so, and ask for it no longer
            self._put(gateway, part)

    def _note_user(self, gateway: GatewayName, name: Needed, by: int) -> None:
        """Who sends requests to a Service or an XBackend, or has a Filter look at them."""
        kind = name.kind.lower() if isinstance(name, BackendName) else name.kind
        users = self._of.setdefault((kind, name.namespace, name.name), Counter())
        users[gateway] += by
        self.world.note((f"gateways of {kind}", name.namespace, name.name), frozenset(+users))
        if isinstance(name, BackendName):
            spoken = self._spoken.setdefault((kind, name.namespace, name.name), Counter())
            spoken[name.spoken] += by
            self.world.note((f"spoken to {kind}", name.namespace, name.name), frozenset(+spoken))

    def _need_no_more(self, gateway: GatewayName, name: Needed) -> None:
        del self._needed[gateway][name]
        self._note_user(gateway, name, -1)
        users = self._users[name]
        del users[gateway]
        self._drop(gateway, _key(name))
        if not users:
            del self._users[name]
            if isinstance(name, BackendName):
                del self._by_name[str(name)]
                self.view.forget((backends.is_fresh, *name))
            self._roots.discard(_maker(name))
            self.view.forget(_maker(name))

    def _translate_needed(self, todo: set[Key]) -> None:
        names: list[Needed] = [BackendName(*key[1:]) for key in _calls(todo, backends.backend)]
        names += [FilterName(*key[1:]) for key in (*_calls(todo, python_filters.script), *_calls(todo, attachment.script))]
        for name in names:
            for gateway in self._users.get(name, ()):
                self._put_needed(gateway, name)

    def _look_for_pods(self, todo: set[Key]) -> None:
        for key in _calls(todo, xbackends.pods):
            ref = Ref("XBackend", *key[1:])
            found = self.view.call(xbackends.pods, *key[1:])
            if key in self.view.failures or self.pods.get(ref) == found:
                continue  # what our own code fails at is left as it is
            self._update.pods[ref] = found
            if found is None:
                del self.pods[ref]
            else:
                self.pods[ref] = found

    # --- statuses ---

    def _say(self, todo: set[Key]) -> None:
        for key in todo:
            if key[0] in STATUSES:
                self._status(_about(key), self.view.value(key))
            elif key[0] in REMARKING:
                self._remark(key)

    def _remark(self, key: Key) -> None:
        ref, said = _about(key), self.view.value(key)
        self.remarks.pop(ref, None)
        if said:
            self.remarks[ref] = said
        if self.world.read(("object", ref)) is None:
            self._roots.discard(key)
            self.view.forget(key)

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
        faults: dict[Ref, list[tuple[str, str]]] = {}
        for key, several in self.view.failures.items():
            for part, error in several.items():
                faults.setdefault(_about(key), []).append((part, f"{type(error).__name__}: {error}"))
        return faults

    def is_fresh(self, name: str) -> bool:
        """Whether a backend of this name has endpoints, and they are the ones that its Service selects now."""
        backend = self._by_name.get(name)
        return backend is None or self.view.call(backends.is_fresh, *backend)


class OwnValues(NamedTuple):
    """What is worked out of an object for its own sake, by functions of its name: what is said of it, and more."""

    functions: tuple[Callable[..., Any], ...]
    status: Callable[..., Status | None] | None = None  # of these, what is said of it
    given: tuple[str, ...] = ("namespace", "name")  # what of the object's Ref the functions are given

    def keys(self, ref: Ref) -> Iterator[Key]:
        """What names the values of one object."""
        arguments = [getattr(ref, field) for field in self.given]
        return ((function, *arguments) for function in self.functions)


def _with_status(status: Callable[..., Status | None], *others: Callable[..., Any], **given: Any) -> OwnValues:
    return OwnValues((status, *others), status, **given)


OWN_VALUES: Final = {
    "GatewayClass": _with_status(gateways.class_status, given=("name",)),
    "Gateway": _with_status(gateways.gateway_status, gateways.gateway, gateways.running),
    "ListenerSet": _with_status(gateways.listener_set_status),
    **{kind: OwnValues((routes.route,), given=Ref._fields) for kind in ROUTES},  # statuses of routes come with their rules
    "BackendTLSPolicy": _with_status(backend_tls.status),
    "XBackend": _with_status(xbackends.status, xbackends.pods),
    "XBackendTrafficPolicy": _with_status(backend_traffic.status),
    "XTelemetryPolicy": _with_status(telemetry.status),
    "Filter": _with_status(python_filters.status),
    **{kind: _with_status(guarding.status, given=Ref._fields) for kind in ("ListenerFilter", "RouteRuleFilterPolicy")},
    **{kind: _with_status(attachment.status, given=Ref._fields) for kind in POLICIES},
}
STATUSES: Final = frozenset(row.status for row in OWN_VALUES.values() if row.status is not None)
# What is to be said besides, where that is asked for.
REMARKS: Final = {
    "Gateway": OwnValues((remarks.of_gateway,)),
    "ListenerSet": OwnValues((remarks.of_listener_set,)),
    **{kind: OwnValues((remarks.of_route,), given=Ref._fields) for kind in ROUTES},
    "EndpointSlice": OwnValues((remarks.of_slice,)),
    "Service": OwnValues((remarks.of_service,)),
}
REMARKING: Final = frozenset(function for row in REMARKS.values() for function in row.functions)
KINDS_OF: Final[dict[Any, str]] = {  # of functions that are for one kind alone
    backend_tls.validated: "BackendTLSPolicy",
    xbackends.judged: "XBackend",
    backend_traffic.judged: "XBackendTrafficPolicy",
    **{
        function: kind
        for kind, row in (*OWN_VALUES.items(), *REMARKS.items())
        if "kind" not in row.given
        for function in row.functions
    },
}


def _about(key: Key) -> Ref:
    """The object that a value is about."""
    function, arguments = key[0], key[1:]
    if function in KINDS_OF:
        return Ref(KINDS_OF[function], *(("", *arguments) if len(arguments) == 1 else arguments))
    if function in (python_filters.script, attachment.script):
        namespace, name, kind = arguments[:3]
        return Ref(kind, namespace, name)
    kind, namespace, name = (str(argument) for argument in arguments[:3])
    return Ref(kind, namespace, name)


def _maker(name: Needed) -> Key:
    """The call that makes a part."""
    if isinstance(name, BackendName):
        return (backends.backend, *name)
    if name.scope is not None:
        return (attachment.script, *name)
    return (python_filters.script, *name[:3])


def _key(name: Needed) -> snapshot.Key:
    return "backend" if isinstance(name, BackendName) else "script", str(name)


def _calls(keys: set[Key], function: Any) -> list[Key]:
    return sorted((key for key in keys if key[0] is function), key=lambda key: key[1:])


class Translation(NamedTuple):
    """A whole world, translated."""

    parts: dict[GatewayName, Parts]
    statuses: dict[Ref, Status]
    failing: dict[Ref, list[tuple[str, str]]]  # at what our own code fails: parts of objects, and messages
    remarks: dict[Ref, Remarks]  # where they are asked for


def translate(world: World) -> Translation:
    """Everything the world implies for our Gateways: what each should do, and what to say about it."""
    translator = Translator(world)
    translator.update()
    return translated(translator)


def translated(translator: Translator) -> Translation:
    """What a translator has come to."""
    return Translation(translator.parts, translator.statuses, translator.failing(), translator.remarks)


__all__ = ["CONTROLLER", "GatewayName", "Translation", "Translator", "Update", "translate", "translated"]
