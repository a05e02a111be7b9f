"""Every kind that is read: one row each. What an object is found by, and which Secrets it names, its type says itself."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from controller.objects import core, filters
from controller.objects.backends import BackendTLSPolicy, XBackend, XBackendTrafficPolicy
from controller.objects.base import EXTENSION_GROUP, GATEWAY_GROUP, POLICY_GROUP, X_GROUP, Object
from controller.objects.gateways import Gateway, GatewayClass, ListenerSet, XTelemetryPolicy
from controller.objects.policies import POLICIES
from controller.objects.policies.base import Policy
from controller.objects.references import ReferenceGrant
from controller.objects.routes import AnyRoute, GRPCRoute, HTTPRoute, TCPRoute, TLSRoute, UDPRoute

AnyObject: TypeAlias = (
    GatewayClass | Gateway | ListenerSet | AnyRoute | ReferenceGrant | BackendTLSPolicy | XBackend | XBackendTrafficPolicy
    | XTelemetryPolicy | core.Service | core.EndpointSlice | core.Secret | core.ConfigMap | core.Namespace
    | core.ClusterTrustBundle | filters.Filter | filters.FilterDefinition | filters.NamespacedFilterDefinition
    | filters.FilterConfig | filters.ListenerFilter | filters.RouteRuleFilterPolicy | Policy | filters.Settings
)  # fmt: skip
# Of Secrets only certificates are followed, and those that something names.
CERTIFICATES: Final = MappingProxyType({"fieldSelector": "type=kubernetes.io/tls"})


class Kind(NamedTuple):
    """How an object's kind is spelled on the wire (the first version is the preferred one), and how it is followed."""

    type: type[Any]
    group: str
    versions: tuple[str, ...]
    plural: str
    namespaced: bool = True
    has_status: bool = False  # that we write
    guards: bool = False  # where one cannot be done, what it guards stays shut
    query: Mapping[str, str] = MappingProxyType({})  # which of its objects are followed

    @property
    def name(self) -> str:
        """As `kind` has it."""
        return self.type.__name__

    @property
    def names_secrets(self) -> bool:
        """Whether its objects may name Secrets that are followed for them alone."""
        return self.type.secret_names is not Object.secret_names

    @property
    def api_versions(self) -> list[str]:
        """As `apiVersion` has them."""
        return [f"{self.group}/{version}" if self.group else version for version in self.versions]


def _gateway_api(type_: type[Any], plural: str, *older: str, **more: Any) -> Kind:
    return Kind(type_, GATEWAY_GROUP, ("v1", *older), plural, **more)


def _extension(type_: type[Any], plural: str, **more: Any) -> Kind:
    return Kind(type_, EXTENSION_GROUP, ("v1alpha1",), plural, **more)


KINDS: Final = {
    kind.name: kind
    for kind in (
        _gateway_api(GatewayClass, "gatewayclasses", "v1beta1", namespaced=False, has_status=True),
        _gateway_api(Gateway, "gateways", "v1beta1", has_status=True),
        _gateway_api(ListenerSet, "listenersets", has_status=True),
        _gateway_api(HTTPRoute, "httproutes", "v1beta1", has_status=True),
        _gateway_api(GRPCRoute, "grpcroutes", has_status=True),
        _gateway_api(TLSRoute, "tlsroutes", has_status=True),
        _gateway_api(TCPRoute, "tcproutes", has_status=True),
        _gateway_api(UDPRoute, "udproutes", has_status=True),
        _gateway_api(BackendTLSPolicy, "backendtlspolicies", has_status=True, guards=True),
        _gateway_api(ReferenceGrant, "referencegrants", "v1beta1"),
        Kind(XBackend, X_GROUP, ("v1alpha1",), "xbackends", has_status=True),
        Kind(XBackendTrafficPolicy, X_GROUP, ("v1alpha1",), "xbackendtrafficpolicies", has_status=True),
        Kind(XTelemetryPolicy, X_GROUP, ("v1alpha1",), "xtelemetrypolicies", has_status=True),
        _extension(filters.Filter, "filters", has_status=True),
        _extension(filters.FilterDefinition, "filterdefinitions", namespaced=False),
        _extension(filters.NamespacedFilterDefinition, "namespacedfilterdefinitions"),
        _extension(filters.FilterConfig, "filterconfigs"),
        _extension(filters.RequestTermination, "requestterminations"),
        _extension(filters.FaultInjection, "faultinjections"),
        _extension(filters.RateLimit, "ratelimits"),
        _extension(filters.ExternalRateLimit, "externalratelimits"),
        _extension(filters.CircuitBreaker, "circuitbreakers"),
        _extension(filters.IPRestriction, "iprestrictions"),
        _extension(filters.ConcurrencyLimit, "concurrencylimits"),
        _extension(filters.HTTPLog, "httplogs"),
        _extension(filters.Metrics, "metrics"),
        _extension(filters.Zipkin, "zipkins"),
        _extension(filters.ProxyTag, "proxytags"),
        _extension(filters.DNSModifier, "dnsmodifiers"),
        _extension(filters.ListenerFilter, "listenerfilters", has_status=True, guards=True),
        *(
            Kind(policy.type, POLICY_GROUP, policy.versions, policy.plural, has_status=True, guards=policy.guards)
            for policy in POLICIES.values()
        ),
        Kind(
            filters.RouteRuleFilterPolicy, POLICY_GROUP, ("v1alpha2",), "routerulefilterpolicies", has_status=True, guards=True
        ),
        Kind(core.Service, "", ("v1",), "services"),
        Kind(core.EndpointSlice, "discovery.k8s.io", ("v1",), "endpointslices"),
        Kind(core.Secret, "", ("v1",), "secrets", query=CERTIFICATES),
        Kind(core.ConfigMap, "", ("v1",), "configmaps"),
        Kind(core.Namespace, "", ("v1",), "namespaces", namespaced=False),
        Kind(core.ClusterTrustBundle, "certificates.k8s.io", ("v1beta1",), "clustertrustbundles", namespaced=False),
    )
}
WITH_STATUS: Final = frozenset(kind.name for kind in KINDS.values() if kind.has_status)
SETTINGS: Final[dict[str, type[filters.Settings]]] = {
    kind.name: kind.type for kind in KINDS.values() if issubclass(kind.type, filters.Settings)
}
