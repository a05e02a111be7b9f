"""Every condition that we write, as a named constructor: its type, reason and words in one place.

Types and reasons are the Gateway API's (apis/v1/shared_types.go, gateway_types.go, gatewayclass_types.go). The
words name the object and say what would fix it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from controller.objects.base import Ref
from controller.objects.conversion import path_of
from controller.objects.core import Service
from controller.objects.documents import Path
from controller.objects.kinds import KINDS
from controller.objects.references import ParentRef
from controller.objects.routes import BackendRef


class Detail(NamedTuple):
    """One thing that is wrong: with which field of the object, and in words."""

    path: Path
    message: str


class Condition(msgspec.Struct, frozen=True):
    """A condition before it is stamped with a generation and a time."""

    type: str
    status: str
    reason: str
    message: str
    fault: str = ""  # what is wrong though the condition is good, for who looks at files; part of the message as well
    details: tuple[Detail, ...] = ()  # the message in pieces, each with its field, for who looks at files

    @property
    def is_true(self) -> bool:
        """Whether it holds."""
        return self.status == "True"


def _true(type_: str, reason: str, message: str) -> Condition:
    return Condition(type_, "True", reason, message)


def _false(type_: str, reason: str, message: str) -> Condition:
    return Condition(type_, "False", reason, message)


def at(condition: Condition, *path: str | int) -> Condition:
    """The same, which is about this field."""
    return msgspec.structs.replace(condition, details=(Detail(path, condition.fault or condition.message),))


def within(condition: Condition, *prefix: str | int) -> Condition:
    """The same, where the fields that it is about stand below this one."""
    details = condition.details or (Detail((), condition.fault or condition.message),)
    return msgspec.structs.replace(condition, details=tuple(Detail((*prefix, *one.path), one.message) for one in details))


def written(faults: Iterable[str]) -> tuple[Detail, ...]:
    """Details of faults that begin with their field, as `rules[0].matches[0].path.value: words`."""
    made = []
    for fault in faults:
        field, colon, words = fault.partition(": ")
        made.append(Detail(("spec", *path_of(field)), words) if colon else Detail(("spec",), fault))
    return tuple(made)


# --- GatewayClass ---


def class_accepted(name: str) -> Condition:
    """Accepted."""
    return _true("Accepted", "Accepted", f'GatewayClass "{name}" is accepted.')


def class_parameters(message: str) -> Condition:
    """Accepted: parametersRef."""
    return _false("Accepted", "InvalidParameters", message)


def supported_version(version: str) -> Condition:
    """SupportedVersion."""
    return _true("SupportedVersion", "SupportedVersion", f"Gateway API {version} is supported.")


def unsupported_version(installed: str, supported: str) -> Condition:
    """SupportedVersion: other CRDs are installed."""
    return _false(
        "SupportedVersion",
        "UnsupportedVersion",
        f"The CRDs are of Gateway API {installed}; this controller is made for {supported}.",
    )


# --- Gateway ---


def gateway_accepted() -> Condition:
    """Accepted."""
    return _true("Accepted", "Accepted", "Gateway is accepted.")


def some_listeners_not_valid(names: Iterable[str], *, all_of_them: bool) -> Condition:
    """Accepted: listeners are not valid."""
    listed = ", ".join(names)
    if all_of_them:
        return _false("Accepted", "ListenersNotValid", f"No listener is valid ({listed}); see their conditions.")
    return _true("Accepted", "ListenersNotValid", f"Listeners {listed} are not valid; see their conditions.")


def with_warning(condition: Condition, message: str) -> Condition:
    """The same, with words about something that did not keep it from being so."""
    return msgspec.structs.replace(condition, message=f"{condition.message} {message}")


def with_fault(condition: Condition, message: str) -> Condition:
    """The same, with words about something that is wrong and has no effect, and did not keep it from being so."""
    return msgspec.structs.replace(with_warning(condition, message), fault=message, details=())


def gateway_parameters(message: str) -> Condition:
    """Accepted: infrastructure.parametersRef."""
    return _false("Accepted", "InvalidParameters", message)


def gateway_namesake(namespace: str, older: str, name: str) -> Condition:
    """Accepted: metadata.name."""
    text = f'Gateway "{namespace}/{older}" is older, and what runs for it is called "{name}" as well; another name is needed.'
    return _false("Accepted", "Invalid", text)


def unsupported_address(message: str) -> Condition:
    """Accepted: spec.addresses."""
    return _false("Accepted", "UnsupportedAddress", f"spec.addresses: {message}")


def unsupported_scope(found: str) -> Condition:
    """Accepted: spec.defaultScope."""
    return _false("Accepted", "Invalid", unknown_scope("spec.defaultScope", found))


def default_gateway(scope: str) -> Condition:
    """DefaultGateway (GEP-3793); absent where the Gateway takes only routes that name it."""
    return _true("DefaultGateway", "DefaultGateway", f"Gateway has default scope {scope}.")


def programmed(message: str) -> Condition:
    """Programmed."""
    return _true("Programmed", "Programmed", message)


def not_programmed(reason: str, message: str) -> Condition:
    """Programmed: not yet, or not at all (Pending, AddressNotAssigned, Invalid)."""
    return _false("Programmed", reason, message)


def address_not_usable(wanted: Iterable[str], got: Iterable[str]) -> Condition:
    """Programmed: spec.addresses."""
    given = ", ".join(got) or "none"
    return _false(
        "Programmed",
        "AddressNotUsable",
        f"spec.addresses asks for {', '.join(wanted)}; the Gateway's Service has been given {given}.",
    )


def client_certificate(reason: str, message: str) -> Condition:
    """ResolvedRefs: tls.backend.clientCertificateRef."""
    return Condition("ResolvedRefs", "True" if reason == "ResolvedRefs" else "False", reason, message)


def insecure_validation(ports: Iterable[int]) -> Condition:
    """InsecureFrontendValidationMode; absent where every client must prove who it is."""
    listed = ", ".join(map(str, ports))
    return _true(
        "InsecureFrontendValidationMode",
        "ConfigurationChanged",
        f"Clients without a valid certificate are accepted (AllowInsecureFallback) on port {listed}.",
    )


# --- ListenerSets ---


def listener_set_not_allowed(namespace: str, gateway_namespace: str, gateway: str) -> tuple[Condition, Condition]:
    """Accepted and Programmed: allowedListeners."""
    message = (
        f'Gateway "{gateway_namespace}/{gateway}" allows no ListenerSet from namespace {namespace}; see its '
        "spec.allowedListeners."
    )
    return _false("Accepted", "NotAllowed", message), _false("Programmed", "NotAllowed", message)


def listener_set_refused(gateway_namespace: str, gateway: str) -> tuple[Condition, Condition]:
    """Accepted and Programmed: the Gateway itself is not accepted."""
    message = f'Gateway "{gateway_namespace}/{gateway}" is not accepted; see its conditions.'
    return _false("Accepted", "ParentNotAccepted", message), _false("Programmed", "ParentNotAccepted", message)


def listener_set(bad: list[str], count: int, programmed: Condition) -> tuple[Condition, Condition]:
    """Accepted and Programmed of a ListenerSet that its Gateway takes."""
    if bad and len(bad) == count:
        message = f"No listener is valid ({', '.join(bad)}); see their conditions."
        return _false("Accepted", "ListenersNotValid", message), _false("Programmed", "ListenersNotValid", message)
    accepted = _true("Accepted", "Accepted", "ListenerSet is accepted.")
    if bad:
        accepted = _true("Accepted", "ListenersNotValid", f"Listeners {', '.join(bad)} are not valid; see their conditions.")
    if programmed.is_true:
        return accepted, _true("Programmed", "Programmed", programmed.message)
    return accepted, _false("Programmed", "ParentNotProgrammed", programmed.message)


# --- listeners ---


def listener_accepted() -> Condition:
    """Accepted."""
    return _true("Accepted", "Accepted", "Listener is accepted.")


def unsupported_protocol(protocol: str) -> Condition:
    """Accepted: protocol."""
    return _false(
        "Accepted", "UnsupportedProtocol", f'Protocol "{protocol}" is not supported; HTTP, HTTPS, TLS, TCP and UDP are.'
    )


def listener_conflict(reason: str, message: str, field: str) -> list[Condition]:
    """Conflicted, and therefore not accepted."""
    return [at(_false("Accepted", reason, message), field), at(_true("Conflicted", reason, message), field)]


def unsupported_listener_value(message: str) -> Condition:
    """Accepted: something in the listener is not supported."""
    return _false("Accepted", "UnsupportedValue", message)


def no_valid_authority(messages: Iterable[str]) -> Condition:
    """Accepted: clients or a backend cannot prove who they are."""
    return _false("Accepted", "NoValidCACertificate", " ".join(messages) or "No certificate authority is named.")


def overlapping(reason: str, names: Iterable[str]) -> Condition:
    """OverlappingTLSConfig; absent where there is no overlap."""
    listed = ", ".join(names)
    what = "hostname" if reason == "OverlappingHostnames" else "certificate"
    return _true(
        "OverlappingTLSConfig",
        reason,
        f"The {what} overlaps with that of {listed}; requests for another listener's hosts are answered with 421.",
    )


def no_conflicts() -> Condition:
    """Conflicted: no."""
    return _false("Conflicted", "NoConflicts", "No conflict with another listener.")


def port_unavailable(message: str) -> Condition:
    """Accepted: the data plane cannot listen there."""
    return _false("Accepted", "PortUnavailable", message)


def listener_resolved() -> Condition:
    """ResolvedRefs."""
    return _true("ResolvedRefs", "ResolvedRefs", "All references are resolved.")


def listener_unresolved(reason: str, message: str) -> Condition:
    """ResolvedRefs: a certificate, or a kind of route."""
    return _false("ResolvedRefs", reason, message)


# --- routes ---


def route_accepted(*, by_default: bool = False) -> Condition:
    """Accepted; or by a Gateway that the route does not name (GEP-3793)."""
    return _true("Accepted", "Accepted", "Route is bound to default Gateway." if by_default else "Route is accepted.")


def no_matching_parent(parent: ParentRef, listeners: Iterable[str]) -> Condition:
    """Accepted: no listener has this name or port."""
    wanted = [f'sectionName "{parent.section_name}"'] if parent.section_name else []
    wanted += [f"port {parent.port}"] if parent.port is not None else []
    which = f"listener with {' and '.join(wanted)}" if wanted else "listener of its own"
    text = f'{parent.kind or "Gateway"} "{parent.name}" has no {which}; it has {", ".join(listeners) or "none"}.'
    return _false("Accepted", "NoMatchingParent", text)


def parent_not_accepted(parent: Ref) -> Condition:
    """Accepted: the ListenerSet is not accepted by its Gateway."""
    return _false("Accepted", "NoMatchingParent", f"{parent} is not accepted by its Gateway; see its conditions.")


def not_allowed(namespace: str, kind: str) -> Condition:
    """Accepted: allowedRoutes."""
    return _false(
        "Accepted",
        "NotAllowedByListeners",
        f"No listener allows {kind}s from namespace {namespace}; see allowedRoutes of the Gateway's listeners.",
    )


def no_hostname(hostnames: Iterable[str], listeners: Iterable[str]) -> Condition:
    """Accepted: hostnames do not intersect."""
    return _false(
        "Accepted",
        "NoMatchingListenerHostname",
        f"None of the route's hostnames ({', '.join(hostnames)}) lies within a listener's ({', '.join(listeners)}).",
    )


def unsupported_value(message: str) -> Condition:
    """Accepted: something in the route is not supported."""
    return _false("Accepted", "UnsupportedValue", message)


def route_resolved() -> Condition:
    """ResolvedRefs."""
    return _true("ResolvedRefs", "ResolvedRefs", "All references are resolved.")


def unresolved(reason: str, message: str) -> Condition:
    """ResolvedRefs: RefNotPermitted, InvalidKind, BackendNotFound or UnsupportedProtocol."""
    return _false("ResolvedRefs", reason, message)


# --- BackendTLSPolicy and XTelemetryPolicy ---


def policy_accepted() -> Condition:
    """Accepted."""
    return _true("Accepted", "Accepted", "Policy is accepted.")


def policy_invalid(message: str) -> Condition:
    """Accepted: it asks for something that is not supported."""
    return _false("Accepted", "Invalid", message)


def policy_conflicted(kind: str, first: str) -> Condition:
    """Accepted: another policy has the same target."""
    text = f'{kind} "{first}" has the same target and comes before it (the oldest does, then the first by name).'
    return _false("Accepted", "Conflicted", text)


def policy_resolved() -> Condition:
    """ResolvedRefs."""
    return _true("ResolvedRefs", "ResolvedRefs", "All references are resolved.")


def policy_unresolved(reason: str, message: str) -> Condition:
    """ResolvedRefs: caCertificateRefs."""
    return _false("ResolvedRefs", reason, message)


# --- XBackend ---


def backend_accepted() -> Condition:
    """Accepted."""
    return _true("Accepted", "Accepted", "XBackend is accepted.")


def backend_invalid(message: str) -> Condition:
    """Accepted: it asks for something that cannot be done."""
    return _false("Accepted", "Invalid", message)


# --- filters of our own ---


def filter_accepted() -> Condition:
    """Accepted."""
    return _true("Accepted", "Accepted", "Filter is accepted.")


def filter_not_valid(reason: str, message: str) -> Condition:
    """Accepted: its source, its configuration or a reference."""
    return _false("Accepted", reason, message)


# --- what cannot be done, but protects ---


def failing_closed(message: str) -> Condition:
    """FailingClosed; absent where what protects does so, or has no say. It is not accepted, and yet has an effect: this one."""
    return _true("FailingClosed", "Invalid", f"Until it is valid, {message}.")


def fault_of_ours(error: Exception) -> str:
    """Words for what our own code raised."""
    return f"the controller fails at it ({type(error).__name__}: {str(error)[:200]}); please report this."


# --- words that conditions, `fsm validate` and `fsm explain` share ---


def unknown_scope(field: str, found: str) -> str:
    """A scope of default Gateways that is none."""
    return f'{field}: found "{found}"; All and None are known.'


def service_not_found(namespace: str, name: str) -> str:
    """No such Service."""
    return f'Service "{namespace}/{name}" does not exist.'


def port_missing(namespace: str, name: str) -> str:
    """A Service reference without a port."""
    return f'backendRef "{name}" has no port; a reference to a Service must name one (Service {namespace}/{name}).'


def port_not_found(service: Service, ref: BackendRef, transport: str) -> str:
    """The Service has other ports; a number that looks like a weight may be one."""
    ports = ", ".join(f"{p.port} ({p.name})" if p.name else str(p.port) for p in service.spec.ports)
    service_name = f"{service.metadata.namespace}/{service.metadata.name}"
    other = next((p.protocol or "TCP" for p in service.spec.ports if p.port == ref.port), "")
    if other:
        return f'Service "{service_name}" has port {ref.port} for {other}; this route needs one for {transport}.'
    text = f'Service "{service_name}" has no port {ref.port}; it has {ports or "no ports"}.'
    if ref.weight == 1 and ref.port is not None and ref.port <= 100:
        text += f' If a share of the traffic was meant, write "weight: {ref.port}" and one of the ports above.'
    return text


def no_slices(label: str, value: str, port: int) -> str:
    """An XBackend whose pods nobody looks for, as there is no cluster."""
    return (
        "spec.endpointSelector: no endpoint is known; where there is no cluster to find pods, an EndpointSlice with the label "
        f"{label}: {value}, their addresses and port {port} says where they are."
    )


def not_permitted(kind: str, namespace: str, name: str, from_kind: str, from_namespace: str) -> str:
    """A reference to another namespace that no ReferenceGrant allows."""
    return (
        f'{kind} "{namespace}/{name}" may not be referenced from namespace {from_namespace}: a ReferenceGrant in '
        f"namespace {namespace} from {KINDS[from_kind].group} {from_kind} in {from_namespace} to {kind} would allow it."
    )


def invalid_kind(group: str, kind: str) -> str:
    """A reference to a kind that is no backend."""
    return f'"{group + "/" if group else ""}{kind}" is no kind of backend; Service and XBackend are.'
