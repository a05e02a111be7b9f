"""GatewayClasses and Gateways: which are ours, what they open, and what to say of them."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from controller.objects.base import CONTROLLER, Ref
from controller.objects.core import Service
from controller.objects.gateways import ALL, DEFAULT_SCOPES, Gateway, GatewayAddress, GatewayClass, ListenerSet
from controller.state.view import View, guarded
from controller.state.world import Report
from controller.translate import certificates
from controller.translate.certificates import CertificateFault
from controller.translate.gateways import client_limits, parameters
from controller.translate.gateways.listeners import ListenerInfo, listeners
from controller.translate.gateways.parameters import Parameters
from controller.translate.shared import conditions, ports
from controller.translate.shared.ancestors import is_ours
from controller.translate.shared.conditions import Condition
from controller.translate.shared.names import Needed
from controller.translate.shared.status import ClassStatus, GatewayStatus, ListenerSetStatus, ListenerStatus
from gateway import snapshot
from gateway.http.local_replies import NO_RULE

BUNDLE = "v1.7.0"
# From where an address can be reached (GEP-5093): only from inside the cluster, or, in names of our own, by what kind of
# address it is. The API has no others without a prefix.
CLUSTER, PRIVATE, PUBLIC = "Cluster", "gateway.flomesh.io/private", "gateway.flomesh.io/public"
ROUTABILITY = (CLUSTER, PRIVATE, PUBLIC)
# Features of the Gateway API v1.7.0 that work, sorted (GatewayClassStatus.supportedFeatures), and the names that those
# had in v1.6 which were renamed: HTTPRouteRetry, HTTPRouteRetryBackendTimeout, GatewayInfrastructurePropagation.
FEATURES = (
    "BackendTLSPolicy",
    "BackendTLSPolicySANValidation",
    "ClusterTrustBundle",
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayAddressRoutability",
    "GatewayAddressRoutabilityCluster",
    "GatewayBackendClientCertificate",
    "GatewayFrontendClientCertificateValidation",
    "GatewayFrontendClientCertificateValidationInsecureFallback",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayInfrastructurePropagation",
    "GatewayListenerFilters",
    "GatewayPort8080",
    "GatewayRouteHostnameIntersectionPrecedence",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryCodes",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ListenerSet",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
    "UDPRoute",
)
# Since when the standard channel's HTTPRoute has `retry`: an API server with older CRDs takes the field away from what it is
# sent, so that nothing of it may be claimed there.
STANDARD_SINCE = (1, 7)


class Running(NamedTuple):
    """What must run for a Gateway."""

    gateway: Gateway
    ports: tuple[tuple[str, int], ...]  # transport and port of every listener
    parameters: Parameters


class GatewayInfo(NamedTuple):
    """A Gateway of ours, as routes see it."""

    namespace: str
    name: str
    listeners: tuple[ListenerInfo, ...]  # its own, and those of its ListenerSets
    refused: Condition | None  # why nothing of it is served
    sets: tuple[Ref, ...]  # ListenerSets that it takes
    client: snapshot.Certificate | CertificateFault | None  # with which it proves who it is to backends

    @property
    def backends(self) -> tuple[Needed, ...]:
        """What the filters of its listeners need."""
        return tuple(dict.fromkeys(name for listener in self._served for name in listener.backends))

    @property
    def _served(self) -> tuple[ListenerInfo, ...]:
        return tuple(listener for listener in self.listeners if listener.part is not None) if self.refused is None else ()

    @property
    def shown(self) -> snapshot.Certificate | None:
        """The certificate that backends are shown."""
        return self.client if isinstance(self.client, snapshot.Certificate) and self.refused is None else None

    @property
    def parts(self) -> tuple[snapshot.Part, ...]:
        """Everything of it that is served, but for routes."""
        parts: list[snapshot.Part] = [self.shown] if self.shown is not None else []
        for listener in self._served:
            if listener.part is not None:
                parts += [*listener.certificates, listener.part]
                if listener.filters and listener.protocol in ("HTTP", "HTTPS"):
                    parts.append(_unmatched(listener))
        return tuple(parts)

    def of(self, owner: Ref) -> tuple[ListenerInfo, ...]:
        """The listeners of the Gateway itself, or of one of its ListenerSets."""
        return tuple(listener for listener in self.listeners if listener.owner == owner)


def _unmatched(listener: ListenerInfo) -> snapshot.Rule:
    """What no rule takes passes the listener's filters as well: nobody learns which routes there are."""
    filters = (*listener.filters, snapshot.Fault(404, NO_RULE))
    return snapshot.Rule(
        f"listener/{listener.key}",
        snapshot.Order("~"),
        (snapshot.Attachment(listener.key, listener.hostname, ""),),
        filters=filters,
    )


