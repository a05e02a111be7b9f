"""BackendTLSPolicy: how a Service is spoken to over TLS, and what to say of the policy (GEP-1897)."""

from __future__ import annotations

from controller.objects.backends import BackendTLSPolicy, BackendValidation, XBackend, XBackendTLS
from controller.objects.base import OPTION, X_GROUP, Ref
from controller.objects.core import Service
from controller.objects.references import PolicyTarget
from controller.state.view import View, guarded
from controller.translate import certificates
from controller.translate.shared import ancestors, conditions
from controller.translate.shared.conditions import Condition
from controller.translate.shared.status import PolicyStatus
from gateway import snapshot

VERSIONS = ("1.2", "1.3")
MINIMUM = OPTION + "minimum-tls-version"
_REASONS = {"reference": "InvalidCACertificateRef", "kind": "InvalidKind", "grant": "InvalidCACertificateRef"}


def tls(view: View, namespace: str, service: str, port_name: str) -> snapshot.BackendTLS | Condition | None:
    """How a port of a Service is spoken to; the condition that says why it cannot be; None without TLS."""
    policy = _policy_of(view, namespace, service, port_name)
    if policy is None:
        return None
    backend_tls, accepted, _ = view.call(validated, namespace, policy)
    return backend_tls if backend_tls is not None else accepted


def _policy_of(view: View, namespace: str, service: str, port_name: str) -> str | None:
    """The policy in force: one for the port before one for the Service, then the oldest."""
    candidates = []
    for policy, target in _policies(view, namespace, service):
        if target.section_name in ("", port_name):
            candidates.append((not target.section_name, *policy.metadata.age))
    return min(candidates)[-1] if candidates else None


def _policies(view: View, namespace: str, service: str) -> list[tuple[BackendTLSPolicy, PolicyTarget]]:
    result = []
    for ref in view.index("TLS policies of", namespace, "Service", service):
        policy = view.get(BackendTLSPolicy, ref.namespace, ref.name)
        for target in policy.spec.target_refs if policy is not None else ():
            if policy is not None and (target.group, target.kind, target.name) == ("", "Service", service):
                result.append((policy, target))
    return result


@guarded(
    lambda view, error, *_: (None, conditions.policy_invalid(conditions.fault_of_ours(error)), conditions.policy_resolved())
)
def validated(view: View, namespace: str, name: str) -> tuple[snapshot.BackendTLS | None, Condition, Condition]:
    """What a policy asks for, if that can be done; whether it is accepted; whether its references are resolved."""
    policy = view.get(BackendTLSPolicy, namespace, name)
    resolved = conditions.policy_resolved()
    if policy is None:
        return None, conditions.no_valid_authority(()), resolved
    wanted = policy.spec.validation
    fault = policy.fault or _fault(policy)
    if fault:
        return None, conditions.policy_invalid(fault), resolved
    pem, faults = certificates.authorities(view, "BackendTLSPolicy", namespace, wanted.ca_certificate_refs)
    if faults:
        resolved = conditions.policy_unresolved(_REASONS[faults[0].kind], " ".join(fault.message for fault in faults))
    if wanted.well_known_ca_certificates and wanted.well_known_ca_certificates != "System":
        text = f'wellKnownCACertificates: "{wanted.well_known_ca_certificates}" is not known; System is.'
        return None, conditions.policy_invalid(text), resolved
    if not pem and not wanted.well_known_ca_certificates:
        return None, conditions.no_valid_authority([fault.message for fault in faults]), resolved
    return (
        snapshot.BackendTLS(wanted.hostname, pem, _names(wanted), minimum=policy.spec.options.get(MINIMUM, "")),
        conditions.policy_accepted(),
        resolved,
    )


def of_xbackend(view: View, xbackend: XBackend) -> snapshot.BackendTLS | str | None:
    """How an XBackend is spoken to over TLS, or what is wrong with what it says of that; None for one in the clear."""
    asked, namespace = xbackend.spec.tls, xbackend.metadata.namespace
    if asked.mode == "None":
        return _not_to_be(asked)
    if asked.mode not in ("ServerOnly", "ClientAndServer"):
        return f'spec.tls.mode: found "{asked.mode[:60]}"; None, ServerOnly and ClientAndServer are understood.'
    wanted = asked.validation
    fault = _validation_fault("spec.tls.validation", wanted)
    if fault:
        return fault
    pem, faults = certificates.authorities(view, "XBackend", namespace, wanted.ca_certificate_refs)
    if wanted.well_known_ca_certificates not in ("", "System"):
        return f'spec.tls.validation.wellKnownCACertificates: "{wanted.well_known_ca_certificates}" is not known; System is.'
    if faults or not (pem or wanted.well_known_ca_certificates):
        words = " ".join(fault.message for fault in faults) or "there is none, nor wellKnownCACertificates."
        return f"spec.tls.validation.caCertificateRefs: {words}"
    own = None
    if asked.mode == "ServerOnly" and asked.client_certificate_ref is not None:
        return "spec.tls.clientCertificateRef: mode ServerOnly shows none; ClientAndServer does."
    if asked.mode == "ClientAndServer":
        if asked.client_certificate_ref is None:
            return "spec.tls.clientCertificateRef: is missing; mode ClientAndServer needs one."
        shown = certificates.certificate(view, "XBackend", namespace, asked.client_certificate_ref)
        if isinstance(shown, certificates.CertificateFault):
            return f"spec.tls.clientCertificateRef: {shown.message}"
        own = shown
    return snapshot.BackendTLS(wanted.hostname, pem, _names(wanted), own=own)


