"""ListenerFilters and RouteRuleFilterPolicies, which stand before a Gateway's ports and before rules: where which does.

One decision, `judged`, makes both the status of one and its effect. What guards a place and cannot be used keeps it shut.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from controller.objects.base import EXTENSION_GROUP, GATEWAY_GROUP, Ref
from controller.objects.filters import ListenerFilter, ListenerTarget, RouteRuleFilterPolicy, RuleTarget
from controller.objects.gateways import Gateway
from controller.objects.routes import TCPRoute, UDPRoute
from controller.state.view import View, guarded
from controller.translate import python_filters
from controller.translate.python_filters import ASPECTS
from controller.translate.shared import ancestors, conditions, ports
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import FilterName
from controller.translate.shared.status import ExtensionStatus

RULES: Final[dict[str, type[TCPRoute | UDPRoute]]] = {"TCPRoute": TCPRoute, "UDPRoute": UDPRoute}
KINDS_THAT_GUARD: Final[dict[str, type[ListenerFilter | RouteRuleFilterPolicy]]] = {
    "ListenerFilter": ListenerFilter,
    "RouteRuleFilterPolicy": RouteRuleFilterPolicy,
}


class Guarding(NamedTuple):
    """What becomes of something that stands before a Gateway's ports, or before rules: where it does so, and what is said."""

    accepted: Condition
    at: tuple[ListenerTarget | RuleTarget, ...] = ()
    shut: bool = False  # it cannot be used, so that nothing passes there


def _unguarded(view: View, error: Exception, kind: str, namespace: str, name: str) -> Guarding | None:
    guard = view.get(KINDS_THAT_GUARD[kind], namespace, name)
    accepted = conditions.filter_not_valid("Invalid", conditions.fault_of_ours(error))
    return Guarding(accepted, guard.spec.target_refs, shut=True) if guard is not None else None


@guarded(_unguarded)
def judged(view: View, kind: str, namespace: str, name: str) -> Guarding | None:
    """The one decision about a ListenerFilter or a RouteRuleFilterPolicy, from which its status and its effect are made.

    Of several targets those that are there are guarded, whatever became of the others: a Gateway that goes must not take
    the guard of another along.
    """
    guard = view.get(KINDS_THAT_GUARD[kind], namespace, name)
    if guard is None:
        return None
    if not guard.spec.target_refs:
        text = guard.fault or "spec.targetRefs: found none; what it is for is needed."
        return Guarding(conditions.filter_not_valid("Invalid", text))
    faults: list[Condition] = []
    at: list[ListenerTarget | RuleTarget] = []
    targets: tuple[ListenerTarget | RuleTarget, ...] = guard.spec.target_refs
    for index, target in enumerate(targets):
        field = f"spec.targetRefs[{index}]"
        if isinstance(target, ListenerTarget):
            fault = _missing_gateway(view, namespace, field, target)
        else:
            fault = _missing_rule(view, namespace, field, target)
        if fault is None:
            at.append(target)
        else:
            faults.append(fault)
    if not at:
        return Guarding(faults[0])
    good = conditions.filter_accepted() if isinstance(guard, ListenerFilter) else conditions.policy_accepted()
    accepted = _unusable(view, guard) or good
    shut = not accepted.is_true and accepted.reason != "ScriptInvalid"
    if faults and accepted.is_true:
        accepted = conditions.with_fault(accepted, " ".join(condition.message for condition in faults))
    return Guarding(accepted, tuple(at), shut)


def _unusable(view: View, guard: ListenerFilter | RouteRuleFilterPolicy) -> Condition | None:
    """Why it cannot do what it is for."""
    namespace = guard.metadata.namespace
    if isinstance(guard, ListenerFilter):
        script = view.call(python_filters.script, namespace, guard.metadata.name, "ListenerFilter")
        accepted = python_filters.accepted(view, FilterName(namespace, guard.metadata.name, "ListenerFilter"), script)
        return None if accepted.is_true else accepted
    if guard.fault:
        return conditions.filter_not_valid("Invalid", guard.fault)
    for index, ref in enumerate(guard.spec.filter_refs):
        if (ref.group, ref.kind) != (EXTENSION_GROUP, "Filter"):
            text = f'spec.filterRefs[{index}]: "{ref.group}/{ref.kind}" is no kind of filter; {EXTENSION_GROUP}/Filter is.'
            return conditions.filter_not_valid("Invalid", text)
        script = view.call(python_filters.script, namespace, ref.name, "Filter")
        if isinstance(script, str):
            text = f'spec.filterRefs[{index}]: Filter "{namespace}/{ref.name}": {script}'
            return conditions.filter_not_valid("FilterNotValid", text)
    return None


