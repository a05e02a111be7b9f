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
        return tuple(dict.fromkeys(name for one in self._served for name in one.backends))

    @property
    def _served(self) -> tuple[ListenerInfo, ...]:
        return tuple(one for one in self.listeners if one.part is not None) if self.refused is None else ()

    @property
    def shown(self) -> snapshot.Certificate | None:
        """The certificate that backends are shown."""
        return self.client if isinstance(self.client, snapshot.Certificate) and self.refused is None else None

    @property
    def parts(self) -> tuple[snapshot.Part, ...]:
        """Everything of it that is served, but for routes."""
        made: list[snapshot.Part] = [self.shown] if self.shown is not None else []
        for one in self._served:
            if one.part is not None:
                made += [*one.certificates, one.part]
                if one.filters and one.protocol in ("HTTP", "HTTPS"):
                    made.append(_unmatched(one))
        return tuple(made)

    def of(self, owner: Ref) -> tuple[ListenerInfo, ...]:
        """The listeners of the Gateway itself, or of one of its ListenerSets."""
        return tuple(one for one in self.listeners if one.owner == owner)


def _unmatched(one: ListenerInfo) -> snapshot.Rule:
    """What no rule takes passes the listener's filters as well: nobody learns which routes there are."""
    filters = (*one.filters, snapshot.Fault(404, NO_RULE))
    return snapshot.Rule(
        f"listener/{one.key}", snapshot.Order("~"), (snapshot.Attachment(one.key, one.hostname, ""),), filters=filters
    )


def _closed(view: View, error: Exception, namespace: str, name: str) -> GatewayInfo:
    return GatewayInfo(namespace, name, (), conditions.gateway_parameters(conditions.fault_of_ours(error)), (), None)


@guarded(_closed)
def gateway(view: View, namespace: str, name: str) -> GatewayInfo | None:
    """A Gateway, if it exists and is ours."""
    found = view.get(Gateway, namespace, name)
    if found is None or not view.call(is_ours, found.spec.gateway_class_name):
        return None
    sets = ports.sets(view, found)
    client: snapshot.Certificate | CertificateFault | None = None
    if found.spec.tls.backend.client_certificate_ref is not None:
        ref = found.spec.tls.backend.client_certificate_ref
        client = view.attempt(
            f"{found.ref}, spec.tls.backend",
            lambda: certificates.certificate(view, "Gateway", namespace, ref),
            lambda error: CertificateFault("reference", conditions.fault_of_ours(error)),
        )
    return GatewayInfo(
        namespace, name, listeners(view, found, sets), _refused(view, found), tuple(one.ref for one in sets), client
    )


def _refused(view: View, found: Gateway) -> Condition | None:
    """Why nothing of a Gateway is served, if so."""
    for address in found.spec.addresses:
        if address.type != "IPAddress":
            return conditions.unsupported_address(f'type "{address.type}" is not supported; IPAddress is.')
        if address.routability and address.routability not in ROUTABILITY:
            known = ", ".join(ROUTABILITY)
            return conditions.unsupported_address(f'routability "{address.routability}" is not known; {known} are.')
    if found.spec.default_scope not in DEFAULT_SCOPES:
        return conditions.unsupported_scope(found.spec.default_scope)
    other = _namesake(view, found)
    if other:
        return conditions.gateway_namesake(found.metadata.namespace, other, found.generated_name)
    asked = parameters.of(view, found)
    return conditions.gateway_parameters(asked) if isinstance(asked, str) else None


def _namesake(view: View, found: Gateway) -> str:
    """An older Gateway of ours for which something of the same name runs: a.b and a-b, or names and classes that join alike.

    Their data planes would be one Deployment, and prove by one ServiceAccount to be either.
    """
    own = (found.metadata.creation_timestamp, found.metadata.name)
    for ref in view.index("gateways that run as", found.metadata.namespace, found.generated_name):
        other = view.get(Gateway, ref.namespace, ref.name) if ref != found.ref else None
        if other is not None and view.call(is_ours, other.spec.gateway_class_name):
            if (other.metadata.creation_timestamp, other.metadata.name) < own:
                return other.metadata.name
    return ""


