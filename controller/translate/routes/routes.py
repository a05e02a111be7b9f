"""Routes of every kind: where they attach, what their rules become there, and what to say of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from controller.objects.base import GATEWAY_GROUP, Ref
from controller.objects.gateways import ALL, DEFAULT_SCOPES, ListenerSet
from controller.objects.references import ParentRef
from controller.objects.routes import ROUTES, AnyRoute, GRPCRoute, HTTPRoute, TCPRoute, UDPRoute
from controller.state.view import View, guarded
from controller.translate.gateways.gateways import GatewayInfo, gateway
from controller.translate.gateways.listeners import ListenerInfo, route_kind_allowed
from controller.translate.policies import attachment as attached
from controller.translate.policies.attachment import RulePlacement
from controller.translate.routes import grpc_rules, http_rules, stream_rules
from controller.translate.routes.http_rules import Rules
from controller.translate.shared import conditions
from controller.translate.shared.conditions import Condition
from controller.translate.shared.hostnames import covers
from controller.translate.shared.names import Needed
from controller.translate.shared.ports import is_allowed
from controller.translate.shared.status import ParentStatus, RouteStatus
from gateway import snapshot


class Served(NamedTuple):
    """What a route means for one Gateway."""

    namespace: str
    gateway: str
    rules: tuple[snapshot.Rule | snapshot.Relay, ...]
    backends: tuple[Needed, ...]
    attached: tuple[str, ...]  # listeners, by their names in the snapshot


class RouteInfo(NamedTuple):
    """A translated route."""

    status: RouteStatus | None  # None: no parent is ours
    served: tuple[Served, ...]


class _Parent(NamedTuple):
    """What a parentRef leads to: a Gateway of ours, itself or by one of its ListenerSets."""

    ref: ParentRef
    info: GatewayInfo
    owner: Ref
    is_default: bool = False  # no parentRef says so, but the Gateway's defaultScope (GEP-3793)

    def of(self, found: AnyRoute, refusal: Condition | None) -> Condition | None:
        """A refusal, with the field that it is about: one of the parentRef's, where it names none of the route's own."""
        if refusal is None or any(one.path[:1] == ("spec",) for one in refusal.details):
            return refusal
        if self.is_default:
            return conditions.within(refusal, "spec", "useDefaultGateways")
        return conditions.within(refusal, "spec", "parentRefs", found.spec.parent_refs.index(self.ref))


def _nowhere(view: View, error: Exception, kind: str, namespace: str, name: str) -> RouteInfo:
    """In place of a route that our own code fails at: it is served nowhere, and says so."""
    resource = view.get(ROUTES[kind], namespace, name)
    if resource is None:
        return RouteInfo(None, ())
    own_conditions = (conditions.unsupported_value(conditions.fault_of_ours(error)), conditions.route_resolved())
    parents = tuple(ParentStatus(_verbatim(parent_ref.ref), own_conditions) for parent_ref in _parents(view, resource))
    return RouteInfo(RouteStatus(resource.metadata.generation, parents) if parents else None, ())


@guarded(_nowhere)
def route(view: View, kind: str, namespace: str, name: str) -> RouteInfo:
    """One route, against every Gateway of ours that it names, or that takes it by default."""
    resource = view.get(ROUTES[kind], namespace, name)
    if resource is None:
        return RouteInfo(None, ())
    parents = list(_parents(view, resource))
    if not parents:
        return RouteInfo(None, ())
    translated = _translated(view, resource)
    statuses: list[ParentStatus] = []
    attachments: dict[tuple[str, str], dict[snapshot.Attachment, None]] = {}
    listeners: dict[tuple[str, str], dict[str, None]] = {}
    taking: dict[str, ListenerInfo] = {}  # listeners, by their names in the snapshot
    for parent in parents:
        info = parent.info
        refusal, taken = _attach(view, resource, parent)
        accepted = (
            parent.of(resource, refusal)
            or translated.unsupported
            or _scope_fault(resource)
            or conditions.route_accepted(by_default=parent.is_default)
        )
        partially = [translated.partially] if translated.partially and accepted.is_true else []
        statuses.append(ParentStatus(_verbatim(parent.ref), (accepted, translated.resolved, *partially)))
        if accepted.is_true:
            for listener, hostname, written in taken:
                listeners.setdefault((info.namespace, info.name), {})[listener.key] = None
                if listener.is_valid and info.refused is None:
                    gateway_attachments = attachments.setdefault((info.namespace, info.name), {})
                    gateway_attachments[snapshot.Attachment(listener.key, hostname, written)] = None
                    taking[listener.key] = listener
    served = tuple(
        _served(view, resource, translated, gateway_name, attachments.get(gateway_name, {}), taking, tuple(names))
        for gateway_name, names in listeners.items()
    )
    return RouteInfo(RouteStatus(resource.metadata.generation, tuple(statuses)), served)


def _served(
    view: View,
    resource: AnyRoute,
    translated: Rules,
    gateway_name: tuple[str, str],
    at: Collection[snapshot.Attachment],
    taking: Mapping[str, ListenerInfo],
    names: tuple[str, ...],
) -> Served:
    """What a route means for one Gateway, of which these listeners take it, by their names; and `at` those that are served."""
    needed: dict[Needed, None] = dict.fromkeys(translated.backends if at else ())

    def policies(rule: snapshot.Rule | snapshot.Relay, attachment: snapshot.Attachment) -> tuple[snapshot.Filter, ...]:
        placement = RulePlacement(gateway_name, taking[attachment.listener].port, attachment.hostname)
        given = attached.filters(view, resource.ref, rule, placement)
        needed.update(dict.fromkeys(name for name in given if not isinstance(name, snapshot.Fault)))
        return tuple(name if isinstance(name, snapshot.Fault) else snapshot.Scripted(str(name)) for name in given)

    apart = [part for rule in translated.rules for part in attached.apart(view, resource.ref, rule)]
    placed = tuple(placement for rule in apart for placement in _placed(rule, at, taking, policies))
    return Served(*gateway_name, placed, tuple(needed), names)


def _translated(view: View, resource: AnyRoute) -> Rules:
    match resource:
        case HTTPRoute():
            return http_rules.rules(view, resource)
        case GRPCRoute():
            return grpc_rules.rules(view, resource)
        case _:
            return stream_rules.relays(view, resource)


def _parents(view: View, found: AnyRoute) -> Iterator[_Parent]:
    """What is ours of a route's parents: those of its parentRefs, and beside them default Gateways, where it wants these."""
    whole: set[Ref] = set()  # Gateways that are named as default Gateways are: all of their own listeners
    for ref in found.spec.parent_refs:
        parent = _parent(view, found, ref)
        if parent is not None:
            yield parent
            if (ref.section_name, ref.port) == (None, None):
                whole.add(parent.owner)
    if found.spec.use_default_gateways != ALL:
        return
    for one in view.index("default gateways"):
        info = view.call(gateway, one.namespace, one.name) if one not in whole else None
        if info is not None:
            yield _Parent(ParentRef(one.name, namespace=one.namespace), info, one, is_default=True)


