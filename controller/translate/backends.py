"""References to backends → names of snapshot backends or faults; Services and slices → endpoints."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple

from controller.memo import View
from controller.objects import BackendRef, EndpointSlice, Service, ServicePort, XBackend
from controller.translate import conditions, grants
from controller.translate.conditions import Condition
from gateway import snapshot

HASH_LABEL = "rollouts-pod-template-hash"  # the label by which Argo Rollouts tells versions apart
# What `appProtocol` may say of a backend that speaks HTTP/1.1 (GEP-1911).
HTTP1 = ("", "http", "HTTP", "kubernetes.io/http", "kubernetes.io/ws", "ws")


class BackendName(NamedTuple):
    """Names a backend: a port of a Service, or an XBackend (port 0)."""

    kind: str
    namespace: str
    name: str
    port: int

    def __str__(self) -> str:
        prefix = "" if self.kind == "Service" else f"{self.kind}/"
        return f"{prefix}{self.namespace}/{self.name}" + (f":{self.port}" if self.port else "")


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
    if not grants.permitted(view, kind, namespace, "", "Service", to, ref.name):
        return _fault("RefNotPermitted", conditions.not_permitted("Service", to, ref.name, kind, namespace))
    service = view.get(Service, to, ref.name)
    if service is None:
        return _fault("BackendNotFound", conditions.service_not_found(to, ref.name))
    if ref.port is None:
        return _fault("BackendNotFound", conditions.port_missing(to, ref.name))
    port = _port(service, ref.port)
    if service.spec.type == "ExternalName":
        if _is_loopback(service.spec.external_name) and not view.note("setting", "loopback backends"):
            return _fault("BackendNotFound", f'Service "{to}/{ref.name}" points to the data plane itself.')
    elif port is None:
        return _fault("BackendNotFound", conditions.port_not_found(service, ref))
    if port is not None and port.app_protocol not in HTTP1:
        return _fault(
            "UnsupportedProtocol",
            f'Service "{to}/{ref.name}" port {ref.port}: appProtocol "{port.app_protocol}" is not supported; HTTP/1.1 is.',
        )
    return Resolved(BackendName("Service", to, ref.name, ref.port))


def _resolve_xbackend(view: View, kind: str, namespace: str, ref: BackendRef) -> Resolved:
    to = ref.namespace or namespace
    if not grants.permitted(view, kind, namespace, ref.group, "XBackend", to, ref.name):
        return _fault("RefNotPermitted", conditions.not_permitted("XBackend", to, ref.name, kind, namespace))
    found = view.get(XBackend, to, ref.name)
    if found is None:
        return _fault("BackendNotFound", f'XBackend "{to}/{ref.name}" does not exist.')
    if found.spec.type != "ExternalHostname":
        return _fault("UnsupportedProtocol", f'XBackend "{to}/{ref.name}": type ExternalHostname is supported.')
    if found.spec.protocol not in ("", "HTTP", "HTTP11"):
        return _fault("UnsupportedProtocol", f'XBackend "{to}/{ref.name}": protocol HTTP is supported.')
    return Resolved(BackendName("XBackend", to, ref.name, 0))


def _fault(reason: str, message: str) -> Resolved:
    return Resolved(None, conditions.unresolved(reason, message))


def _port(service: Service, number: int) -> ServicePort | None:
    return next((port for port in service.spec.ports if port.port == number), None)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower().endswith("localhost")


def backend(view: View, kind: str, namespace: str, name: str, number: int) -> snapshot.Backend:
    """The endpoints of a backend: the ready ones; without any, those that still serve while terminating."""
    named = str(BackendName(kind, namespace, name, number))
    if kind == "XBackend":
        found = view.get(XBackend, namespace, name)
        if found is None:
            return snapshot.Backend(named)
        return snapshot.Backend(named, (snapshot.Endpoint(found.spec.external_hostname.hostname, found.spec.port.number),))
    service = view.get(Service, namespace, name)
    if service is None:
        return snapshot.Backend(named)
    if service.spec.type == "ExternalName":
        return snapshot.Backend(named, (snapshot.Endpoint(service.spec.external_name, number),))
    port = _port(service, number)
    if port is None:
        return snapshot.Backend(named)
    ready: set[snapshot.Endpoint] = set()
    leaving: set[snapshot.Endpoint] = set()
    for ref in view.index("slices", namespace, name):
        found_slice = view.get(EndpointSlice, ref.namespace, ref.name)
        if found_slice is not None:
            _sort_endpoints(found_slice, port.name, ready, leaving)
    chosen = ready or leaving
    return snapshot.Backend(named, tuple(sorted(chosen, key=lambda e: (e.address, e.port))))


def _sort_endpoints(
    found: EndpointSlice, port_name: str, ready: set[snapshot.Endpoint], leaving: set[snapshot.Endpoint]
) -> None:
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
            if is_ready:
                ready.add(snapshot.Endpoint(address, number, pod))
            elif is_serving and state.terminating:
                leaving.add(snapshot.Endpoint(address, number, pod))


def is_fresh(view: View, kind: str, namespace: str, name: str, number: int) -> bool:
    """Whether a backend's endpoints are what its Service now selects, as far as that can be seen.

    Argo Rollouts moves a Service to other pods by a label in its selector, and flips weights 20 ms later; the
    slices follow when Kubernetes gets to it. Pods are named after that label's value.
    """
    endpoints = view.call(backend, kind, namespace, name, number).endpoints
    if not endpoints:
        return False
    service = view.get(Service, namespace, name) if kind == "Service" else None
    wanted = service.spec.selector.get(HASH_LABEL) if service is not None else None
    return wanted is None or all(not e.pod or f"-{wanted}-" in e.pod for e in endpoints)