def _closed(view: View, error: Exception, namespace: str, name: str) -> GatewayInfo:
    return GatewayInfo(namespace, name, (), conditions.gateway_parameters(conditions.fault_of_ours(error)), (), None)


@guarded(_closed)
def gateway(view: View, namespace: str, name: str) -> GatewayInfo | None:
    """A Gateway, if it exists and is ours."""
    resource = view.get(Gateway, namespace, name)
    if resource is None or not view.call(is_ours, resource.spec.gateway_class_name):
        return None
    sets = ports.sets(view, resource)
    client: snapshot.Certificate | CertificateFault | None = None
    if resource.spec.tls.backend.client_certificate_ref is not None:
        ref = resource.spec.tls.backend.client_certificate_ref
        client = view.attempt(
            f"{resource.ref}, spec.tls.backend",
            lambda: certificates.certificate(view, "Gateway", namespace, ref),
            lambda error: CertificateFault("reference", conditions.fault_of_ours(error)),
        )
    return GatewayInfo(
        namespace,
        name,
        listeners(view, resource, sets),
        _refused(view, resource),
        tuple(listener_set.ref for listener_set in sets),
        client,
    )


def _refused(view: View, resource: Gateway) -> Condition | None:
    """Why nothing of a Gateway is served, if so."""
    for address in resource.spec.addresses:
        if address.type != "IPAddress":
            return conditions.unsupported_address(f'type "{address.type}" is not supported; IPAddress is.')
        if address.routability and address.routability not in ROUTABILITY:
            known = ", ".join(ROUTABILITY)
            return conditions.unsupported_address(f'routability "{address.routability}" is not known; {known} are.')
    if resource.spec.default_scope not in DEFAULT_SCOPES:
        return conditions.unsupported_scope(resource.spec.default_scope)
    other = _namesake(view, resource)
    if other:
        return conditions.gateway_namesake(resource.metadata.namespace, other, resource.generated_name)
    asked = parameters.of(view, resource)
    return conditions.gateway_parameters(asked) if isinstance(asked, str) else None


def _namesake(view: View, resource: Gateway) -> str:
    """An older Gateway of ours for which something of the same name runs: a.b and a-b, or names and classes that join alike.

    Their data planes would be one Deployment, and prove by one ServiceAccount to be either.
    """
    for ref in view.index("gateways that run as", resource.metadata.namespace, resource.generated_name):
        other = view.get(Gateway, ref.namespace, ref.name) if ref != resource.ref else None
        if other is not None and view.call(is_ours, other.spec.gateway_class_name):
            if other.metadata.age < resource.metadata.age:
                return other.metadata.name
    return ""


@guarded(lambda *_: None)  # which is no reason to take away what runs: see Translator
def running(view: View, namespace: str, name: str) -> Running | None:
    """What must run for a Gateway of ours."""
    info, resource = view.call(gateway, namespace, name), view.get(Gateway, namespace, name)
    if info is None or resource is None or _namesake(view, resource):
        return None
    asked = parameters.of(view, resource)
    opened = {
        ("UDP" if listener.protocol == "UDP" else "TCP", listener.port) for listener in info.listeners if listener.is_accepted
    }
    return Running(resource, tuple(sorted(opened)), parameters.DEFAULTS if isinstance(asked, str) else asked)