def _scope_fault(found: AnyRoute) -> Condition | None:
    scope = found.spec.use_default_gateways
    if scope in DEFAULT_SCOPES:
        return None
    return conditions.unsupported_value(conditions.unknown_scope("spec.useDefaultGateways", scope))


def _parent(view: View, resource: AnyRoute, parent: ParentRef) -> _Parent | None:
    namespace = parent.namespace or resource.metadata.namespace
    if parent.group not in (None, GATEWAY_GROUP):
        return None
    if parent.kind in (None, "Gateway"):
        info = view.call(gateway, namespace, parent.name)
        return _Parent(parent, info, Ref("Gateway", namespace, parent.name)) if info is not None else None
    if parent.kind != "ListenerSet":
        return None
    listener_set = view.get(ListenerSet, namespace, parent.name)
    if listener_set is None:
        return None
    info = view.call(gateway, listener_set.spec.parent_ref.namespace or namespace, listener_set.spec.parent_ref.name)
    return _Parent(parent, info, listener_set.ref) if info is not None else None


def _verbatim(parent: ParentRef) -> ParentRef:
    """As the API server has defaulted it; a controller that compares (Flagger does) finds what it wrote."""
    return ParentRef(
        parent.name,
        parent.group or GATEWAY_GROUP,
        parent.kind or "Gateway",
        parent.namespace,
        parent.section_name,
        parent.port,
    )


