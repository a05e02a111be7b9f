"""XBackend (GEP-4894): whether what one asks for can be done, where its endpoints are, and what to say of it.

One decision, `judged`, makes its status and its effect: to one that is refused nothing is sent. Whether routes of a kind can
speak its protocol is theirs to ask (`not_spoken`).

Pods are found by Kubernetes: for an XBackend of type EndpointSelector that something of ours sends requests to there is a
Service (`pods`), whose labels its EndpointSlices have as well. In files, somebody writes such slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from controller.objects.backends import XBackend, XBackendSpec
from controller.objects.core import XBACKEND_NAME, EndpointSlice, Service
from controller.objects.naming import fits, limited
from controller.objects.routes import SessionPersistence
from controller.state.view import View, guarded
from controller.translate import sessions
from controller.translate.policies import backend_tls
from controller.translate.shared import ancestors, conditions, endpoints
from controller.translate.shared.addresses import are_from_files, as_address, is_of_cluster, leads_home, looked_up
from controller.translate.shared.names import BackendName, Protocol
from controller.translate.shared.status import BackendStatus
from gateway import snapshot
from gateway.http import grammar

# How routes of a kind speak to a backend of a protocol (BackendProtocol); without one the route decides. HTTP is any version.
_REQUESTS: Final[dict[str, Protocol]] = {
    "": "http", "HTTP": "http", "HTTP11": "http", "HTTP2": "h2c", "H2C": "h2c", "GRPC": "h2c", "WSS": "http",
}  # fmt: skip
_CALLS: Final[dict[str, Protocol]] = {"": "h2c", "HTTP": "h2c", "HTTP2": "h2c", "H2C": "h2c", "GRPC": "h2c"}
_STREAMS: Final[dict[str, Protocol]] = {"": "tcp", "TCP": "tcp"}  # bytes are passed on: nobody sees that they are anything else
_SPOKEN: Final[dict[str, dict[str, Protocol]]] = {"": _REQUESTS, "h2c": _CALLS, "tcp": _STREAMS, "udp": {}}
PROTOCOLS: Final = frozenset(_REQUESTS) | _STREAMS.keys()
MAX_LABELS: Final = 64


class Refusal(NamedTuple):
    """Why nothing is sent to a backend: the reason of a route's ResolvedRefs, and the words."""

    reason: str
    words: str


class Judgement(NamedTuple):
    """What becomes of an XBackend."""

    refusal: Refusal | None
    tls: snapshot.BackendTLS | None = None
    persistence: snapshot.Persistence | None = None


# --- the one decision ---


def _of_ours(view: View, error: Exception, namespace: str, name: str) -> Judgement:
    return Judgement(Refusal("BackendNotFound", conditions.fault_of_ours(error)))


@guarded(_of_ours)
def judged(view: View, namespace: str, name: str) -> Judgement | None:
    """Whether what an XBackend asks for can be done, and how; None where there is none of that name."""
    found = view.get(XBackend, namespace, name)
    if found is None:
        return None
    wrong = next(_place_faults(view, found.spec), "")
    if wrong:
        return Judgement(Refusal("BackendNotFound", wrong))
    tls = backend_tls.of_xbackend(view, found)
    if isinstance(tls, str):
        return Judgement(Refusal("UnsupportedProtocol", tls))
    wrong = _protocol_fault(found.spec.protocol, secured=tls is not None)
    if wrong:
        return Judgement(Refusal("UnsupportedProtocol", wrong))
    asked = found.spec.session_persistence
    if asked is None:
        return Judgement(None, tls)
    wrong = next(_session_faults(found.spec.type, asked), "")
    if wrong:
        return Judgement(Refusal("BackendNotFound", wrong))
    return Judgement(None, tls, sessions.persistence(asked, str(BackendName("XBackend", namespace, name, 0))))


def _place_faults(view: View, spec: XBackendSpec) -> Iterator[str]:
    """What is wrong with where it is: the host or the pods, and the port."""
    if spec.type not in ("ExternalHostname", "EndpointSelector"):
        yield f"spec.type: found {grammar.shown(spec.type)}; ExternalHostname and EndpointSelector are understood."
    for type_, field, value in (
        ("ExternalHostname", "externalHostname", spec.external_hostname),
        ("EndpointSelector", "endpointSelector", spec.endpoint_selector),
    ):
        if spec.type == type_ and value is None:
            yield f"spec.{field}: is missing; an XBackend of type {type_} needs it."
        if spec.type != type_ and value is not None:
            yield f"spec.{field}: is for type {type_}; leave it away, or change spec.type."
    if spec.external_hostname is not None:
        yield from _host_faults(view, spec.external_hostname.hostname)
    if spec.endpoint_selector is not None:
        yield from _label_faults(spec.endpoint_selector.match_labels)
    if not 1 <= spec.port.number <= 65535:
        yield f"spec.port.number: found {spec.port.number}; 1 to 65535 is needed."


