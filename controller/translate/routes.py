"""HTTPRoutes: where they attach, what their rules become, and what to say of them."""

from __future__ import annotations

import re
from typing import NamedTuple

from controller.memo import View
from controller.objects import GATEWAY_GROUP, BackendRef, HTTPRoute, HTTPRule, Namespace, ParentRef, RouteNamespaces
from controller.translate import conditions, filters, matches
from controller.translate.backends import BackendName, Resolved, resolve
from controller.translate.conditions import Condition
from controller.translate.gateways import GatewayInfo, gateway
from controller.translate.listeners import ListenerInfo
from controller.translate.status import ParentStatus, RouteStatus
from gateway import snapshot

_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Served(NamedTuple):
    """What a route means for one Gateway."""

    namespace: str
    gateway: str
    rules: tuple[snapshot.Rule, ...]
    backends: tuple[BackendName, ...]
    attached: tuple[str, ...]  # listeners, by their names in the snapshot


class RouteInfo(NamedTuple):
    """A translated route."""

    status: RouteStatus | None  # None: no parent is ours
    served: tuple[Served, ...]


class Rules(NamedTuple):
    """A route's rules before they are attached anywhere."""

    rules: tuple[snapshot.Rule, ...]
    backends: tuple[BackendName, ...]
    resolved: Condition
    unsupported: Condition | None
    partially: Condition | None


def route(view: View, namespace: str, name: str) -> RouteInfo:
    """One HTTPRoute, against every Gateway of ours that it names."""
    found = view.get(HTTPRoute, namespace, name)
    if found is None:
        return RouteInfo(None, ())
    parents = [(parent, info) for parent in found.spec.parent_refs if (info := _parent(view, found, parent))]
    if not parents:
        return RouteInfo(None, ())
    rules = _rules(view, found)
    said: list[ParentStatus] = []
    attachments: dict[tuple[str, str], dict[snapshot.Attachment, None]] = {}
    listeners: dict[tuple[str, str], dict[str, None]] = {}
    for parent, info in parents:
        refusal, taken = _attach(view, found, parent, info)
        accepted = refusal or rules.unsupported or conditions.route_accepted()
        partially = [rules.partially] if rules.partially and accepted.is_true else []
        said.append(ParentStatus(_verbatim(parent), (accepted, rules.resolved, *partially)))
        if accepted.is_true:
            for listener, hostname in taken:
                listeners.setdefault((info.namespace, info.name), {})[listener.key] = None
                if listener.is_valid and info.refused is None:
                    where = attachments.setdefault((info.namespace, info.name), {})
                    where[snapshot.Attachment(listener.key, hostname)] = None
    served = tuple(
        Served(
            *where,
            tuple(_at(rule, tuple(attachments.get(where, ()))) for rule in rules.rules) if where in attachments else (),
            rules.backends if where in attachments else (),
            tuple(attached),
        )
        for where, attached in listeners.items()
    )
    return RouteInfo(RouteStatus(found.metadata.generation, tuple(said)), served)


def _parent(view: View, found: HTTPRoute, parent: ParentRef) -> GatewayInfo | None:
    if parent.kind not in (None, "Gateway") or parent.group not in (None, GATEWAY_GROUP):
        return None
    return view.call(gateway, parent.namespace or found.metadata.namespace, parent.name)


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


def _at(rule: snapshot.Rule, at: tuple[snapshot.Attachment, ...]) -> snapshot.Rule:
    return snapshot.Rule(rule.name, rule.order, at, rule.matches, rule.filters, rule.targets, rule.timeouts)


# --- attaching --------------------------------------------------------------------------------------------


def _attach(
    view: View, found: HTTPRoute, parent: ParentRef, info: GatewayInfo
) -> tuple[Condition | None, list[tuple[ListenerInfo, str]]]:
    """The listeners and hostnames that take the route, or why none does."""
    namespace = found.metadata.namespace
    named = [one for one in info.listeners if parent.section_name in (None, one.name) and parent.port in (None, one.port)]
    if not named:
        listed = [f"{one.name} (port {one.port})" for one in info.listeners]
        return conditions.no_matching_parent(parent, listed), []
    allowed = [
        one
        for one in named
        if any(kind.kind == "HTTPRoute" for kind in one.kinds) and _namespace_allowed(view, one.namespaces, info, namespace)
    ]
    if not allowed:
        return conditions.not_allowed(namespace, "HTTPRoute"), []
    taken = [(one, hostname) for one in allowed for hostname in hostnames(found.spec.hostnames, one.hostname)]
    if not taken:
        return conditions.no_hostname(found.spec.hostnames, [one.hostname for one in allowed]), []
    return None, taken