def _placed(
    rule: snapshot.Rule | snapshot.Relay,
    at: Iterable[snapshot.Attachment],
    taking: Mapping[str, ListenerInfo],
    policies: Callable[[snapshot.Rule | snapshot.Relay, snapshot.Attachment], tuple[snapshot.Filter, ...]],
) -> Iterator[snapshot.Rule | snapshot.Relay]:
    """A rule where it applies: once for each listener with filters of its own, and for each set of policies."""
    groups: dict[tuple[str, tuple[snapshot.Filter, ...]], list[snapshot.Attachment]] = {}
    for attachment in at:
        own = taking[attachment.listener].filters
        every = own + policies(rule, attachment)
        if isinstance(rule, snapshot.Relay) and not all(isinstance(each, snapshot.Scripted) for each in every):
            continue  # nobody can be asked whether a connection may pass
        groups.setdefault((attachment.listener if own else "", every), []).append(attachment)
    names: set[str] = set()
    for (listener, filters), here in groups.items():
        name = f"{rule.name}@{listener}" if listener else rule.name
        if name in names:
            name = f"{name}@{here[0].listener}/{here[0].hostname or '*'}"
        names.add(name)
        yield msgspec.structs.replace(rule, name=name, at=tuple(here), filters=filters + rule.filters)


# --- attaching --------------------------------------------------------------------------------------------


def _attach(
    view: View, resource: AnyRoute, parent: _Parent
) -> tuple[Condition | None, list[tuple[ListenerInfo, str, str | None]]]:
    """The listeners and hostnames that take the route, with what it says itself where that is another one; or why none does."""
    namespace, kind = resource.metadata.namespace, resource.ref.kind
    ref, owned = parent.ref, parent.info.of(parent.owner)
    if parent.owner.kind == "ListenerSet" and parent.owner not in parent.info.sets:
        return conditions.parent_not_accepted(parent.owner), []
    named = [listener for listener in owned if ref.section_name in (None, listener.name) and ref.port in (None, listener.port)]
    if not named:
        listed = [f"{listener.name} (port {listener.port})" for listener in owned]
        field = "sectionName" if ref.section_name not in (None, *(listener.name for listener in owned)) else "port"
        return conditions.at(conditions.no_matching_parent(ref, listed), field), []
    home = parent.owner.namespace
    allowed = [
        listener
        for listener in named
        if route_kind_allowed(listener, kind) and is_allowed(view, listener.namespaces, home, namespace)
    ]
    if not allowed:
        return conditions.not_allowed(namespace, kind), []
    wanted = () if isinstance(resource, (TCPRoute, UDPRoute)) else resource.spec.hostnames
    taken = [(listener, *pair) for listener in allowed for pair in hostnames(wanted, listener.hostname).items()]
    if not taken:
        said = conditions.no_hostname(wanted, [listener.hostname for listener in allowed])
        return conditions.at(said, "spec", "hostnames"), []
    return None, taken


def hostnames(route_hostnames: tuple[str, ...], listener_hostname: str) -> dict[str, str | None]:
    """The intersection: for each pair that overlaps, the more specific of the two ("" stands for all), and where that is the
    listener's what the route says itself: the most specific, where several of its hostnames come to the same."""
    if not route_hostnames:
        return {listener_hostname: "" if listener_hostname else None}
    result: dict[str, str | None] = {}
    for hostname in map(str.lower, route_hostnames):
        if not listener_hostname or hostname == listener_hostname or covers(listener_hostname, hostname):
            result[hostname] = None
        elif covers(hostname, listener_hostname):
            before = result.get(listener_hostname, "")
            if before is not None and len(hostname) > len(before):
                result[listener_hostname] = hostname
    return result