def _host_faults(view: View, host: str) -> Iterator[str]:
    where = "spec.externalHostname.hostname"
    if leads_home(view, host):
        yield f"{where}: {grammar.shown(host)} points to the data plane itself."
    if is_of_cluster(host):
        yield f"{where}: {grammar.shown(host)} is a name of the cluster; refer to its Service, or select its pods."
    if as_address(host) is not None:
        yield f"{where}: {grammar.shown(host)} is an address; a name is needed, or type EndpointSelector and an EndpointSlice."
    if not fits("dns1123Subdomain", host) or any(len(label) > 63 for label in host.split(".")):
        yield f"{where}: found {grammar.shown(host)}; a name as DNS has it, in lower case, is needed."


def _label_faults(labels: dict[str, str]) -> Iterator[str]:
    where = "spec.endpointSelector.matchLabels"
    if not 1 <= len(labels) <= MAX_LABELS:
        yield f"{where}: found {len(labels)} labels; 1 to {MAX_LABELS} are needed."
    for name, value in labels.items():
        if not fits("qualifiedName", name):
            yield f"{where}: {grammar.shown(name)} cannot be the name of a label."
        if not fits("labelValue", value):
            yield f"{where}[{name}]: {grammar.shown(value)} cannot be a label's value."


def _protocol_fault(protocol: str, *, secured: bool) -> str:
    if protocol == "MCP":
        return "spec.protocol: MCP is not looked into here; with HTTP11, over which it is spoken, it is passed on as it is."
    if protocol not in PROTOCOLS:
        listed = ", ".join(sorted(name for name in PROTOCOLS if name))
        return f"spec.protocol: found {grammar.shown(protocol)}; {listed} are supported."
    if protocol == "H2C" and secured:
        return "spec.protocol: H2C is HTTP/2 in the clear, and spec.tls asks for TLS; HTTP2 is HTTP/2 over TLS."
    if protocol in ("HTTP2", "WSS") and not secured:
        other = "H2C is HTTP/2 in the clear" if protocol == "HTTP2" else "HTTP does for WebSocket in the clear"
        return f"spec.protocol: {protocol} needs spec.tls with another mode than None; {other}."
    return ""


def _session_faults(type_: str, asked: SessionPersistence) -> Iterator[str]:
    if type_ != "EndpointSelector":
        yield "spec.sessionPersistence: is for type EndpointSelector; of a hostname nobody here chooses the endpoint."
    if asked.type not in ("Cookie", "Header"):
        yield f"spec.sessionPersistence.type: found {grammar.shown(asked.type)}; Cookie and Header are understood."
    if asked.type == "Cookie" and asked.cookie.lifetime_type == "Permanent" and not asked.absolute_timeout:
        yield "spec.sessionPersistence.absoluteTimeout: is missing; a cookie that is Permanent needs it."
    for text in sessions.faults(asked):
        yield f"spec.{text}."


# --- what it comes to ---


def _spoken_by(spoken: Protocol | Literal[""], found: XBackend) -> Protocol | None:
    """How routes that speak so (`backends.SPOKEN`) speak to an XBackend; None where they cannot."""
    return _SPOKEN[spoken].get(found.spec.protocol)


_SPEAKERS: Final = {"": "requests of HTTP are sent", "h2c": "calls of gRPC are sent", "tcp": "bytes are passed on"}


def not_spoken(spoken: Protocol | Literal[""], found: XBackend) -> str:
    """Why they cannot; empty where they can."""
    if _spoken_by(spoken, found) is not None:
        return ""
    if spoken == "udp":
        return "an XBackend takes no datagrams; a Service does."
    listed = ", ".join(name for name in _SPOKEN[spoken] if name)
    return f"spec.protocol: found {found.spec.protocol}; {_SPEAKERS[spoken]} to it here, so it must be {listed}, or not set."