@guarded(lambda *_: None)  # which is no reason to take away what runs: see Translator
def running(view: View, namespace: str, name: str) -> Running | None:
    """What must run for a Gateway of ours."""
    info, found = view.call(gateway, namespace, name), view.get(Gateway, namespace, name)
    if info is None or found is None or _namesake(view, found):
        return None
    asked = parameters.of(view, found)
    opened = {("UDP" if one.protocol == "UDP" else "TCP", one.port) for one in info.listeners if one.is_accepted}
    return Running(found, tuple(sorted(opened)), parameters.DEFAULTS if isinstance(asked, str) else asked)


@guarded(lambda *_: None)
def class_status(view: View, name: str) -> ClassStatus | None:
    """What to say of a GatewayClass of ours."""
    found = view.get(GatewayClass, "", name)
    if found is None or found.spec.controller_name != CONTROLLER:
        return None
    accepted = conditions.class_accepted(name)
    asked = parameters.of_class(view, name)
    if isinstance(asked, str):
        accepted = conditions.class_parameters(asked)
    installed = view.note("setting", "bundle version") or BUNDLE
    version = conditions.supported_version(BUNDLE)
    if installed.rpartition(".")[0] != BUNDLE.rpartition(".")[0]:
        version = conditions.unsupported_version(installed, BUNDLE)
    return ClassStatus(found.metadata.generation, (accepted, version), FEATURES)


class _Said(NamedTuple):
    """What is known of a Gateway in force."""

    report: Report
    attached: dict[str, int]
    problems: dict[str, str]
    addresses: tuple[GatewayAddress, ...]
    accepted: Condition
    programmed: Condition


def _said(view: View, found: Gateway, info: GatewayInfo) -> _Said:
    where = (found.metadata.namespace, found.metadata.name)
    report = view.note("report", *where) or Report()
    problems = dict(report.problems)
    addresses = _addresses(view, found)
    accepted = info.refused or _accepted(info.of(found.ref))
    fault = client_limits.of(found).fault
    if fault and accepted.is_true:
        accepted = conditions.with_fault(accepted, fault)
    programmed = _programmed(found, accepted, report, addresses)
    return _Said(report, view.note("attached", *where) or {}, problems, addresses, accepted, programmed)


@guarded(lambda *_: None)
def gateway_status(view: View, namespace: str, name: str) -> GatewayStatus | None:
    """What to say of a Gateway of ours."""
    info = view.call(gateway, namespace, name)
    found = view.get(Gateway, namespace, name)
    if info is None or found is None:
        return None
    said = _said(view, found, info)
    # A set counts when it is accepted: one of its listeners is valid.
    attached = sum(any(one.is_valid for one in info.of(ref)) for ref in info.sets) if info.refused is None else 0
    return GatewayStatus(
        found.metadata.generation,
        said.addresses,
        (said.accepted, said.programmed, *_more(found, info)),
        tuple(_listener_status(one, said, info) for one in info.of(found.ref)),
        attached,
    )


def _more(found: Gateway, info: GatewayInfo) -> Iterator[Condition]:
    """Conditions that are there only where there is something to say."""
    if found.spec.default_scope == ALL:
        yield conditions.default_gateway(ALL)
    match info.client:
        case CertificateFault(kind, message):
            yield conditions.client_certificate(
                "RefNotPermitted" if kind == "grant" else "InvalidClientCertificateRef", message
            )
        case snapshot.Certificate():
            yield conditions.client_certificate("ResolvedRefs", "All references are resolved.")
    insecure = sorted(
        one.port for one in info.listeners
        if (one.protocol == "HTTPS" or (one.part is not None and one.part.clients is not None))
        and (v := ports.validation(found, one.port)) is not None and v.mode == "AllowInsecureFallback"
    )  # fmt: skip
    if insecure:
        yield conditions.insecure_validation(insecure)


