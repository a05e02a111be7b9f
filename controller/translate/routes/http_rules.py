"""HTTPRoute rules → snapshot rules."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from controller.objects.base import Ref
from controller.objects.references import ParametersRef
from controller.objects.routes import AnyRoute, BackendRef, HTTPFilter, HTTPRoute, HTTPRule, SessionPersistence
from controller.state.view import View
from controller.translate import filters, python_filters, sessions, xbackends
from controller.translate.backends import Resolved, resolve
from controller.translate.policies import backend_traffic, services
from controller.translate.shared import conditions, matches
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import BackendName, FilterName, Needed
from gateway import snapshot
from gateway.base.durations import seconds

HEAVIEST: Final = 1_000_000  # BackendRef.weight


class Rules(NamedTuple):
    """A route's rules before they are attached anywhere."""

    rules: tuple[snapshot.Rule | snapshot.Relay, ...]
    backends: tuple[Needed, ...]
    resolved: Condition
    unsupported: Condition | None
    partially: Condition | None


def rules(view: View, route: HTTPRoute) -> Rules:
    """The rules of an HTTPRoute."""
    translated: list[snapshot.Rule] = []
    backends: dict[Needed, None] = {}
    faults: list[Condition] = []
    unsupported: list[str] = []
    for index, rule in enumerate(route.spec.rules):
        wrong = [f"rules[{index}].{text}" for text in _unsupported(rule)]
        unsupported += wrong
        if any(True for _ in matches.http_faults(rule)):
            continue  # it cannot be told which requests it means
        snapshot_rule, needed, resolved = _rule(view, route, index, rule)
        if wrong:
            fault = snapshot.Fault(500, "this rule asks for something that is not supported")
            snapshot_rule = snapshot.Rule(snapshot_rule.name, snapshot_rule.order, (), snapshot_rule.matches, (fault,))
            needed = []
        translated.append(snapshot_rule)
        backends.update(dict.fromkeys(needed))
        faults += faults_of(resolved, index)
    return Rules(tuple(translated), tuple(backends), resolution(faults), *unsupported_rules(unsupported, len(route.spec.rules)))


def unsupported_rules(faults: list[str], count: int) -> tuple[Condition | None, Condition | None]:
    """What to say of the route (no rule is left), or of those rules, given faults that begin with `rules[N].`."""
    if not faults:
        return None, None
    text = "; ".join(faults)
    if len({fault.split(".")[0] for fault in faults}) == count:
        return msgspec.structs.replace(conditions.unsupported_value(text), details=conditions.written(faults)), None
    message = f"Dropped Rule: {text}"
    return None, Condition("PartiallyInvalid", "True", "UnsupportedValue", message, details=conditions.written(faults))


def _unsupported(rule: HTTPRule) -> list[str]:
    return [*matches.http_faults(rule), *filters.faults_of_rule(rule)]


def resolution(faults: list[Condition]) -> Condition:
    """ResolvedRefs, given what is wrong."""
    if not faults:
        return conditions.route_resolved()
    # One reason is written; the words name everything that is wrong.
    said = conditions.unresolved(faults[0].reason, " ".join(dict.fromkeys(fault.message for fault in faults)))
    return msgspec.structs.replace(said, details=tuple(dict.fromkeys(one for fault in faults for one in fault.details)))


def faults_of(resolved: list[Resolved], index: int) -> list[Condition]:
    """What is wrong with the references of a route's rule."""
    return [conditions.within(one.fault, "spec", "rules", index) for one in resolved if one.fault is not None]


def _rule(view: View, route: HTTPRoute, index: int, rule: HTTPRule) -> tuple[snapshot.Rule, list[Needed], list[Resolved]]:
    asked_here = persistence(route, index, rule.session_persistence)
    specs, targets, needed, resolved = forwarding(
        view, route.ref, rule.filters, rule.backend_refs, asks_backends=asked_here is None
    )
    asked = [
        reference.backend for reference in resolved if reference.backend is not None and reference.backend.kind == "Service"
    ]
    snapshot_rule = snapshot.Rule(
        name=f"{route.metadata.namespace}/{route.metadata.name}/{index}",
        order=order(route, index),
        at=(),
        matches=matches.http_matches(rule),
        filters=specs,
        targets=targets,
        timeouts=_timeouts(rule),
        retry=_retry(rule) or services.retry(view, asked),
        persistence=asked_here or services.session(view, asked),
    )
    return snapshot_rule, needed, resolved