def _not_to_be(asked: XBackendTLS) -> str | None:
    """What contradicts a mode of None, or one that was left out: whoever says whom to believe did not mean everybody."""
    for field, is_given in (
        ("validation", asked.validation != BackendValidation()),
        ("clientCertificateRef", asked.client_certificate_ref is not None),
    ):
        if is_given:
            return f"spec.tls.mode: is None, or missing, and spec.tls.{field} asks for TLS; ServerOnly or ClientAndServer is."
    return None


def _names(wanted: BackendValidation) -> tuple[snapshot.SubjectName, ...]:
    return tuple(
        snapshot.SubjectName("URI", name.uri) if name.type == "URI" else snapshot.SubjectName("Hostname", name.hostname)
        for name in wanted.subject_alt_names
    )


def _validation_fault(field_path: str, wanted: BackendValidation) -> str:
    if not wanted.hostname:
        return f"{field_path}.hostname: is missing; the name that the backend must prove is needed."
    if not wanted.hostname.isascii() or len(wanted.hostname) > 253:
        return f'{field_path}.hostname: found "{wanted.hostname[:60]}"; a name as DNS has it is needed.'
    for index, name in enumerate(wanted.subject_alt_names):
        if name.type not in ("Hostname", "URI") or not (name.uri if name.type == "URI" else name.hostname):
            return f"{field_path}.subjectAltNames[{index}]: a Hostname or a URI, and its value, are needed."
    return ""


def _fault(policy: BackendTLSPolicy) -> str:
    """What a policy asks for that cannot be held to: a backend must not be believed for less."""
    fault = _validation_fault("spec.validation", policy.spec.validation)
    if fault:
        return fault
    for name, value in policy.spec.options.items():
        if name.startswith(OPTION) and name != MINIMUM:
            return f'spec.options: "{name}" is not known; {MINIMUM} is.'
        if name == MINIMUM and value not in VERSIONS:
            return f'spec.options: {MINIMUM} is "{value[:60]}"; {" and ".join(VERSIONS)} are understood.'
    return ""


def is_asked_for(view: View, namespace: str, service: str, port_name: str) -> str | None:
    """The policy by which a port of a Service is spoken to over TLS only."""
    return _policy_of(view, namespace, service, port_name)


@guarded(lambda *_: None)
def status(view: View, namespace: str, name: str) -> PolicyStatus | None:
    """What to say of a policy, to each Gateway of ours that sends requests to its Services."""
    policy = view.get(BackendTLSPolicy, namespace, name)
    if policy is None:
        return None
    backend_tls, accepted, resolved = view.call(validated, namespace, name)
    own_conditions = [accepted, resolved]
    older = _older(view, policy)
    nowhere = _nowhere(view, policy)
    elsewhere = _elsewhere(policy)
    if elsewhere and len(elsewhere) == len(policy.spec.target_refs):
        own_conditions[0] = conditions.policy_invalid(" ".join(elsewhere))
    elif nowhere:
        own_conditions[0] = conditions.filter_not_valid("TargetNotFound", nowhere)
    elif older:
        own_conditions[0] = conditions.policy_conflicted("BackendTLSPolicy", older)
    elif backend_tls is None:
        own_conditions.append(conditions.failing_closed("nothing is sent to what it is for"))
    if elsewhere and own_conditions[0].is_true:
        own_conditions[0] = conditions.with_fault(own_conditions[0], " ".join(elsewhere))
    targets = [
        Ref(target.kind, namespace, target.name)
        for target in policy.spec.target_refs
        if (target.group, target.kind) in (("", "Service"), (X_GROUP, "XBackend"))
    ]
    told = ancestors.of(view, targets, *own_conditions)
    return PolicyStatus(policy.metadata.generation, told) if told else None


def _elsewhere(policy: BackendTLSPolicy) -> list[str]:
    """The targets that are no Services, in words: nothing is done there. An XBackend must not be one (GEP-4894)."""
    found = []
    for index, target in enumerate(policy.spec.target_refs):
        if (target.group, target.kind) != ("", "Service"):
            own = "; its own spec.tls says how it is spoken to" if target.kind == "XBackend" else ""
            found.append(f'spec.targetRefs[{index}]: {target.kind} "{target.name}" cannot have a BackendTLSPolicy{own}.')
    return found


def _nowhere(view: View, policy: BackendTLSPolicy) -> str:
    """Why a policy is for nothing: no Service has the port that it names."""
    for target in policy.spec.target_refs:
        service = view.get(Service, policy.metadata.namespace, target.name) if target.kind == "Service" else None
        if service is not None and (not target.section_name or any(p.name == target.section_name for p in service.spec.ports)):
            return ""
    named = [
        f'{ref.kind} "{ref.name}" has no port named "{ref.section_name}"' for ref in policy.spec.target_refs if ref.section_name
    ]
    return f"spec.targetRefs: {'; '.join(named)}." if named else ""


def _older(view: View, policy: BackendTLSPolicy) -> str:
    """The policy that stands before this one at every target that it has; empty where it has one for itself."""
    winner = ""
    for target in policy.spec.target_refs:
        same = [
            other
            for other, theirs in _policies(view, policy.metadata.namespace, target.name)
            if theirs.section_name == target.section_name and other.metadata.age < policy.metadata.age
        ]
        if not same:
            return ""
        winner = min(same, key=lambda other: other.metadata.age).metadata.name
    return winner