@guarded(lambda *_: None)
def listener_set_status(view: View, namespace: str, name: str) -> ListenerSetStatus | None:
    """What to say of a ListenerSet whose Gateway is ours."""
    one = view.get(ListenerSet, namespace, name)
    if one is None or not ports.names_gateway(one):
        return None
    where = (one.spec.parent_ref.namespace or namespace, one.spec.parent_ref.name)
    info, found = view.call(gateway, *where), view.get(Gateway, *where)
    if info is None or found is None:
        return None
    if one.ref not in info.sets:
        return ListenerSetStatus(one.metadata.generation, conditions.listener_set_not_allowed(namespace, *where), ())
    said = _said(view, found, info)
    entries = tuple(_listener_status(listener, said, info) for listener in info.of(one.ref))
    if info.refused is not None:
        both = conditions.listener_set_refused(*where)
    else:
        bad = [listener.name for listener in info.of(one.ref) if not listener.is_valid]
        both = conditions.listener_set(bad, len(entries), said.programmed)
    return ListenerSetStatus(one.metadata.generation, both, entries)


def _accepted(own: tuple[ListenerInfo, ...]) -> Condition:
    # Accepted and Conflicted decide; a certificate that is missing leaves the listener accepted.
    bad = [one.name for one in own if not one.is_accepted]
    if not bad:
        return conditions.gateway_accepted()
    return conditions.some_listeners_not_valid(bad, all_of_them=len(bad) == len(own))


def _programmed(found: Gateway, accepted: Condition, report: Report, addresses: tuple[GatewayAddress, ...]) -> Condition:
    if not accepted.is_true:
        return conditions.not_programmed("Invalid", "The Gateway is not accepted.")
    wanted = {a.value for a in found.spec.addresses if a.value}
    got = {a.value for a in addresses}
    if addresses and wanted - got:
        return conditions.address_not_usable(sorted(wanted), sorted(got))
    asked = {a.routability for a in found.spec.addresses if a.routability}
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


def _listener_status(one: ListenerInfo, known: _Said, info: GatewayInfo) -> ListenerStatus:
    said = list(one.conditions)
    problem = known.problems.get(one.key)
    if not one.is_valid or info.refused is not None:
        reason = one.conditions[0].reason if not one.is_accepted and one.owner.kind == "ListenerSet" else "Invalid"
        said.append(conditions.not_programmed(reason, "The listener is not valid."))
    elif problem:
        unavailable = conditions.port_unavailable(f"The data plane cannot serve it: {problem}.")
        said[0] = conditions.at(unavailable, "spec", "listeners", one.place, "port")
        said.append(conditions.not_programmed("Invalid", f"The data plane cannot serve it: {problem}."))
    elif known.report.programmed:
        said.append(conditions.programmed("Listener is programmed."))
    else:
        said.append(conditions.not_programmed("Pending", "No data plane has acknowledged it yet."))
    return ListenerStatus(one.name, one.kinds, known.attached.get(one.key, 0), tuple(said))


def _asks_for_routability(found: Gateway) -> bool:
    return any(address.routability for address in found.spec.addresses)


def is_internal(found: Gateway) -> bool:
    """Whether a Gateway wants to be reached from its cluster only (GEP-5093)."""
    return any(address.routability == CLUSTER for address in found.spec.addresses)


def _addresses(view: View, found: Gateway) -> tuple[GatewayAddress, ...]:
    """Those of the Gateway's Service; standalone, where we listen."""
    fixed: tuple[str, ...] = view.note("setting", "addresses")
    if fixed:
        return tuple(GatewayAddress("IPAddress", address) for address in fixed)
    result = []
    for ref in view.index("services of gateway", found.metadata.namespace, found.metadata.name):
        service = view.get(Service, ref.namespace, ref.name)
        if is_internal(found):
            if service is not None and service.spec.cluster_ip not in ("", "None"):
                result.append(GatewayAddress("IPAddress", service.spec.cluster_ip, CLUSTER))
            continue
        for ingress in service.status.load_balancer.ingress if service else ():
            if ingress.ip and _is_address(ingress.ip):
                kind = PRIVATE if ip_address(ingress.ip).is_private else PUBLIC
                result.append(GatewayAddress("IPAddress", ingress.ip, kind if _asks_for_routability(found) else ""))
            elif ingress.hostname:
                result.append(GatewayAddress("Hostname", ingress.hostname))
    return tuple(result)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
