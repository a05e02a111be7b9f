"""References to backends → names of snapshot backends or faults; Services and slices → endpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from controller.objects.backends import XBackend
from controller.objects.core import EndpointSlice, Service, ServicePort
from controller.objects.routes import BackendRef
from controller.state.view import View, guarded
from controller.translate.policies import backend_tls, services
from controller.translate.shared import conditions, reference_grants
from controller.translate.shared.addresses import leads_home
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import BackendName, Protocol
from gateway import snapshot

HASH_LABEL = "rollouts-pod-template-hash"  # the label by which Argo Rollouts tells versions apart
# What `appProtocol` may say of a backend to which HTTP is spoken, and how (GEP-1911).
APP_PROTOCOLS: dict[str, Protocol] = {
    "": "http", "http": "http", "https": "http", "kubernetes.io/http": "http", "kubernetes.io/https": "http",
    "ws": "http", "kubernetes.io/ws": "http", "wss": "http", "kubernetes.io/wss": "http",
    "kubernetes.io/h2c": "h2c", "h2c": "h2c", "http2": "h2c", "grpc": "h2c",
}  # fmt: skip
# How routes of a kind speak to backends, whatever those say; "" where appProtocol decides.
SPOKEN: dict[str, Protocol | Literal[""]] = {
    "HTTPRoute": "", "GRPCRoute": "h2c", "TLSRoute": "tcp", "TCPRoute": "tcp", "UDPRoute": "udp",
    "Gateway": "", "ListenerSet": "",
}  # fmt: skip


XBACKEND_PROTOCOLS: dict[str, Protocol] = {
    "": "http", "HTTP": "http", "HTTP11": "http", "WSS": "http", "HTTP2": "h2c", "H2C": "h2c", "GRPC": "h2c", "TCP": "tcp",
}  # fmt: skip


class Resolved(NamedTuple):
    """A backend, or the condition that says why there is none."""

    backend: BackendName | None
    fault: Condition | None = None


def resolve(view: View, kind: str, namespace: str, ref: BackendRef) -> Resolved:
    """What a reference from a route of this kind in this namespace leads to."""
    to = ref.namespace or namespace
    if (ref.group, ref.kind) == ("gateway.networking.x-k8s.io", "XBackend"):
        return _resolve_xbackend(view, kind, namespace, ref)
    if (ref.group, ref.kind) != ("", "Service"):
        return _fault("InvalidKind", conditions.invalid_kind(ref.group, ref.kind))
    if not reference_grants.permitted(view, kind, namespace, "", "Service", to, ref.name):
        return _fault("RefNotPermitted", conditions.not_permitted("Service", to, ref.name, kind, namespace))
    service = view.get(Service, to, ref.name)
    if service is None:
        return _fault("BackendNotFound", conditions.service_not_found(to, ref.name))
    if ref.port is None:
        return _fault("BackendNotFound", conditions.port_missing(to, ref.name))
    if not 1 <= ref.port <= 65535:
        return _fault("BackendNotFound", conditions.port_not_found(service, ref, transport(SPOKEN[kind])))
    spoken = SPOKEN[kind]
    port = _port(service, ref.port, spoken)
    if service.spec.type == "ExternalName":
        if leads_home(view, service.spec.external_name):
            return _fault("BackendNotFound", f'Service "{to}/{ref.name}" points to the data plane itself.')
    elif port is None:
        return _fault("BackendNotFound", conditions.port_not_found(service, ref, transport(spoken)))
    if port is not None and not spoken and port.app_protocol.lower() not in APP_PROTOCOLS:
        return _fault(
            "UnsupportedProtocol",
            f'Service "{to}/{ref.name}" port {ref.port}: appProtocol "{port.app_protocol}" is not supported; '
            "kubernetes.io/h2c, kubernetes.io/ws and those of HTTP are.",
        )
    if spoken == "udp" and (asks := _asks_for_tls(view, to, ref.name, ref.port, port.name if port else "")):
        text = f'Service "{to}/{ref.name}" is spoken to over TLS only, by {asks}; datagrams cannot be.'
        return _fault("UnsupportedProtocol", text)
    return Resolved(BackendName("Service", to, ref.name, ref.port, spoken))


def _asks_for_tls(view: View, namespace: str, service: str, number: int, port_name: str) -> str:
    """Which policy wants a port to be spoken to over TLS only."""
    policy = backend_tls.is_asked_for(view, namespace, service, port_name)
    if policy is not None:
        return f'BackendTLSPolicy "{policy}"'
    return "an UpstreamTLSPolicy" if services.upstream_tls(view, namespace, service, number) is not None else ""


def _resolve_xbackend(view: View, kind: str, namespace: str, ref: BackendRef) -> Resolved:
    to = ref.namespace or namespace
    if not reference_grants.permitted(view, kind, namespace, ref.group, "XBackend", to, ref.name):
        return _fault("RefNotPermitted", conditions.not_permitted("XBackend", to, ref.name, kind, namespace))
    found = view.get(XBackend, to, ref.name)
    if found is None:
        return _fault("BackendNotFound", f'XBackend "{to}/{ref.name}" does not exist.')
    if leads_home(view, found.spec.external_hostname.hostname):
        return _fault("BackendNotFound", f'XBackend "{to}/{ref.name}" points to the data plane itself.')
    if found.spec.type != "ExternalHostname":
        return _fault("UnsupportedProtocol", f'XBackend "{to}/{ref.name}": type ExternalHostname is supported.')
    secured = backend_tls.of_xbackend(view, found)
    if isinstance(secured, str):
        return _fault("UnsupportedProtocol", f'XBackend "{to}/{ref.name}": {secured}')
    if found.spec.protocol not in XBACKEND_PROTOCOLS or SPOKEN[kind] == "udp":
        listed = ", ".join(name for name in XBACKEND_PROTOCOLS if name)
        return _fault("UnsupportedProtocol", f'XBackend "{to}/{ref.name}": the protocols {listed} are supported.')
    return Resolved(BackendName("XBackend", to, ref.name, 0, SPOKEN[kind]))


def _fault(reason: str, message: str) -> Resolved:
    return Resolved(None, conditions.unresolved(reason, message))


def _port(service: Service, number: int, spoken: str) -> ServicePort | None:
    wanted = transport(spoken)
    return next((p for p in service.spec.ports if p.port == number and (p.protocol or "TCP") == wanted), None)


def transport(spoken: str) -> str:
    """What a Service's port must be for."""
    return "UDP" if spoken == "udp" else "TCP"


