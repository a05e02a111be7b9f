"""XBackendTrafficPolicy: how much of what a backend is sent may be sent again (GEP-3388), and sessions with it.

At each target the oldest policy stands, and no other; `judged` says so to its status and to its effect. It guards nobody:
what cannot be done has no effect.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from controller.objects.backends import RetryConstraint, XBackend, XBackendTrafficPolicy
from controller.objects.base import X_GROUP, Ref
from controller.objects.core import Service
from controller.objects.references import PolicyTarget
from controller.state.view import View, guarded
from controller.translate import sessions
from controller.translate.shared import ancestors, conditions
from controller.translate.shared.conditions import Condition
from controller.translate.shared.status import AncestorStatus, PolicyStatus
from gateway import snapshot
from gateway.base.durations import is_duration, seconds
from gateway.http import grammar

TARGETS: Final[dict[tuple[str, str], type[Service | XBackend]]] = {("", "Service"): Service, (X_GROUP, "XBackend"): XBackend}
MAX_TARGETS: Final = 16
HOUR: Final = 3600.0


class TrafficVerdict(NamedTuple):
    """What becomes of a policy: at which targets it stands, and what is wrong."""

    accepted: Condition
    at: tuple[Ref, ...] = ()


@guarded(lambda view, error, *_: TrafficVerdict(conditions.policy_invalid(conditions.fault_of_ours(error))))
def judged(view: View, namespace: str, name: str) -> TrafficVerdict | None:
    """The one decision about a policy, from which its status and its effect are made."""
    policy = view.get(XBackendTrafficPolicy, namespace, name)
    if policy is None:
        return None
    wrong = next(_faults(policy), "")
    if wrong:
        return TrafficVerdict(conditions.policy_invalid(wrong))
    at: list[Ref] = []
    refusals: list[Condition] = []
    for index, target in enumerate(policy.spec.target_refs):
        refusal = _refused(view, policy, index, target)
        if refusal is None:
            at.append(Ref(target.kind, namespace, target.name))
        else:
            refusals.append(refusal)
    if not at:
        said = " ".join(one.message for one in refusals)
        return TrafficVerdict(conditions.filter_not_valid(refusals[0].reason, said))
    accepted = conditions.policy_accepted()
    for one in refusals:
        accepted = conditions.with_fault(accepted, " ".join(filter(None, (accepted.fault, one.message))))
    return TrafficVerdict(accepted, tuple(at))


def _refused(view: View, policy: XBackendTrafficPolicy, index: int, target: PolicyTarget) -> Condition | None:
    """Why a policy does not stand at one of its targets."""
    field, namespace = f"spec.targetRefs[{index}]", policy.metadata.namespace
    type_ = TARGETS.get((target.group, target.kind))
    if type_ is None:
        named = f"{target.group}/{target.kind}" if target.group else target.kind
        text = f"{field}: {grammar.shown(named)} cannot have an XBackendTrafficPolicy here; Service and XBackend can."
        return conditions.filter_not_valid("Invalid", text)
    if view.get(type_, namespace, target.name) is None:
        text = f'{field}: {target.kind} "{namespace}/{target.name}" does not exist.'
        return conditions.filter_not_valid("TargetNotFound", text)
    older = _oldest(view, Ref(target.kind, namespace, target.name))
    if older is None or older.metadata.name == policy.metadata.name:
        return None
    text = f'{field}: XBackendTrafficPolicy "{older.metadata.name}" is older and is for {target.kind} "{target.name}" as well.'
    return conditions.filter_not_valid("Conflicted", text)


def _oldest(view: View, target: Ref) -> XBackendTrafficPolicy | None:
    """The policy that stands at a target: the oldest of those that say something which can be done."""
    found = []
    for ref in view.index("traffic policies of", target.namespace, target.kind, target.name):
        policy = view.get(XBackendTrafficPolicy, ref.namespace, ref.name)
        if policy is not None and _is_for(policy, target) and not any(True for _ in _faults(policy)):
            found.append(policy)
    return min(found, key=lambda one: one.metadata.age, default=None)


def _is_for(policy: XBackendTrafficPolicy, target: Ref) -> bool:
    return any(
        (one.group, one.kind) in TARGETS and (one.kind, one.name) == (target.kind, target.name)
        for one in policy.spec.target_refs
    )


def _faults(policy: XBackendTrafficPolicy) -> Iterator[str]:
    """What is wrong with what a policy says; its CRD forbids it, and objects may be older than that."""
    spec = policy.spec
    if not 1 <= len(spec.target_refs) <= MAX_TARGETS:
        yield f"spec.targetRefs: found {len(spec.target_refs)}; 1 to {MAX_TARGETS} are needed."
    if spec.retry_constraint is not None:
        yield from _constraint_faults(spec.retry_constraint)
    if spec.session_persistence is not None:
        yield from (f"spec.{text}." for text in sessions.faults(spec.session_persistence))


def _constraint_faults(asked: RetryConstraint) -> Iterator[str]:
    where, budget, least = "spec.retryConstraint", asked.budget, asked.min_retry_rate
    if not 0 <= budget.percent <= 100:
        yield f"{where}.budget.percent: found {budget.percent}; 0 to 100 is needed."
    if not _lasts(budget.interval, 1.0):
        yield f"{where}.budget.interval: found {grammar.shown(budget.interval)}; 1s to 1h is needed."
    if not 1 <= least.count <= 1_000_000:
        yield f"{where}.minRetryRate.count: found {least.count}; 1 to 1000000 is needed."
    if not _lasts(least.interval, 0.001):
        yield f"{where}.minRetryRate.interval: found {grammar.shown(least.interval)}; 1ms to 1h is needed."


def _lasts(text: str, least: float) -> bool:
    return is_duration(text) and least <= seconds(text) <= HOUR


# --- what it comes to ---


def _in_force(view: View, kind: str, namespace: str, name: str) -> XBackendTrafficPolicy | None:
    found = _oldest(view, Ref(kind, namespace, name))
    if found is None:
        return None
    verdict = view.call(judged, namespace, found.metadata.name)
    return found if verdict is not None and Ref(kind, namespace, name) in verdict.at else None


def budget(view: View, kind: str, namespace: str, name: str) -> snapshot.RetryBudget | None:
    """How much may be sent again to a Service or an XBackend, whatever ports of it and routes to it there are."""
    policy = _in_force(view, kind, namespace, name)
    if policy is None or policy.spec.retry_constraint is None:
        return None
    asked, least = policy.spec.retry_constraint.budget, policy.spec.retry_constraint.min_retry_rate
    return snapshot.RetryBudget(
        f"{kind}/{namespace}/{name}", asked.percent, seconds(asked.interval), least.count, seconds(least.interval)
    )


def persistence(view: View, kind: str, namespace: str, name: str) -> snapshot.Persistence | None:
    """How clients come back to where they were within a backend."""
    policy = _in_force(view, kind, namespace, name)
    if policy is None or policy.spec.session_persistence is None:
        return None
    return sessions.persistence(policy.spec.session_persistence, f"{kind}/{namespace}/{name}")


@guarded(lambda *_: None)
def status(view: View, namespace: str, name: str) -> PolicyStatus | None:
    """What to say of a policy, to each Gateway of ours that sends requests to its targets; of targets that are not there, to
    themselves, as no Gateway can."""
    policy, verdict = view.get(XBackendTrafficPolicy, namespace, name), view.call(judged, namespace, name)
    if policy is None or verdict is None:
        return None
    targets = {
        Ref(one.kind, namespace, one.name): one.group for one in policy.spec.target_refs if (one.group, one.kind) in TARGETS
    }
    told = ancestors.of(view, targets, verdict.accepted)
    if not told and verdict.accepted.reason == "TargetNotFound":
        told = tuple(AncestorStatus(target[1:], (verdict.accepted,), target.kind, group) for target, group in targets.items())
    return PolicyStatus(policy.metadata.generation, told) if told else None