@guarded(lambda *_: None)
def class_status(view: View, name: str) -> ClassStatus | None:
    """What to say of a GatewayClass of ours."""
    gateway_class = view.get(GatewayClass, "", name)
    if gateway_class is None or gateway_class.spec.controller_name != CONTROLLER:
        return None
    accepted = conditions.class_accepted(name)
    asked = parameters.of_class(view, name)
    if isinstance(asked, str):
        accepted = conditions.class_parameters(asked)
    installed = view.noted("setting", "bundle version") or BUNDLE
    version = conditions.supported_version(BUNDLE)
    if installed.rpartition(".")[0] != BUNDLE.rpartition(".")[0]:
        version = conditions.unsupported_version(installed, BUNDLE)
    is_pruned = view.noted("setting", "channel") == "standard" and _minor(installed) < STANDARD_SINCE
    features = tuple(name for name in FEATURES if not is_pruned or not name.startswith("HTTPRouteRetry"))
    return ClassStatus(gateway_class.metadata.generation, (accepted, version), features)


def _minor(version: str) -> tuple[int, ...]:
    """Of "v1.6.3": (1, 6)."""
    return tuple(int(part) for part in version.lstrip("v").split(".")[:2] if part.isdecimal())


class _Said(NamedTuple):
    """What is known of a Gateway in force."""

    report: Report
    attached: dict[str, int]
    problems: dict[str, str]
    addresses: tuple[GatewayAddress, ...]
    accepted: Condition
    programmed: Condition


def _said(view: View, resource: Gateway, info: GatewayInfo) -> _Said:
    gateway_name = (resource.metadata.namespace, resource.metadata.name)
    report = view.noted("report", *gateway_name) or Report()
    problems = dict(report.problems)
    addresses = _addresses(view, resource)
    accepted = info.refused or _accepted(info.of(resource.ref))
    fault = client_limits.of(resource).fault
    if fault and accepted.is_true:
        accepted = conditions.with_fault(accepted, fault)
    programmed = _programmed(resource, accepted, report, addresses)
    return _Said(report, view.noted("attached", *gateway_name) or {}, problems, addresses, accepted, programmed)


@guarded(lambda *_: None)
def gateway_status(view: View, namespace: str, name: str) -> GatewayStatus | None:
    """What to say of a Gateway of ours."""
    info = view.call(gateway, namespace, name)
    resource = view.get(Gateway, namespace, name)
    if info is None or resource is None:
        return None
    known = _said(view, resource, info)
    # A set counts when it is accepted: one of its listeners is valid.
    attached = sum(any(listener.is_valid for listener in info.of(ref)) for ref in info.sets) if info.refused is None else 0
    return GatewayStatus(
        resource.metadata.generation,
        known.addresses,
        (known.accepted, known.programmed, *_more(resource, info)),
        tuple(_listener_status(listener, known, info) for listener in info.of(resource.ref)),
        attached,
    )


def _more(resource: Gateway, info: GatewayInfo) -> Iterator[Condition]:
    """Conditions that are there only where there is something to say."""
    if resource.spec.default_scope == ALL:
        yield conditions.default_gateway(ALL)
    match info.client:
        case CertificateFault(kind, message):
            yield conditions.client_certificate(
                "RefNotPermitted" if kind == "grant" else "InvalidClientCertificateRef", message
            )
        case snapshot.Certificate():
            yield conditions.client_certificate("ResolvedRefs", "All references are resolved.")
    insecure = sorted(
        listener.port for listener in info.listeners
        if (listener.protocol == "HTTPS" or (listener.part is not None and listener.part.clients is not None))
        and (v := ports.validation(resource, listener.port)) is not None and v.mode == "AllowInsecureFallback"
    )  # fmt: skip
    if insecure:
        yield conditions.insecure_validation(insecure)


@guarded(lambda *_: None)
def listener_set_status(view: View, namespace: str, name: str) -> ListenerSetStatus | None:
    """What to say of a ListenerSet whose Gateway is ours."""
    listener_set = view.get(ListenerSet, namespace, name)
    if listener_set is None or not ports.names_gateway(listener_set):
        return None
    parent = (listener_set.spec.parent_ref.namespace or namespace, listener_set.spec.parent_ref.name)
    info, resource = view.call(gateway, *parent), view.get(Gateway, *parent)
    if info is None or resource is None:
        return None
    if listener_set.ref not in info.sets:
        return ListenerSetStatus(listener_set.metadata.generation, conditions.listener_set_not_allowed(namespace, *parent), ())
    known = _said(view, resource, info)
    entries = tuple(_listener_status(listener, known, info) for listener in info.of(listener_set.ref))
    if info.refused is not None:
        both = conditions.listener_set_refused(*parent)
    else:
        bad = [listener.name for listener in info.of(listener_set.ref) if not listener.is_valid]
        both = conditions.listener_set(bad, len(entries), known.programmed)
    return ListenerSetStatus(listener_set.metadata.generation, both, entries)


