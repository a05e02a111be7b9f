"""References to backends → names of snapshot backends or faults; Services and slices → endpoints."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from controller.objects.backends import XBackend
from controller.objects.base import X_GROUP
from controller.objects.core import EndpointSlice, Service, ServicePort
from controller.objects.references import ObjectReference
from controller.objects.routes import BackendRef
from controller.state.view import View, guarded
from controller.translate import xbackends
from controller.translate.policies import backend_tls, backend_traffic, services
from controller.translate.shared import conditions, endpoints, reference_grants
from controller.translate.shared.addresses import is_of_cluster, leads_home, looked_up
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import BackendName, Protocol
from gateway import snapshot
from gateway.http import grammar

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
    "Gateway": "", "ListenerSet": "", "XTelemetryPolicy": "",
}  # fmt: skip


class Resolved(NamedTuple):
    """A backend, or the condition that says why there is none; and the backend that is not used for that, but is told so."""

    backend: BackendName | None
    fault: Condition | None = None
    refused: BackendName | None = None

    def within(self, *path: str | int) -> Resolved:
        """The same, of a reference that stands at this field."""
        return self if self.fault is None else self._replace(fault=conditions.within(self.fault, *path))


def resolve(view: View, kind: str, namespace: str, ref: BackendRef, *, grpc: bool = False) -> Resolved:
    """What a reference from a route of this kind in this namespace leads to. `grpc`: calls are sent there in any case."""
    to = ref.namespace or namespace
    if (ref.group, ref.kind) == (X_GROUP, "XBackend"):
        return _resolve_xbackend(view, kind, namespace, ref, "h2c" if grpc else SPOKEN[kind])
    if (ref.group, ref.kind) != ("", "Service"):
        return _fault("InvalidKind", conditions.invalid_kind(ref.group, ref.kind), "kind")
    if not reference_grants.permitted(view, kind, namespace, "", "Service", to, ref.name):
        return _fault("RefNotPermitted", conditions.not_permitted("Service", to, ref.name, kind, namespace))
    service = view.get(Service, to, ref.name)
    if service is None:
        return _fault("BackendNotFound", conditions.service_not_found(to, ref.name))
    if ref.port is None:
        return _fault("BackendNotFound", conditions.port_missing(to, ref.name), "port")
    if not 1 <= ref.port <= 65535:
        return _fault("BackendNotFound", conditions.port_not_found(service, ref, transport(SPOKEN[kind])), "port")
    spoken = SPOKEN[kind]
    port = _port(service, ref.port, spoken)
    if service.spec.type == "ExternalName":
        if leads_home(view, service.spec.external_name):
            return _fault("BackendNotFound", f'Service "{to}/{ref.name}" points to the data plane itself.')
        if is_of_cluster(service.spec.external_name):
            named = f"externalName {grammar.shown(service.spec.external_name)} is a name of the cluster"
            return _fault(
                "BackendNotFound", f'Service "{to}/{ref.name}": its {named}; refer to the Service that it stands for.'
            )
    elif port is None:
        return _fault("BackendNotFound", conditions.port_not_found(service, ref, transport(spoken)), "port")
    if port is not None and not spoken and port.app_protocol.lower() not in APP_PROTOCOLS:
        return _fault(
            "UnsupportedProtocol",
            f'Service "{to}/{ref.name}" port {ref.port}: appProtocol "{port.app_protocol}" is not supported; '
            "kubernetes.io/h2c, kubernetes.io/ws and those of HTTP are.",
            "port",
        )
    if spoken == "udp" and (asks := _asks_for_tls(view, to, ref.name, ref.port, port.name if port else "")):
        text = f'Service "{to}/{ref.name}" is spoken to over TLS only, by {asks}; datagrams cannot be.'
        return _fault("UnsupportedProtocol", text)
    return Resolved(BackendName("Service", to, ref.name, ref.port, "h2c" if grpc else spoken))


def as_backend(ref: ObjectReference) -> BackendRef:
    """A reference that is not one of a rule's, as `resolve` takes it."""
    return BackendRef(name=ref.name, group=ref.group, kind=ref.kind, namespace=ref.namespace, port=ref.port)


def _asks_for_tls(view: View, namespace: str, service: str, number: int, port_name: str) -> str:
    """Which policy wants a port to be spoken to over TLS only."""
    policy = backend_tls.is_asked_for(view, namespace, service, port_name)
    if policy is not None:
        return f'BackendTLSPolicy "{policy}"'
    return "an UpstreamTLSPolicy" if services.upstream_tls(view, namespace, service, number) is not None else ""