def _missing_gateway(view: View, namespace: str, field: str, target: ListenerTarget) -> Condition | None:
    if (target.group, target.kind) != (GATEWAY_GROUP, "Gateway"):
        text = f'{field}: "{target.group}/{target.kind}" has no listeners; {GATEWAY_GROUP}/Gateway has.'
        return conditions.filter_not_valid("Invalid", text)
    if view.get(Gateway, namespace, target.name) is None:
        text = f'{field}: Gateway "{namespace}/{target.name}" does not exist.'
        return conditions.filter_not_valid("TargetNotFound", text)
    opened = sorted({port.number for port in ports.of(view, namespace, target.name)})
    if target.port is not None and target.port not in opened:
        listed = ", ".join(map(str, opened)) or "none"
        text = f'{field}.port: Gateway "{target.name}" has no listener at {target.port}; it has {listed}.'
        return conditions.filter_not_valid("TargetNotFound", text)
    return None


def _missing_rule(view: View, namespace: str, field: str, target: RuleTarget) -> Condition | None:
    kind = RULES.get(target.kind) if target.group == GATEWAY_GROUP else None
    if kind is None:
        text = f'{field}: "{target.group}/{target.kind}" cannot have one; {" and ".join(RULES)} can.'
        return conditions.filter_not_valid("Invalid", text)
    route = view.get(kind, namespace, target.name)
    if route is None:
        text = f'{field}: {target.kind} "{namespace}/{target.name}" does not exist.'
        return conditions.filter_not_valid("TargetNotFound", text)
    if target.rule and all(rule.name != target.rule for rule in route.spec.rules):
        text = f'{field}.rule: {target.kind} "{target.name}" has no rule named "{target.rule}".'
        return conditions.filter_not_valid("TargetNotFound", text)
    return None


def listener_filters(view: View, namespace: str, gateway: str, port: int, aspect: str) -> tuple[FilterName, ...]:
    """The ListenerFilters of a Gateway's port, in order; also those that cannot be used: what they guard stays shut."""
    ranked = []
    for ref in view.index("listener filters of", namespace, gateway):
        guard = view.get(ListenerFilter, ref.namespace, ref.name)
        verdict = view.call(judged, "ListenerFilter", ref.namespace, ref.name)
        if guard is None or verdict is None or (guard.spec.aspect if guard.spec.aspect in ASPECTS else ASPECTS[0]) != aspect:
            continue
        if any(isinstance(at, ListenerTarget) and at.name == gateway and at.port in (None, port) for at in verdict.at):
            ranked.append((guard.spec.priority, guard.metadata.creation_timestamp, ref.name))
    return tuple(FilterName(namespace, name, "ListenerFilter") for *_, name in sorted(ranked))


def rule_filters(view: View, route: Ref, rule: str) -> tuple[FilterName, ...]:
    """The Filters that RouteRuleFilterPolicies give to a rule, in order; also those that cannot be used."""
    orders: dict[FilterName, tuple[int, str, str, int]] = {}
    for ref in view.index("rule filters of", route.kind, route.namespace, route.name):
        policy = view.get(RouteRuleFilterPolicy, ref.namespace, ref.name)
        verdict = view.call(judged, "RouteRuleFilterPolicy", ref.namespace, ref.name)
        if policy is None or verdict is None:
            continue
        here = [at for at in verdict.at if isinstance(at, RuleTarget) and (at.kind, at.name) == (route.kind, route.name)]
        if not any(at.rule in ("", rule) for at in here):
            continue
        for index, filter_ref in enumerate(policy.spec.filter_refs):
            order = (filter_ref.priority, policy.metadata.creation_timestamp, policy.metadata.name, index)
            name = FilterName(route.namespace, filter_ref.name)
            orders[name] = min(order, orders.get(name, order))
        if verdict.shut:  # names no program, so that nobody passes
            shut = FilterName(ref.namespace, ref.name, "RouteRuleFilterPolicy")
            orders[shut] = (-1, policy.metadata.creation_timestamp, policy.metadata.name, 0)
    return tuple(sorted(orders, key=lambda name: orders[name]))


@guarded(lambda *_: None)
def status(view: View, kind: str, namespace: str, name: str) -> ExtensionStatus | None:
    """What to say of a ListenerFilter, or of a RouteRuleFilterPolicy."""
    guard = view.get(KINDS_THAT_GUARD[kind], namespace, name)
    verdict = view.call(judged, kind, namespace, name)
    if guard is None or verdict is None:
        return None
    own_conditions = [verdict.accepted]
    if verdict.shut:
        what = ", ".join(f'{at.kind} "{at.name}"' for at in verdict.at)
        own_conditions.append(conditions.failing_closed(f"nothing passes where it is meant ({what})"))
    targets = [Ref(target.kind, namespace, target.name) for target in verdict.at or guard.spec.target_refs]
    return ExtensionStatus(guard.metadata.generation, tuple(own_conditions), ancestors.of(view, targets, *own_conditions))
