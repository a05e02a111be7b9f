"""Listeners of Gateways and ListenerSets: which are valid, which conflict, with which certificates, for which routes."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from sys import intern
from typing import NamedTuple

from controller.objects.base import GATEWAY_GROUP, OPTION, Ref
from controller.objects.conversion import path_of
from controller.objects.filters import SecretKey
from controller.objects.gateways import Gateway, GatewayListener, ListenerSet, RouteKind, RouteNamespaces
from controller.state.view import View
from controller.translate import certificates, filters, python_filters
from controller.translate.backends import resolve
from controller.translate.certificates import CertificateFault
from controller.translate.gateways import client_limits
from controller.translate.policies import attachment
from controller.translate.policies.guarding import listener_filters
from controller.translate.shared import conditions, hostnames, ports
from controller.translate.shared.conditions import Condition
from controller.translate.shared.hostnames import covers
from controller.translate.shared.names import FilterName, Needed
from gateway import snapshot

# The kinds of routes that a protocol can carry.
KINDS = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}
# Protocols that a port can have side by side, told apart by hostname.
_SHARING = {"HTTP": "HTTP", "HTTPS": "TLS", "TLS": "TLS", "TCP": "TCP", "UDP": "UDP"}
_VERSIONS = ("1.2", "1.3")


class ListenerInfo(NamedTuple):
    """What routes and statuses need to know of a listener."""

    owner: Ref  # its Gateway or ListenerSet
    name: str
    key: str  # its name in the snapshot
    port: int
    protocol: str
    hostname: str
    namespaces: RouteNamespaces
    kinds: tuple[RouteKind, ...]
    conditions: tuple[Condition, ...]
    part: snapshot.Listener | None  # None: not usable
    certificates: tuple[snapshot.Certificate, ...]
    filters: tuple[snapshot.Filter, ...] = ()  # for every request, before it is matched
    backends: tuple[Needed, ...] = ()  # that they need
    place: int = 0  # among its owner's

    @property
    def is_valid(self) -> bool:
        """Accepted, with every reference resolved."""
        return self.part is not None

    @property
    def is_accepted(self) -> bool:
        """Accepted, whatever its references lead to."""
        return self.conditions[0].is_true


class _Candidate(NamedTuple):
    owner: Ref
    place: int  # among its owner's
    listener: GatewayListener
    key: str

    def within(self, condition: Condition) -> Condition:
        """A condition with the fields of the owner that it is about, where it has words of what is wrong."""
        if not condition.details and not condition.fault and condition.is_true != (condition.type == "Conflicted"):
            return condition  # good news
        return conditions.within(condition, "spec", "listeners", self.place)


def listeners(view: View, gateway: Gateway, sets: Sequence[ListenerSet]) -> tuple[ListenerInfo, ...]:
    """All listeners of a Gateway, in its order, and then those of its ListenerSets, the oldest first."""
    prefix = f"{gateway.metadata.namespace}/{gateway.metadata.name}"
    own = [_Candidate(gateway.ref, place, one, f"{prefix}/{one.name}") for place, one in enumerate(gateway.spec.listeners)]
    others = [
        _Candidate(one.ref, place, listener, f"ListenerSet/{one.metadata.namespace}/{one.metadata.name}/{listener.name}")
        for one in sets
        for place, listener in enumerate(one.spec.listeners)
    ]
    conflicts = _conflicts(own, others)
    allowed = client_limits.of(gateway).limits
    infos = [_guarded(view, gateway, candidate, conflicts.get(candidate.key), allowed) for candidate in (*own, *others)]
    return tuple(_overlapping(list(_agreed(infos))))


def _guarded(
    view: View, gateway: Gateway, candidate: _Candidate, conflict: list[Condition] | None, allowed: snapshot.Limits
) -> ListenerInfo:
    """A listener, of which a fault of our own takes down no other."""
    owner, place, listener, key = candidate

    def instead(error: Exception) -> ListenerInfo:
        own_conditions = (
            conditions.unsupported_listener_value(conditions.fault_of_ours(error)),
            conditions.listener_resolved(),
        )
        return ListenerInfo(
            owner, listener.name, key, listener.port, listener.protocol, "", RouteNamespaces(), (), own_conditions, None, ()
        )

    made = view.attempt(
        f"{owner}, listener {listener.name}", lambda: _listener(view, gateway, candidate, conflict, allowed), instead
    )
    return made._replace(place=place, conditions=tuple(map(candidate.within, made.conditions)))


def _agreed(infos: list[ListenerInfo]) -> Iterator[ListenerInfo]:
    """OpenSSL settles a connection's cipher suites before it knows the server name: a port has those of its first listener."""
    first: dict[int, ListenerInfo] = {}
    for info in infos:
        if info.part is None or not info.certificates:
            yield info
            continue
        other = first.setdefault(info.port, info)
        if other.part is not None and other.part.ciphers != info.part.ciphers:
            text = (
                f'tls.options: {OPTION}cipher-suites differ from those of listener "{other.name}" at the same port {info.port}.'
            )
            refused = conditions.within(
                conditions.unsupported_listener_value(text), "spec", "listeners", info.place, "tls", "options"
            )
            yield info._replace(conditions=(refused, *info.conditions[1:]), part=None)
        else:
            yield info