def backend(view: View, namespace: str, name: str, spoken: Protocol | Literal[""]) -> snapshot.Backend:
    """Its endpoints; none of one that is refused."""
    named = str(BackendName("XBackend", namespace, name, 0, spoken))
    found, verdict = view.get(XBackend, namespace, name), view.call(judged, namespace, name)
    protocol = _spoken_by(spoken, found) if found is not None else None
    if found is None or verdict is None or verdict.refusal is not None or protocol is None:
        return snapshot.Backend(named)  # not in the clear where TLS was asked for, nor in another protocol
    return snapshot.Backend(named, _endpoints(view, found), protocol, verdict.tls)


def _endpoints(view: View, found: XBackend) -> tuple[snapshot.Endpoint, ...]:
    number = found.spec.port.number
    if found.spec.external_hostname is not None:
        return (snapshot.Endpoint(looked_up(view, found.spec.external_hostname.hostname), number),)
    slices = view.index("slices of xbackend", found.metadata.namespace, limited(found.metadata.name))
    return endpoints.of_slices(view, slices, lambda one: _port(one, number))


def _port(found: EndpointSlice, number: int) -> int | None:
    """The port of an XBackend's slice: its own; or, until the slice has followed a change of that, the only one."""
    numbers = [one.port for one in found.ports or () if (one.protocol or "TCP") == "TCP" and one.port is not None]
    if number in numbers:
        return number
    return numbers[0] if len(numbers) == 1 else None


def persistence(view: View, name: BackendName) -> snapshot.Persistence | None:
    """How clients come back to where they were within an XBackend, as it says itself."""
    verdict = view.call(judged, name.namespace, name.name) if name.kind == "XBackend" else None
    return verdict.persistence if verdict is not None else None


# --- the Service by which its pods are found ---


class PodService(NamedTuple):
    """What such a Service says, as far as it is ours to say."""

    selector: tuple[snapshot.Pair, ...]
    ports: tuple[tuple[int, int | str], ...]  # each with the pods' port
    label: str  # of the XBackend, that its slices get as well


class Pods(NamedTuple):
    """The Services of an XBackend: what one should say, if there should be one, and those that there are, by their names."""

    uid: str
    wanted: PodService | None
    standing: tuple[tuple[str, PodService], ...] = ()


@guarded(lambda *_: None)
def pods(view: View, namespace: str, name: str) -> Pods | None:
    """What must be there for Kubernetes to find an XBackend's pods; None for nothing, now and before.

    Only what a Gateway of ours sends requests to is looked for: an XBackend has no class, and may be another controller's.
    """
    found = view.get(XBackend, namespace, name)
    if found is None or found.metadata.deletion_timestamp:  # what it owns goes with it
        return None
    verdict = view.call(judged, namespace, name)
    wanted = None
    if found.spec.endpoint_selector is not None and verdict is not None and verdict.refusal is None:
        if view.noted("gateways of xbackend", namespace, name):
            selector = tuple(sorted(found.spec.endpoint_selector.match_labels.items()))
            wanted = PodService(selector, ((found.spec.port.number, found.spec.port.number),), limited(name))
    uid = found.metadata.uid
    services = [view.get(Service, *ref[1:]) for ref in view.index("services of xbackend", namespace, uid)] if uid else []
    standing = tuple((one.metadata.name, _pod_service(one)) for one in services if one is not None)
    return Pods(uid, wanted, standing) if wanted is not None or standing else None


def _pod_service(found: Service) -> PodService:
    ports = tuple((port.port, port.target_port or port.port) for port in found.spec.ports)
    return PodService(tuple(sorted(found.spec.selector.items())), ports, found.metadata.labels.get(XBACKEND_NAME, ""))


# --- its status ---


@guarded(lambda *_: None)
def status(view: View, namespace: str, name: str) -> BackendStatus | None:
    """What to say of an XBackend, to each Gateway of ours that sends requests to it."""
    found, verdict = view.get(XBackend, namespace, name), view.call(judged, namespace, name)
    if found is None or verdict is None:
        return None
    said = conditions.backend_accepted()
    if verdict.refusal is not None:
        said = conditions.backend_invalid(verdict.refusal.words)
    elif are_from_files(view) and not _endpoints(view, found):
        said = conditions.with_fault(said, conditions.no_slices(XBACKEND_NAME, limited(name), found.spec.port.number))
    elif verdict.persistence is not None and {"tcp"} & set(view.noted("spoken to xbackend", namespace, name)):
        text = "spec.sessionPersistence: what TCP and TLS routes send there has no requests, and so no sessions."
        said = conditions.with_warning(said, text)
    told = ancestors.of(view, [found.ref], said, most=ancestors.MAX_OF_BACKENDS)
    return BackendStatus(found.metadata.generation, told) if told else None