def _accepted(own: tuple[ListenerInfo, ...]) -> Condition:
    # Accepted and Conflicted decide; a certificate that is missing leaves the listener accepted.
    bad = [listener.name for listener in own if not listener.is_accepted]
    if not bad:
        return conditions.gateway_accepted()
    return conditions.some_listeners_not_valid(bad, all_of_them=len(bad) == len(own))


def _programmed(resource: Gateway, accepted: Condition, report: Report, addresses: tuple[GatewayAddress, ...]) -> Condition:
    if not accepted.is_true:
        return conditions.not_programmed("Invalid", "The Gateway is not accepted.")
    wanted = {a.value for a in resource.spec.addresses if a.value}
    got = {a.value for a in addresses}
    if addresses and wanted - got:
        return conditions.address_not_usable(sorted(wanted), sorted(got))
    asked = {a.routability for a in resource.spec.addresses if a.routability}
    reached = {a.routability for a in addresses}
    if addresses and asked - reached:
        return conditions.address_not_usable([f"{kind} routability" for kind in sorted(asked)], sorted(got))
    if not addresses:
        if wanted:
            return conditions.address_not_usable(sorted(wanted), [])
        return conditions.not_programmed("AddressNotAssigned", "No address has been assigned to the Gateway's Service yet.")
    if not report.programmed:
        return conditions.not_programmed("Pending", report.message or "No data plane has acknowledged the Gateway yet.")
    return conditions.programmed(report.message or "The data planes serve the Gateway.")


def _listener_status(listener: ListenerInfo, known: _Said, info: GatewayInfo) -> ListenerStatus:
    own_conditions = list(listener.conditions)
    problem = known.problems.get(listener.key)
    if not listener.is_valid or info.refused is not None:
        reason = (
            listener.conditions[0].reason if not listener.is_accepted and listener.owner.kind == "ListenerSet" else "Invalid"
        )
        own_conditions.append(conditions.not_programmed(reason, "The listener is not valid."))
    elif problem:
        unavailable = conditions.port_unavailable(f"The data plane cannot serve it: {problem}.")
        own_conditions[0] = conditions.at(unavailable, "spec", "listeners", listener.place, "port")
        own_conditions.append(conditions.not_programmed("Invalid", f"The data plane cannot serve it: {problem}."))
    elif known.report.programmed:
        own_conditions.append(conditions.programmed("Listener is programmed."))
    else:
        own_conditions.append(conditions.not_programmed("Pending", "No data plane has acknowledged it yet."))
    return ListenerStatus(listener.name, listener.kinds, known.attached.get(listener.key, 0), tuple(own_conditions))


def _asks_for_routability(resource: Gateway) -> bool:
    return any(address.routability for address in resource.spec.addresses)


def is_internal(resource: Gateway) -> bool:
    """Whether a Gateway wants to be reached from its cluster only (GEP-5093)."""
    return any(address.routability == CLUSTER for address in resource.spec.addresses)


def _addresses(view: View, resource: Gateway) -> tuple[GatewayAddress, ...]:
    """Those of the Gateway's Service; standalone, where we listen."""
    fixed: tuple[str, ...] = view.noted("setting", "addresses")
    if fixed:
        return tuple(GatewayAddress("IPAddress", address) for address in fixed)
    result = []
    for ref in view.index("services of gateway", resource.metadata.namespace, resource.metadata.name):
        service = view.get(Service, ref.namespace, ref.name)
        if is_internal(resource):
            if service is not None and service.spec.cluster_ip not in ("", "None"):
                result.append(GatewayAddress("IPAddress", service.spec.cluster_ip, CLUSTER))
            continue
        for ingress in service.status.load_balancer.ingress if service else ():
            if ingress.ip and _is_address(ingress.ip):
                kind = PRIVATE if ip_address(ingress.ip).is_private else PUBLIC
                result.append(GatewayAddress("IPAddress", ingress.ip, kind if _asks_for_routability(resource) else ""))
            elif ingress.hostname:
                result.append(GatewayAddress("Hostname", ingress.hostname))
    return tuple(result)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