def _listener(
    view: View, gateway: Gateway, candidate: _Candidate, conflict: list[Condition] | None, allowed: snapshot.Limits
) -> ListenerInfo:
    owner, _, listener, key = candidate
    kinds, kinds_condition = _kinds(listener)
    own_certificates: tuple[snapshot.Certificate, ...] = ()
    clients: snapshot.Clients | None = None
    own_conditions: list[Condition] = []
    resolved: Condition | None = kinds_condition
    if listener.protocol not in KINDS:
        own_conditions.append(conditions.unsupported_protocol(listener.protocol))
    elif conflict is not None:
        own_conditions += conflict
    else:
        own_conditions += [conditions.listener_accepted(), conditions.no_conflicts()]
    fault = _misuse(listener) or _options_fault(listener)
    if fault and own_conditions[0].is_true:
        own_conditions[0] = conditions.at(conditions.unsupported_listener_value(fault), *path_of(fault.partition(": ")[0]))
    if is_terminated(listener):
        own_certificates, unresolved = _certificates(view, owner, listener)
        resolved = resolved or unresolved
        clients, refusal, unresolved = _clients(view, gateway, listener.port)
        resolved = resolved or unresolved
        if clients is None and refusal is None:
            clients, refusal = _clients_by_policy(view, gateway, owner, listener)
        if refusal is not None and own_conditions[0].is_true:
            own_conditions[0] = refusal
    elif ports.validation(gateway, listener.port) is not None and own_conditions[0].is_true:
        text = f"The Gateway's spec.tls.frontend is for listeners that terminate TLS; this one is {ports.spoken(listener)}."
        own_conditions[0] = conditions.with_warning(own_conditions[0], text)
    specs, needed, unfiltered = _filters(view, owner, listener)
    if unfiltered is not None:
        if unfiltered.type == "Accepted" and own_conditions[0].is_true:
            own_conditions[0] = unfiltered
        elif unfiltered.type == "ResolvedRefs":
            resolved = resolved or unfiltered
    late = certificates.time_faults(own_certificates) if resolved is None else ""
    all_found = conditions.listener_resolved()
    if late:
        all_found = conditions.at(conditions.with_fault(all_found, late), "tls", "certificateRefs")
    own_conditions.append(resolved or all_found)
    met, guarding = _own_filters(view, gateway, listener)
    needed += (*met, *guarding)
    if listener.protocol == "UDP":  # there is no connection to meet: they meet a flow, where it is passed on
        met, guarding = (), (*met, *guarding)
    specs = (*(snapshot.Scripted(str(name)) for name in guarding), *specs)
    part = None
    # A listener that allows an unknown kind beside a known one serves the known one; one of several CAs may be missing.
    has_certificate = bool(own_certificates) or listener.protocol not in ("HTTPS", "TLS") or ports.is_passthrough(listener)
    if own_conditions[0].is_true and kinds and has_certificate:
        part = snapshot.Listener(
            key,
            listener.port,
            intern(listener.protocol),  # type: ignore[arg-type]  # one of KINDS; interned, as defaults are told by identity
            listener.hostname.lower(),
            tuple(certificate.name for certificate in own_certificates),
            allowed,
            passthrough=ports.is_passthrough(listener),
            clients=clients,
            minimum=_option(listener, "minimum-tls-version"),
            ciphers=_option(listener, "cipher-suites"),
            filters=tuple(snapshot.Scripted(str(name)) for name in met),
        )
    return ListenerInfo(
        owner, listener.name, key, listener.port, listener.protocol, listener.hostname.lower(),
        listener.allowed_routes.namespaces, kinds, tuple(own_conditions), part, own_certificates, specs, needed,
    )  # fmt: skip