def _resolve_xbackend(view: View, kind: str, namespace: str, ref: BackendRef, spoken: Protocol | Literal[""]) -> Resolved:
    to = ref.namespace or namespace
    if not reference_grants.permitted(view, kind, namespace, ref.group, "XBackend", to, ref.name):
        return _fault("RefNotPermitted", conditions.not_permitted("XBackend", to, ref.name, kind, namespace))
    xbackend, verdict = view.get(XBackend, to, ref.name), view.call(xbackends.judged, to, ref.name)
    if xbackend is None or verdict is None:
        return _fault("BackendNotFound", f'XBackend "{to}/{ref.name}" does not exist.')
    name = BackendName("XBackend", to, ref.name, 0, spoken)
    if verdict.refusal is not None:
        reason, words = verdict.refusal
        return Resolved(None, conditions.unresolved(reason, f'XBackend "{to}/{ref.name}": {words}'), name)
    if unspoken := xbackends.not_spoken(spoken, xbackend):
        return Resolved(None, conditions.unresolved("UnsupportedProtocol", f'XBackend "{to}/{ref.name}": {unspoken}'), name)
    if ref.port is not None:
        text = (
            f'backendRef "{ref.name}" has port {ref.port}; a reference to an XBackend has none: '
            f"leave it away, port {xbackend.spec.port.number} is what its spec.port says."
        )
        return Resolved(None, conditions.unresolved("BackendNotFound", text), name)
    return Resolved(name)


def _fault(reason: str, message: str, field: str = "name") -> Resolved:
    return Resolved(None, conditions.at(conditions.unresolved(reason, message), field))


def _port(service: Service, number: int, spoken: str) -> ServicePort | None:
    wanted = transport(spoken)
    return next((p for p in service.spec.ports if p.port == number and (p.protocol or "TCP") == wanted), None)


def transport(spoken: str) -> str:
    """What a Service's port must be for."""
    return "UDP" if spoken == "udp" else "TCP"


def _nobody(
    view: View, error: Exception, kind: str, namespace: str, name: str, number: int, spoken: Protocol | Literal[""]
) -> snapshot.Backend:
    return snapshot.Backend(str(BackendName(kind, namespace, name, number, spoken)))


@guarded(_nobody)
def backend(view: View, kind: str, namespace: str, name: str, number: int, spoken: Protocol | Literal[""]) -> snapshot.Backend:
    """The endpoints of a backend: the ready ones; without any, those that still serve while terminating."""
    named = str(BackendName(kind, namespace, name, number, spoken))
    if kind == "XBackend":
        made = xbackends.backend(view, namespace, name, spoken)
        return msgspec.structs.replace(made, budget=_budget(view, kind, namespace, name, made.protocol))
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
        named_endpoint = (snapshot.Endpoint(looked_up(view, service.spec.external_name), number),)
        limited = _budget(view, kind, namespace, name, protocol)
        return snapshot.Backend(named, named_endpoint, protocol, tls, budget=limited)
    if port is None:
        return snapshot.Backend(named)
    slices, port_name = view.index("slices", namespace, name), port.name
    return snapshot.Backend(
        named,
        endpoints.of_slices(view, slices, lambda one: _port_named(one, port_name)),
        protocol,
        tls,
        health=services.health(view, namespace, name, number) if protocol != "udp" else None,
        balance="LeastLoad" if services.algorithm(view, namespace, name, number) == "LeastLoad" else "RoundRobin",
        budget=_budget(view, kind, namespace, name, protocol),
    )


def _budget(view: View, kind: str, namespace: str, name: str, protocol: str) -> snapshot.RetryBudget | None:
    """What may be sent again; of bytes and datagrams nothing is."""
    return backend_traffic.budget(view, kind, namespace, name) if protocol in ("http", "h2c") else None


def _port_named(found: EndpointSlice, name: str) -> int | None:
    return next((p.port for p in found.ports or () if (p.name or "") == name), None)


@guarded(lambda *_: True)
def is_fresh(view: View, kind: str, namespace: str, name: str, number: int, spoken: Protocol | Literal[""]) -> bool:
    """Whether a backend's endpoints are what its Service now selects, as far as that can be seen.

    Argo Rollouts moves a Service to other pods by a label in its selector, and flips weights 20 ms later; the
    slices follow when Kubernetes gets to it. Pods are named after that label's value.
    """
    known = view.call(backend, kind, namespace, name, number, spoken).endpoints
    if not known:
        return False
    service = view.get(Service, namespace, name) if kind == "Service" else None
    wanted = service.spec.selector.get(HASH_LABEL) if service is not None else None
    return wanted is None or all(not e.pod or f"-{wanted}-" in e.pod for e in known)
