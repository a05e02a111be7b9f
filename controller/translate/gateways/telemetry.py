"""XTelemetryPolicy: what a Gateway is to tell of its requests, and what to say of the policy (GEP-4768).

There is no tracing yet. So nothing comes of a policy but its status, which refuses one that asks for tracing and accepts one
that asks for none.
"""

from __future__ import annotations

from typing import Final

from controller.objects.base import GATEWAY_GROUP
from controller.objects.gateways import Gateway, XTelemetryPolicy
from controller.objects.references import PolicyTarget
from controller.state.view import View, guarded
from controller.translate import backends
from controller.translate.shared import conditions
from controller.translate.shared.ancestors import is_ours
from controller.translate.shared.conditions import Condition
from controller.translate.shared.status import AncestorStatus, PolicyStatus

UNTRACED: Final = ("Disabled", "ImplementationDefault")  # modes that ask for nothing: by default nothing is traced


@guarded(lambda *_: None)
def status(view: View, namespace: str, name: str) -> PolicyStatus | None:
    """What to say of a policy, of each Gateway that it is for; nothing of Gateways that are not ours."""
    policy = view.get(XTelemetryPolicy, namespace, name)
    if policy is None:
        return None
    resolved = _resolved(view, policy)
    told = [
        AncestorStatus((namespace, target.name), (accepted, resolved), target.kind, target.group)
        for index, target in enumerate(dict.fromkeys(policy.spec.target_refs))
        if (accepted := _accepted(view, policy, f"spec.targetRefs[{index}]", target)) is not None
    ]
    return PolicyStatus(policy.metadata.generation, tuple(told)) if told else None


def _accepted(view: View, policy: XTelemetryPolicy, field: str, target: PolicyTarget) -> Condition | None:
    namespace = policy.metadata.namespace
    if (target.group, target.kind) != (GATEWAY_GROUP, "Gateway"):
        text = f'{field}: "{target.group}/{target.kind}" cannot have an XTelemetryPolicy; {GATEWAY_GROUP}/Gateway can.'
        return conditions.policy_invalid(text)
    gateway = view.get(Gateway, namespace, target.name)
    if gateway is None:
        text = f'{field}: Gateway "{namespace}/{target.name}" does not exist.'
        return conditions.filter_not_valid("TargetNotFound", text)
    if not view.call(is_ours, gateway.spec.gateway_class_name):
        return None
    first = _first(view, namespace, target.name)
    if first is not None and first != policy.metadata.name:
        return conditions.policy_conflicted("XTelemetryPolicy", first)
    fault = _fault(policy)
    return conditions.policy_invalid(fault) if fault else conditions.policy_accepted()


def _first(view: View, namespace: str, gateway: str) -> str | None:
    """The policy that a Gateway has: the oldest, then the first by name. That it asks for too much lets no other one in."""
    found = []
    for ref in view.index("telemetry policies of", namespace, gateway):
        one = view.get(XTelemetryPolicy, ref.namespace, ref.name)
        targets = one.spec.target_refs if one is not None else ()
        if one is not None and any((t.group, t.kind, t.name) == (GATEWAY_GROUP, "Gateway", gateway) for t in targets):
            found.append(one.metadata.age)
    return min(found)[-1] if found else None


def _fault(policy: XTelemetryPolicy) -> str:
    """What a policy asks for that is not done."""
    tracing = policy.spec.tracing
    if tracing is None:
        return "spec: says nothing; tracing is needed."
    if tracing.mode == "Enabled":
        return (
            'spec.tracing.mode: found "Enabled"; tracing is not supported by this version, and nothing is traced. '
            f"{' and '.join(UNTRACED)} are understood."
        )
    if tracing.mode not in UNTRACED:
        return f'spec.tracing.mode: found "{tracing.mode[:60]}"; {" and ".join(UNTRACED)} are understood.'
    if tracing.provider is not None:
        return f'spec.tracing.provider: means nothing with mode "{tracing.mode}"; tracing is not supported by this version.'
    return ""


def _resolved(view: View, policy: XTelemetryPolicy) -> Condition:
    """Whether there is whom spans would be sent to: all that is wrong is said in one go."""
    tracing = policy.spec.tracing
    if tracing is None or tracing.provider is None:
        return conditions.policy_resolved()
    asked = backends.as_backend(tracing.provider.backend_ref)
    fault = backends.resolve(view, "XTelemetryPolicy", policy.metadata.namespace, asked).fault
    if fault is None:
        return conditions.policy_resolved()
    return conditions.policy_unresolved(fault.reason, f"spec.tracing.provider.backendRef: {fault.message}")