def _own_filters(
    view: View, gateway: Gateway, listener: GatewayListener
) -> tuple[tuple[FilterName, ...], tuple[FilterName, ...]]:
    """ListenerFilters that meet its connections, and those that come before every route's filters."""
    place = gateway.metadata.namespace, gateway.metadata.name, listener.port
    return listener_filters(view, *place, "Listener"), listener_filters(view, *place, "Route")


def _filters(
    view: View, owner: Ref, listener: GatewayListener
) -> tuple[tuple[snapshot.Filter, ...], tuple[Needed, ...], Condition | None]:
    """What every request passes before it is matched; the backends for that; what is wrong with it."""
    if listener.filters is None or listener.protocol not in ("HTTP", "HTTPS"):
        return (), (), None
    for index, each in enumerate(listener.filters.requests):
        if each.type != "ExternalAuth":
            text = f'filters.requests[{index}].type: "{each.type}" is not supported on listeners; ExternalAuth is.'
            return (), (), conditions.unsupported_listener_value(text)
    specs, led_to, needed = filters.translate(
        listener.filters.requests,
        lambda ref, *, grpc=False: resolve(view, owner.kind, owner.namespace, ref, grpc=grpc),
        lambda ref: python_filters.resolve(view, owner.namespace, ref),
    )
    needed += [each.refused for each in led_to if each.refused is not None]
    fault = next((each.fault for each in led_to if each.fault is not None), None)
    return specs, tuple(needed), conditions.listener_unresolved(fault.reason, fault.message) if fault else None


def is_terminated(listener: GatewayListener) -> bool:
    """Whether TLS ends at a listener."""
    return listener.protocol == "HTTPS" or (listener.protocol == "TLS" and not ports.is_passthrough(listener))


def _misuse(listener: GatewayListener) -> str:
    """What a listener asks for that its protocol cannot give. The API's own rules forbid most of it, and objects may be older
    than those: what would protect must not be passed over in silence."""
    if not 1 <= listener.port <= 65535:
        return f"port: found {listener.port}; 1 to 65535 is needed."
    if listener.tls is not None and listener.protocol in ("HTTP", "TCP", "UDP"):
        return f"tls: a listener with protocol {listener.protocol} is in the clear; use HTTPS or TLS, or leave tls away."
    if listener.tls is not None and listener.protocol == "HTTPS" and listener.tls.mode != ports.TERMINATE:
        return f'tls.mode: found "{listener.tls.mode}"; with protocol HTTPS it is Terminate.'
    if (
        listener.tls is not None
        and listener.protocol == "TLS"
        and listener.tls.mode not in (ports.TERMINATE, ports.PASSTHROUGH)
    ):
        return f'tls.mode: found "{listener.tls.mode}"; Terminate and Passthrough are understood.'
    if listener.hostname and listener.protocol in ("TCP", "UDP"):
        return f"hostname: with protocol {listener.protocol} there are no names to tell connections by; leave it away."
    if listener.filters is not None and listener.filters.requests and listener.protocol not in ("HTTP", "HTTPS"):
        return f"filters.requests: a listener with protocol {listener.protocol} has no requests; HTTP and HTTPS have."
    return ""


