"""BackendTLSPolicy: how a Service is spoken to over TLS, and what to say of the policy (GEP-1897)."""

from __future__ import annotations

from controller.memo import View
from controller.objects import OPTION, BackendTLSPolicy, PolicyTarget, Ref
from controller.translate import ancestors, certificates, conditions
from controller.translate.conditions import Condition
from controller.translate.status import PolicyStatus
from gateway import snapshot

_REASONS = {"reference": "InvalidCACertificateRef", "kind": "InvalidKind", "grant": "InvalidCACertificateRef"}


def tls(view: View, namespace: str, service: str, port_name: str) -> snapshot.BackendTLS | Condition | None:
    """How a port of a Service is spoken to; the condition that says why it cannot be; None without TLS."""
    policy = _policy_of(view, namespace, service, port_name)
    if policy is None:
        return None
    made, accepted, _ = view.call(validated, namespace, policy)
    return made if made is not None else accepted


def _policy_of(view: View, namespace: str, service: str, port_name: str) -> str | None:
    """The policy in force: one for the port before one for the Service, then the oldest."""
    found = []
    for policy, target in _policies(view, namespace, service):
        if target.section_name in ("", port_name):
            found.append((not target.section_name, *_age(policy), policy.metadata.name))
    return min(found)[-1] if found else None


def _policies(view: View, namespace: str, service: str) -> list[tuple[BackendTLSPolicy, PolicyTarget]]:
    result = []
    for ref in view.index("TLS policies of", namespace, "Service", service):
        policy = view.get(BackendTLSPolicy, ref.namespace, ref.name)
        for target in policy.spec.target_refs if policy is not None else ():
            if policy is not None and (target.group, target.kind, target.name) == ("", "Service", service):
                result.append((policy, target))
    return result


def _age(policy: BackendTLSPolicy) -> tuple[str, str]:
    return policy.metadata.creation_timestamp, f"{policy.metadata.namespace}/{policy.metadata.name}"


def validated(view: View, namespace: str, name: str) -> tuple[snapshot.BackendTLS | None, Condition, Condition]:
    """What a policy asks for, if that can be done; whether it is accepted; whether its references are resolved."""
    policy = view.get(BackendTLSPolicy, namespace, name)
    resolved = conditions.policy_resolved()
    if policy is None:
        return None, conditions.no_valid_authority(()), resolved
    wanted = policy.spec.validation
    pem, faults = certificates.authorities(view, "BackendTLSPolicy", namespace, wanted.ca_certificate_refs)
    if faults:
        resolved = conditions.policy_unresolved(_REASONS[faults[0].kind], " ".join(fault.message for fault in faults))
    if wanted.well_known_ca_certificates and wanted.well_known_ca_certificates != "System":
        text = f'wellKnownCACertificates: "{wanted.well_known_ca_certificates}" is not known; System is.'
        return None, conditions.policy_invalid(text), resolved
    if not pem and not wanted.well_known_ca_certificates:
        return None, conditions.no_valid_authority([fault.message for fault in faults]), resolved
    names = tuple(
        snapshot.SubjectName("URI", one.uri) if one.type == "URI" else snapshot.SubjectName("Hostname", one.hostname)
        for one in wanted.subject_alt_names
    )
    minimum = policy.spec.options.get(OPTION + "minimum-tls-version", "")
    return snapshot.BackendTLS(wanted.hostname, pem, names, minimum=minimum), conditions.policy_accepted(), resolved


def status(view: View, namespace: str, name: str) -> PolicyStatus | None:
    """What to say of a policy, to each Gateway of ours that sends requests to its Services."""
    policy = view.get(BackendTLSPolicy, namespace, name)
    if policy is None:
        return None
    _, accepted, resolved = view.call(validated, namespace, name)
    older = _older(view, policy)
    if older:
        accepted = conditions.policy_conflicted(older)
    targets = [
        Ref("Service", namespace, one.name) for one in policy.spec.target_refs if (one.group, one.kind) == ("", "Service")
    ]
    told = ancestors.of(view, targets, accepted, resolved)
    return PolicyStatus(policy.metadata.generation, told) if told else None


def _older(view: View, policy: BackendTLSPolicy) -> str:
    """The policy that stands before this one at every target that it has; empty where it has one for itself."""
    winner = ""
    for target in policy.spec.target_refs:
        same = [
            other
            for other, theirs in _policies(view, policy.metadata.namespace, target.name)
            if theirs.section_name == target.section_name and _age(other) < _age(policy)
        ]
        if not same:
            return ""
        winner = min(same, key=_age).metadata.name
    return winner