def order(route: AnyRoute, index: int) -> snapshot.Order:
    """Where a rule stands among others that match as well."""
    meta = route.metadata
    return snapshot.Order(meta.creation_timestamp, f"{meta.namespace}/{meta.name}", index)


def forwarding(
    view: View, route: Ref, rule_filters: tuple[HTTPFilter, ...], refs: tuple[BackendRef, ...], *, asks_backends: bool = False
) -> tuple[tuple[snapshot.Filter, ...], tuple[snapshot.Target, ...], list[Needed], list[Resolved]]:
    """The filters and targets of a rule, the backends that they need, and what references led to. `asks_backends`:
    how clients come back is for each backend to say; not where the rule says it, or where there are no sessions."""

    def look_up(ref: BackendRef, *, grpc: bool = False) -> Resolved:
        return resolve(view, route.kind, route.namespace, ref, grpc=grpc)

    def find(ref: ParametersRef) -> FilterName | Condition:
        return python_filters.resolve(view, route.namespace, ref)

    specs, resolved, needed = filters.translate(rule_filters, look_up, find)
    targets = []
    for index, ref in enumerate(refs):
        weight = min(max(ref.weight, 0), HEAVIEST)
        own, own_resolved, own_needed = filters.translate(ref.filters, look_up, find)
        reference = look_up(ref)
        resolved += [each.within("backendRefs", index) for each in (reference, *own_resolved)]
        needed += own_needed
        if reference.backend is not None:
            needed.append(reference.backend)
            breaker = services.breaker(view, reference.backend) if route.kind in ("HTTPRoute", "GRPCRoute") else None
            if breaker is not None:
                needed.append(breaker)
                own += (snapshot.Scripted(str(breaker)),)
            sessions_ = _own_persistence(view, reference.backend) if asks_backends else None
            is_hashed = services.is_hashed(view, reference.backend)
            targets.append(snapshot.Target(weight, str(reference.backend), own, hashed=is_hashed, persistence=sessions_))
        else:
            reason = reference.fault.message if reference.fault else ""
            targets.append(snapshot.Target(weight, "", (), 500, reason, _written(ref, route.namespace)))
    needed += [reference.refused for reference in resolved if reference.refused is not None]
    return specs, tuple(targets), needed, resolved


def _own_persistence(view: View, name: BackendName) -> snapshot.Persistence | None:
    """How clients come back to where they were within a backend: as an XBackend says itself, else as a policy says of it."""
    return xbackends.persistence(view, name) or backend_traffic.persistence(view, name.kind, name.namespace, name.name)


def _written(ref: BackendRef, namespace: str) -> str:
    """What a reference names, whether or not it is there, spelled as backends are."""
    return str(BackendName(ref.kind, ref.namespace or namespace, ref.name, ref.port or 0))


def _retry(rule: HTTPRule) -> snapshot.Retry | None:
    if rule.retry is None:
        return None
    return snapshot.Retry(rule.retry.codes, rule.retry.attempts, seconds(rule.retry.backoff))


def persistence(route: AnyRoute, index: int, asked: SessionPersistence | None) -> snapshot.Persistence | None:
    """How clients of a rule come back to where they were."""
    if asked is None:
        return None
    return sessions.persistence(asked, f"{route.ref.kind}/{route.metadata.namespace}/{route.metadata.name}/{index}")


def _timeouts(rule: HTTPRule) -> snapshot.Timeouts:
    request, backend = seconds(rule.timeouts.request), seconds(rule.timeouts.backend_request)
    return snapshot.Timeouts(request, backend) if request or backend else snapshot.NO_TIMEOUTS