@lru_cache(maxsize=64)
def _are_ciphers(text: str) -> bool:
    """Whether OpenSSL knows some of these cipher suites."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(text)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _option(listener: GatewayListener, name: str) -> str:
    return listener.tls.options.get(OPTION + name, "") if listener.tls is not None else ""


def _options_fault(listener: GatewayListener) -> str:
    for name in listener.tls.options if listener.tls is not None else ():
        if name.startswith(OPTION) and name.removeprefix(OPTION) not in ("minimum-tls-version", "cipher-suites"):
            return f'tls.options: "{name}" is not known; {OPTION}minimum-tls-version and {OPTION}cipher-suites are.'
    minimum = _option(listener, "minimum-tls-version")
    if minimum and minimum not in _VERSIONS:
        return f'tls.options: {OPTION}minimum-tls-version is "{minimum}"; {" and ".join(_VERSIONS)} are understood.'
    ciphers = _option(listener, "cipher-suites")
    if ciphers and not _are_ciphers(ciphers):
        return f'tls.options: {OPTION}cipher-suites: OpenSSL knows none of "{ciphers}".'
    if (minimum or ciphers) and not is_terminated(listener):
        return (
            f"tls.options: TLS does not end at this listener ({ports.spoken(listener)}), so that they cannot be held to here."
        )
    return ""


# --- conflicts --------------------------------------------------------------------------------------------


def _conflicts(own: list[_Candidate], others: list[_Candidate]) -> dict[str, list[Condition]]:
    """Within one Gateway a conflict has no winner (Gateway.spec.listeners); a ListenerSet's loses to what came first."""
    conflicts: dict[str, list[Condition]] = {}
    usable = [candidate for candidate in own if candidate.listener.protocol in KINDS]
    for candidate in usable:
        for other in usable:
            if other is not candidate:
                conflict = _conflict(candidate, other)
                if conflict and (candidate.key not in conflicts or conflict[0].reason == "ProtocolConflict"):
                    conflicts[candidate.key] = conflict
    standing = [candidate for candidate in usable if candidate.key not in conflicts]
    for candidate in others:
        if candidate.listener.protocol not in KINDS:
            continue
        lost = [conflict for other in standing if (conflict := _conflict(candidate, other))]
        if lost:
            conflicts[candidate.key] = next((c for c in lost if c[0].reason == "ProtocolConflict"), lost[0])
        else:
            standing.append(candidate)
    return conflicts


def _conflict(candidate: _Candidate, against: _Candidate) -> list[Condition] | None:
    listener, other = candidate.listener, against.listener
    if listener.port != other.port or ("UDP" in (listener.protocol, other.protocol) and listener.protocol != other.protocol):
        return None
    named = f'listener "{other.name}"'
    if against.owner != candidate.owner:
        named += f" of {against.owner}"
    if _SHARING[listener.protocol] != _SHARING[other.protocol]:
        message = f"Port {listener.port} is {listener.protocol} here and {other.protocol} in {named}."
        return conditions.listener_conflict("ProtocolConflict", message, "port")
    if listener.protocol in ("TCP", "UDP"):
        message = f"Port {listener.port} is taken by {named}; there can be one {listener.protocol} listener on a port."
        return conditions.listener_conflict("HostnameConflict", message, "port")
    if listener.hostname.lower() == other.hostname.lower():
        message = f'{named[:1].upper()}{named[1:]} has the same port {listener.port} and hostname "{listener.hostname or "*"}".'
        return conditions.listener_conflict("HostnameConflict", message, "hostname" if listener.hostname else "port")
    return None


def _overlapping(infos: list[ListenerInfo]) -> list[ListenerInfo]:
    """HTTP/2 clients reuse a connection for every name that its certificate is for: say where that leads astray
    (OverlappingTLSConfig, GEP-3567)."""
    result = []
    for info in infos:
        condition = None
        rivals = [o for o in infos if o is not info and o.port == info.port and o.protocol == "HTTPS" and o.is_accepted]
        if info.protocol == "HTTPS" and info.is_accepted:
            by_name = [o.name for o in rivals if hostnames.overlap(info.hostname, o.hostname)]
            by_certificate = [o.name for o in rivals if _covered(info, o) or _covered(o, info)]
            if by_name:
                condition = conditions.overlapping("OverlappingHostnames", by_name)
            elif by_certificate:
                condition = conditions.overlapping("OverlappingCertificates", by_certificate)
        result.append(info._replace(conditions=(*info.conditions, condition)) if condition else info)
    return result


def _covered(listener: ListenerInfo, other: ListenerInfo) -> bool:
    """Whether a certificate of one listener is good for the other's hostname."""
    return any(
        name == other.hostname or covers(name, other.hostname) or covers(other.hostname, name)
        for certificate in listener.certificates
        for name in certificate.names
    )


# --- references -------------------------------------------------------------------------------------------