def _nobody(
    view: View, error: Exception, kind: str, namespace: str, name: str, number: int, spoken: Protocol | Literal[""] = ""
) -> snapshot.Backend:
    return snapshot.Backend(str(BackendName(kind, namespace, name, number, spoken)))


@guarded(_nobody)
def backend(
    view: View, kind: str, namespace: str, name: str, number: int, spoken: Protocol | Literal[""] = ""
) -> snapshot.Backend:
    """The endpoints of a backend: the ready ones; without any, those that still serve while terminating."""
    named = str(BackendName(kind, namespace, name, number, spoken))
    if kind == "XBackend":
        found = view.get(XBackend, namespace, name)
        if found is None:
            return snapshot.Backend(named)
        secured = backend_tls.of_xbackend(view, found)
        if isinstance(secured, str):
            return snapshot.Backend(named)  # not in the clear, where TLS was asked for
        endpoint = snapshot.Endpoint(found.spec.external_hostname.hostname, found.spec.port.number)
        return snapshot.Backend(named, (endpoint,), spoken or XBACKEND_PROTOCOLS[found.spec.protocol], secured)
    service = view.get(Service, namespace, name)
    if service is None:
        return snapshot.Backend(named)
    port = _port(service, number, spoken)
    protocol = spoken or APP_PROTOCOLS.get(port.app_protocol.lower() if port else "", "http")
    tls = backend_tls.tls(view, namespace, name, port.name if port else "") if protocol != "udp" else None
    if tls is None and protocol != "udp":
        by_policy = services.upstream_tls(view, namespace, name, number)
        if isinstance(by_policy, str):
            return snapshot.Backend(named, (), protocol)  # not in the clear, where TLS was asked for
        tls = by_policy
    if isinstance(tls, Condition):
        return snapshot.Backend(named, (), protocol)  # nobody can prove to be it: nothing may be sent there
    if service.spec.type == "ExternalName":
        return snapshot.Backend(named, (snapshot.Endpoint(service.spec.external_name, number),), protocol, tls)
    if port is None:
        return snapshot.Backend(named)
    ready: set[snapshot.Endpoint] = set()
    leaving: set[snapshot.Endpoint] = set()
    for ref in view.index("slices", namespace, name):
        found_slice = view.get(EndpointSlice, ref.namespace, ref.name)
        if found_slice is not None:
            _sort_endpoints(found_slice, port.name, ready, leaving, is_strange=lambda address: leads_home(view, address))
    chosen = ready or leaving
    return snapshot.Backend(
        named,
        tuple(sorted(chosen, key=lambda e: (e.address, e.port))),
        protocol,
        tls,
        health=services.health(view, namespace, name, number) if protocol != "udp" else None,
        balance="LeastLoad" if services.algorithm(view, namespace, name, number) == "LeastLoad" else "RoundRobin",
    )


def _sort_endpoints(
    found: EndpointSlice, port_name: str, ready: set[snapshot.Endpoint], leaving: set[snapshot.Endpoint], *,
    is_strange: Callable[[str], bool],
) -> None:  # fmt: skip
    number = next((p.port for p in found.ports or () if (p.name or "") == port_name), None)
    if number is None:
        return
    for endpoint in found.endpoints or ():
        state = endpoint.conditions
        # Unknown means yes for ready, and the same as ready for serving (EndpointConditions).
        is_ready = state.ready is not False
        is_serving = state.serving if state.serving is not None else is_ready
        pod = endpoint.target_ref.name if endpoint.target_ref and endpoint.target_ref.kind == "Pod" else ""
        for address in endpoint.addresses[:1]:  # all addresses of an endpoint are fungible
            # The API server takes no such addresses, but names (addressType FQDN) it does not look at.
            if not address or is_strange(address):
                continue
            if is_ready:
                ready.add(snapshot.Endpoint(address, number, pod))
            elif is_serving and state.terminating:
                leaving.add(snapshot.Endpoint(address, number, pod))


@guarded(lambda *_: True)
def is_fresh(view: View, kind: str, namespace: str, name: str, number: int, spoken: Protocol | Literal[""] = "") -> bool:
    """Whether a backend's endpoints are what its Service now selects, as far as that can be seen.

    Argo Rollouts moves a Service to other pods by a label in its selector, and flips weights 20 ms later; the
    slices follow when Kubernetes gets to it. Pods are named after that label's value.
    """
    endpoints = view.call(backend, kind, namespace, name, number, spoken).endpoints
    if not endpoints:
        return False
    service = view.get(Service, namespace, name) if kind == "Service" else None
    wanted = service.spec.selector.get(HASH_LABEL) if service is not None else None
    return wanted is None or all(not e.pod or f"-{wanted}-" in e.pod for e in endpoints)