def _namespace_allowed(view: View, allowed: RouteNamespaces, info: GatewayInfo, namespace: str) -> bool:
    match allowed.from_:
        case "All":
            return True
        case "Selector" if allowed.selector is not None:
            found = view.get(Namespace, "", namespace)
            return found is not None and allowed.selector.matches(found.metadata.labels)
        case _:
            return namespace == info.namespace


def hostnames(route_hostnames: tuple[str, ...], listener_hostname: str) -> list[str]:
    """The intersection: for each pair that overlaps, the more specific of the two ("" stands for all)."""
    if not route_hostnames:
        return [listener_hostname]
    result: dict[str, None] = {}
    for hostname in route_hostnames:
        lower = hostname.lower()
        if not listener_hostname or lower == listener_hostname or _covers(listener_hostname, lower):
            result[lower] = None
        elif _covers(lower, listener_hostname):
            result[listener_hostname] = None
    return list(result)


def _covers(wildcard: str, hostname: str) -> bool:
    """Whether *.example.com covers a name, or a narrower wildcard, below example.com."""
    return wildcard.startswith("*.") and hostname.endswith(wildcard[1:]) and hostname != wildcard


# --- rules ------------------------------------------------------------------------------------------------


def _rules(view: View, found: HTTPRoute) -> Rules:
    rules: list[snapshot.Rule] = []
    backends: dict[BackendName, None] = {}
    faults: list[Condition] = []
    unsupported: list[str] = []
    for index, rule in enumerate(found.spec.rules):
        wrong = [f"rules[{index}].{text}" for text in _unsupported(rule)]
        unsupported += wrong
        if any(True for _ in matches.faults(rule)):
            continue  # it cannot be told which requests it means
        made, needed, resolved = _rule(view, found, index, rule)
        if wrong:
            fault = snapshot.Fault(500, "this rule asks for something that is not supported")
            made = snapshot.Rule(made.name, made.order, (), made.matches, (fault,))
            needed = []
        rules.append(made)
        backends.update(dict.fromkeys(needed))
        faults += [one.fault for one in resolved if one.fault is not None]
    whole = partially = None
    if unsupported:
        text = "; ".join(unsupported)
        if len({text.split(".")[0] for text in unsupported}) == len(found.spec.rules):
            whole = conditions.unsupported_value(text)
        else:
            partially = Condition("PartiallyInvalid", "True", "UnsupportedValue", f"Dropped Rule: {text}")
    return Rules(tuple(rules), tuple(backends), _resolved(faults), whole, partially)


def _unsupported(rule: HTTPRule) -> list[str]:
    said = [*matches.faults(rule), *filters.faults(rule.filters)]
    for index, ref in enumerate(rule.backend_refs):
        said += filters.faults(ref.filters, f"backendRefs[{index}].filters")
    return said


def _resolved(faults: list[Condition]) -> Condition:
    if not faults:
        return conditions.route_resolved()
    # One reason is written; the words name everything that is wrong.
    return conditions.unresolved(faults[0].reason, " ".join(dict.fromkeys(fault.message for fault in faults)))


def _rule(view: View, found: HTTPRoute, index: int, rule: HTTPRule) -> tuple[snapshot.Rule, list[BackendName], list[Resolved]]:
    meta = found.metadata

    def look_up(ref: BackendRef) -> Resolved:
        return resolve(view, "HTTPRoute", meta.namespace, ref)

    specs, resolved, needed = filters.translate(rule.filters, look_up)
    targets = []
    for ref in rule.backend_refs:
        own, own_resolved, own_needed = filters.translate(ref.filters, look_up)
        one = look_up(ref)
        resolved += [one, *own_resolved]
        needed += own_needed
        if one.backend is not None:
            needed.append(one.backend)
            targets.append(snapshot.Target(ref.weight, str(one.backend), own))
        else:
            reason = one.fault.message if one.fault else ""
            targets.append(snapshot.Target(ref.weight, "", (), 500, reason))
    made = snapshot.Rule(
        name=f"{meta.namespace}/{meta.name}/{index}",
        order=snapshot.Order(meta.creation_timestamp, f"{meta.namespace}/{meta.name}", index),
        at=(),
        matches=matches.matches(rule),
        filters=specs,
        targets=tuple(targets),
        timeouts=_timeouts(rule),
    )
    return made, needed, resolved


def _timeouts(rule: HTTPRule) -> snapshot.Timeouts:
    request, backend = seconds(rule.timeouts.request), seconds(rule.timeouts.backend_request)
    return snapshot.Timeouts(request, backend) if request or backend else snapshot.NO_TIMEOUTS


def seconds(duration: str) -> float:
    """A Gateway API Duration (GEP-2257) in seconds; nothing is 0."""
    return sum(int(number) * _UNIT[unit] for number, unit in re.findall(r"([0-9]+)(ms|h|m|s)", duration)) or 0.0