def _kinds(listener: GatewayListener) -> tuple[tuple[RouteKind, ...], Condition | None]:
    known = tuple(RouteKind(kind) for kind in KINDS.get(listener.protocol, ()))
    wanted = listener.allowed_routes.kinds
    if not wanted or not known:
        return known, None
    valid = tuple(dict.fromkeys(kind for kind in wanted if kind in known))
    if len(valid) == len(set(wanted)):
        return valid, None
    bad = ", ".join(f"{k.group}/{k.kind}" for k in wanted if k not in known)
    can = " and ".join(kind.kind for kind in known)
    message = f"allowedRoutes.kinds: {bad} cannot be served by a listener with protocol {listener.protocol}; {can} can."
    return valid, conditions.at(conditions.listener_unresolved("InvalidRouteKinds", message), "allowedRoutes", "kinds")


def _certificates(
    view: View, owner: Ref, listener: GatewayListener
) -> tuple[tuple[snapshot.Certificate, ...], Condition | None]:
    refs = listener.tls.certificate_refs if listener.tls else ()
    if not refs:
        said = conditions.listener_unresolved("InvalidCertificateRef", "tls.certificateRefs names no certificate.")
        return (), conditions.at(said, "tls")
    own_certificates: list[snapshot.Certificate] = []
    for index, ref in enumerate(refs):
        certificate = certificates.certificate(view, owner.kind, owner.namespace, ref)
        if isinstance(certificate, CertificateFault):
            reason = "RefNotPermitted" if certificate.kind == "grant" else "InvalidCertificateRef"
            said = conditions.listener_unresolved(reason, certificate.message)
            return (), conditions.at(said, "tls", "certificateRefs", index)
        own_certificates.append(certificate)
    return tuple(own_certificates), None


_CA_REASONS = {"reference": "InvalidCACertificateRef", "kind": "InvalidCACertificateKind", "grant": "RefNotPermitted"}


def _clients(view: View, gateway: Gateway, port: int) -> tuple[snapshot.Clients | None, Condition | None, Condition | None]:
    """How clients prove who they are; why the listener is not accepted; what is wrong with the references."""
    asked = ports.validation(gateway, port)
    if asked is None:
        return None, None, None
    namespace = gateway.metadata.namespace
    pem, faults = certificates.authorities(view, "Gateway", namespace, asked.ca_certificate_refs)
    unresolved = _unresolved_authorities(faults)
    if not pem:
        return None, conditions.no_valid_authority([fault.message for fault in faults]), unresolved
    return snapshot.Clients(pem, asked.mode == "AllowInsecureFallback"), None, unresolved


def _clients_by_policy(
    view: View, gateway: Gateway, owner: Ref, listener: GatewayListener
) -> tuple[snapshot.Clients | None, Condition | None]:
    """The same where a GatewayTLSPolicy asks for it, and the Gateway's own spec does not."""
    asked = attachment.asks_for_certificates(view, gateway.ref, listener.port)
    if isinstance(asked, str):
        return None, conditions.no_valid_authority([asked])
    clients = _clients_of_own(view, owner, listener) if asked else None
    if asked and clients is None:
        missing = "a GatewayTLSPolicy asks for mTLS: the certificate's Secret has no ca.crt with certificates in PEM."
        return None, conditions.no_valid_authority([missing])
    return clients, None


def _clients_of_own(view: View, owner: Ref, listener: GatewayListener) -> snapshot.Clients | None:
    """Clients with certificates of the authority that stands beside the listener's own certificate."""
    for ref in listener.tls.certificate_refs if listener.tls is not None else ():
        namespace = ref.namespace or owner.namespace
        pem = python_filters.secret(view, namespace, SecretKey(ref.name, "ca.crt"))
        if pem and not isinstance(certificates.checked(pem, f'Secret "{namespace}/{ref.name}"'), CertificateFault):
            return snapshot.Clients(pem)
    return None


def _unresolved_authorities(faults: Iterable[CertificateFault]) -> Condition | None:
    listed = list(faults)
    if not listed:
        return None
    return conditions.listener_unresolved(_CA_REASONS[listed[0].kind], " ".join(fault.message for fault in listed))


def route_kind_allowed(listener: ListenerInfo, kind: str) -> bool:
    """Whether a listener takes routes of a kind."""
    return RouteKind(kind, GATEWAY_GROUP) in listener.kinds
