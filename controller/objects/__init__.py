"""The Kubernetes objects that we read, typed, with the API's defaults; what we do not read is not kept.

Two objects that differ only in what is left out here (resourceVersion, managedFields, status, annotations) are
equal, so equality says whether a change matters. Field names and defaults are those of the Gateway API v1.7.0
and of Kubernetes' core/v1 and discovery.k8s.io/v1.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
POLICY_GROUP: Final = "gateway.flomesh.io"
EXTENSION_GROUP: Final = "extension.gateway.flomesh.io"
CONTROLLER: Final = "flomesh.io/gateway-controller"
OPTION: Final = "gateway.flomesh.io/"  # the prefix of options and annotations that we know
GATEWAY_CLASS: Final = "fsm-gateway-cls"


class Ref(NamedTuple):
    """What names an object. Versions do not: v1 and v1beta1 are two spellings of one object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


Port: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65535)]
# A field that no object can set: JSON that has it would be somebody's idea of a joke.
FAULT: Final = "(fault)"


class Struct(msgspec.Struct, frozen=True, rename="camel"):
    """A frozen value with Kubernetes' spelling of its fields."""


class Meta(Struct, frozen=True):
    """ObjectMeta."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = {}


class Object(Struct, frozen=True):
    """What every object has."""

    metadata: Meta = Meta()

    @property
    def ref(self) -> Ref:
        """What names this object."""
        return Ref(type(self).__name__, self.metadata.namespace, self.metadata.name)


# --- selectors --------------------------------------------------------------------------------------------


class Requirement(Struct, frozen=True):
    """LabelSelectorRequirement."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] = ()


class Selector(Struct, frozen=True):
    """LabelSelector; an empty one selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether an object with these labels is selected."""
        return all(labels.get(k) == v for k, v in self.match_labels.items()) and all(
            _requirement_holds(requirement, labels) for requirement in self.match_expressions
        )


def _requirement_holds(requirement: Requirement, labels: dict[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return False


# --- Gateway API ------------------------------------------------------------------------------------------


class ParametersRef(Struct, frozen=True):
    """LocalParametersReference and ParametersReference."""

    group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""


class GatewayClassSpec(Struct, frozen=True):
    """GatewayClassSpec."""

    controller_name: str = ""
    parameters_ref: ParametersRef | None = None


class GatewayClass(Object, frozen=True):
    """gateway.networking.k8s.io GatewayClass."""

    spec: GatewayClassSpec = GatewayClassSpec()


class SecretRef(Struct, frozen=True):
    """SecretObjectReference."""

    name: str
    group: str = ""
    kind: str = "Secret"
    namespace: str = ""


class ListenerTLS(Struct, frozen=True):
    """ListenerTLSConfig."""

    mode: str = "Terminate"
    certificate_refs: tuple[SecretRef, ...] = ()
    options: dict[str, str] = {}


class AuthorityRef(Struct, frozen=True):
    """ObjectReference and LocalObjectReference, to something that holds certificates of authorities."""

    name: str
    group: str = ""
    kind: str = "ConfigMap"
    namespace: str = ""


class ClientValidation(Struct, frozen=True):
    """FrontendTLSValidation."""

    ca_certificate_refs: tuple[AuthorityRef, ...] = ()
    mode: str = "AllowValidOnly"


class FrontendTLS(Struct, frozen=True):
    """TLSConfig of a Gateway's front."""

    validation: ClientValidation | None = None


class PortTLS(Struct, frozen=True):
    """TLSPortConfig."""

    port: int
    tls: FrontendTLS = FrontendTLS()


class GatewayFrontend(Struct, frozen=True):
    """FrontendTLSConfig."""

    default: FrontendTLS = FrontendTLS()
    per_port: tuple[PortTLS, ...] = ()


class GatewayBackend(Struct, frozen=True):
    """GatewayBackendTLS."""

    client_certificate_ref: SecretRef | None = None


class GatewayTLS(Struct, frozen=True):
    """GatewayTLSConfig."""

    frontend: GatewayFrontend = GatewayFrontend()
    backend: GatewayBackend = GatewayBackend()


class RouteNamespaces(Struct, frozen=True):
    """RouteNamespaces."""

    from_: str = msgspec.field(default="Same", name="from")
    selector: Selector | None = None


class RouteKind(Struct, frozen=True):
    """RouteGroupKind."""

    kind: str
    group: str = GATEWAY_GROUP


class AllowedListeners(Struct, frozen=True):
    """AllowedListeners; None unless said otherwise."""

    namespaces: RouteNamespaces = RouteNamespaces("None")


class AllowedRoutes(Struct, frozen=True):
    """AllowedRoutes."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteKind, ...] = ()


class ListenerFilters(Struct, frozen=True):
    """ListenerFilters: what happens to a request before it is matched."""

    requests: tuple[HTTPFilter, ...] = ()


class GatewayListener(Struct, frozen=True):
    """Listener of a Gateway."""

    name: str
    port: int
    protocol: str
    hostname: str = ""
    tls: ListenerTLS | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()
    filters: ListenerFilters | None = None


class Infrastructure(Struct, frozen=True):
    """GatewayInfrastructure."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    parameters_ref: ParametersRef | None = None


class GatewayAddress(Struct, frozen=True):
    """GatewaySpecAddress."""

    type: str = "IPAddress"
    value: str = ""
    routability: str = ""


class GatewaySpec(Struct, frozen=True):
    """GatewaySpec."""

    gateway_class_name: str = ""
    listeners: tuple[GatewayListener, ...] = ()
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: Infrastructure = Infrastructure()
    allowed_listeners: AllowedListeners = AllowedListeners()
    tls: GatewayTLS = GatewayTLS()
    default_scope: str = ""


class GatewayMeta(Meta, frozen=True):
    """ObjectMeta with annotations, which nobody reads of other kinds."""

    annotations: dict[str, str] = {}


class Gateway(Object, frozen=True):
    """gateway.networking.k8s.io Gateway."""

    metadata: GatewayMeta = GatewayMeta()
    spec: GatewaySpec = GatewaySpec()


class ListenerSetParent(Struct, frozen=True):
    """ParentGatewayReference."""

    name: str
    group: str = GATEWAY_GROUP
    kind: str = "Gateway"
    namespace: str = ""


class ListenerSetSpec(Struct, frozen=True):
    """ListenerSetSpec."""

    parent_ref: ListenerSetParent
    listeners: tuple[GatewayListener, ...] = ()


class ListenerSet(Object, frozen=True):
    """gateway.networking.k8s.io ListenerSet."""

    spec: ListenerSetSpec = ListenerSetSpec(ListenerSetParent(""))


class ParentRef(Struct, frozen=True, omit_defaults=True):
    """ParentReference. Group and kind are always written, as the API server defaults them."""

    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    section_name: str | None = None
    port: int | None = None


class PathMatch(Struct, frozen=True):
    """HTTPPathMatch."""

    type: str = "PathPrefix"
    value: str = "/"


class ValueMatch(Struct, frozen=True):
    """HTTPHeaderMatch and HTTPQueryParamMatch."""

    name: str
    value: str
    type: str = "Exact"


class HTTPMatch(Struct, frozen=True):
    """HTTPRouteMatch."""

    path: PathMatch = PathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()
    method: str = ""


class NameValue(Struct, frozen=True):
    """HTTPHeader."""

    name: str
    value: str


class HeaderFilter(Struct, frozen=True):
    """HTTPHeaderFilter."""

    set: tuple[NameValue, ...] = ()
    add: tuple[NameValue, ...] = ()
    remove: tuple[str, ...] = ()


class PathModifier(Struct, frozen=True):
    """HTTPPathModifier."""

    type: str
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class RedirectFilter(Struct, frozen=True):
    """HTTPRequestRedirectFilter."""

    scheme: str = ""
    hostname: str = ""
    path: PathModifier | None = None
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    status_code: int = 302


class RewriteFilter(Struct, frozen=True):
    """HTTPURLRewriteFilter."""

    hostname: str = ""
    path: PathModifier | None = None


class ObjectReference(Struct, frozen=True):
    """BackendObjectReference."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str = ""
    port: int | None = None


class Fraction(Struct, frozen=True):
    """Fraction."""

    numerator: Annotated[int, msgspec.Meta(ge=0)]
    denominator: Annotated[int, msgspec.Meta(ge=1)] = 100


class MirrorFilter(Struct, frozen=True):
    """HTTPRequestMirrorFilter."""

    backend_ref: ObjectReference
    percent: int | None = None
    fraction: Fraction | None = None


class CORSFilter(Struct, frozen=True):
    """HTTPCORSFilter."""

    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool = False
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int = 5


class HTTPAuth(Struct, frozen=True):
    """HTTPAuthConfig."""

    path: str = ""
    allowed_headers: tuple[str, ...] = ()
    allowed_response_headers: tuple[str, ...] = ()


class GRPCAuth(Struct, frozen=True):
    """GRPCAuthConfig."""

    allowed_headers: tuple[str, ...] = ()


class ForwardBody(Struct, frozen=True):
    """ForwardBodyConfig."""

    max_size: int = 0


class ExternalAuthFilter(Struct, frozen=True):
    """HTTPExternalAuthFilter."""

    protocol: str
    backend_ref: ObjectReference
    http: HTTPAuth = HTTPAuth()
    grpc: GRPCAuth = GRPCAuth()
    forward_body: ForwardBody | None = None


class HTTPFilter(Struct, frozen=True):
    """HTTPRouteFilter and GRPCRouteFilter."""

    type: str
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    request_redirect: RedirectFilter | None = None
    url_rewrite: RewriteFilter | None = msgspec.field(default=None, name="urlRewrite")
    cors: CORSFilter | None = None
    external_auth: ExternalAuthFilter | None = None
    extension_ref: ParametersRef | None = None


class BackendRef(Struct, frozen=True):
    """HTTPBackendRef."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str = ""
    port: int | None = None
    weight: int = 1
    filters: tuple[HTTPFilter, ...] = ()


class Timeouts(Struct, frozen=True):
    """HTTPRouteTimeouts; Durations as text (GEP-2257)."""

    request: str = ""
    backend_request: str = ""


class Retry(Struct, frozen=True):
    """HTTPRouteRetry."""

    codes: tuple[int, ...] = ()
    attempts: int = 1
    backoff: str = ""


class CookiePersistence(Struct, frozen=True):
    """CookieConfig."""

    name: str = ""
    path: str = "/"
    lifetime_type: str = "Session"


class HeaderPersistence(Struct, frozen=True):
    """HeaderConfig."""

    name: str = ""


class SessionPersistence(Struct, frozen=True):
    """SessionPersistence (GEP-1619)."""

    type: str = "Cookie"
    absolute_timeout: str = ""
    cookie: CookiePersistence = CookiePersistence()
    header: HeaderPersistence | None = None


class HTTPRule(Struct, frozen=True):
    """HTTPRouteRule."""

    name: str = ""
    matches: tuple[HTTPMatch, ...] = (HTTPMatch(),)
    filters: tuple[HTTPFilter, ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()
    timeouts: Timeouts = Timeouts()
    retry: Retry | None = None
    session_persistence: SessionPersistence | None = None


class HTTPRouteSpec(Struct, frozen=True):
    """HTTPRouteSpec."""

    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[HTTPRule, ...] = (HTTPRule(),)


class HTTPRoute(Object, frozen=True):
    """gateway.networking.k8s.io HTTPRoute."""

    spec: HTTPRouteSpec = HTTPRouteSpec()


class GRPCMethod(Struct, frozen=True):
    """GRPCMethodMatch."""

    type: str = "Exact"
    service: str = ""
    method: str = ""


class GRPCMatch(Struct, frozen=True):
    """GRPCRouteMatch."""

    method: GRPCMethod = GRPCMethod()
    headers: tuple[ValueMatch, ...] = ()


class GRPCRule(Struct, frozen=True):
    """GRPCRouteRule."""

    name: str = ""
    matches: tuple[GRPCMatch, ...] = ()
    filters: tuple[HTTPFilter, ...] = ()
    backend_refs: tuple[BackendRef, ...] = ()
    session_persistence: SessionPersistence | None = None


class GRPCRouteSpec(Struct, frozen=True):
    """GRPCRouteSpec."""

    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[GRPCRule, ...] = (GRPCRule(),)


class GRPCRoute(Object, frozen=True):
    """gateway.networking.k8s.io GRPCRoute."""

    spec: GRPCRouteSpec = GRPCRouteSpec()


class StreamRule(Struct, frozen=True):
    """TLSRouteRule, TCPRouteRule and UDPRouteRule."""

    name: str = ""
    backend_refs: tuple[BackendRef, ...] = ()


class StreamRouteSpec(Struct, frozen=True):
    """TLSRouteSpec, TCPRouteSpec and UDPRouteSpec."""

    parent_refs: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[StreamRule, ...] = ()


class TLSRoute(Object, frozen=True):
    """gateway.networking.k8s.io TLSRoute."""

    spec: StreamRouteSpec = StreamRouteSpec()


class TCPRoute(Object, frozen=True):
    """gateway.networking.k8s.io TCPRoute."""

    spec: StreamRouteSpec = StreamRouteSpec()


class UDPRoute(Object, frozen=True):
    """gateway.networking.k8s.io UDPRoute."""

    spec: StreamRouteSpec = StreamRouteSpec()


AnyRoute: TypeAlias = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute
ROUTES: Final = ("HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute")


class PolicyTarget(Struct, frozen=True):
    """LocalPolicyTargetReferenceWithSectionName."""

    group: str
    kind: str
    name: str
    section_name: str = ""


class AltName(Struct, frozen=True):
    """SubjectAltName."""

    type: str
    hostname: str = ""
    uri: str = ""


class BackendValidation(Struct, frozen=True):
    """BackendTLSPolicyValidation."""

    hostname: str = ""
    ca_certificate_refs: tuple[AuthorityRef, ...] = ()
    well_known_ca_certificates: str = msgspec.field(default="", name="wellKnownCACertificates")
    subject_alt_names: tuple[AltName, ...] = ()


class BackendTLSPolicySpec(Struct, frozen=True):
    """BackendTLSPolicySpec."""

    target_refs: tuple[PolicyTarget, ...] = ()
    validation: BackendValidation = BackendValidation()
    options: dict[str, str] = {}


class BackendTLSPolicy(Object, frozen=True):
    """gateway.networking.k8s.io BackendTLSPolicy."""

    spec: BackendTLSPolicySpec = BackendTLSPolicySpec()
    fault: str = msgspec.field(default="", name=FAULT)  # what of it cannot be read


class GrantFrom(Struct, frozen=True):
    """ReferenceGrantFrom."""

    group: str
    kind: str
    namespace: str


class GrantTo(Struct, frozen=True):
    """ReferenceGrantTo."""

    group: str
    kind: str
    name: str = ""


class ReferenceGrantSpec(Struct, frozen=True):
    """ReferenceGrantSpec."""

    from_: tuple[GrantFrom, ...] = msgspec.field(default=(), name="from")
    to: tuple[GrantTo, ...] = ()


class ReferenceGrant(Object, frozen=True):
    """gateway.networking.k8s.io ReferenceGrant."""

    spec: ReferenceGrantSpec = ReferenceGrantSpec()


class ExternalHostname(Struct, frozen=True):
    """The host that an XBackend stands for."""

    hostname: str = ""


class XBackendPort(Struct, frozen=True):
    """The port of an XBackend."""

    number: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0


class XBackendSpec(Struct, frozen=True):
    """XBackendSpec, of which backends by hostname are understood."""

    type: str = ""
    port: XBackendPort = XBackendPort()
    external_hostname: ExternalHostname = ExternalHostname()
    protocol: str = ""


class XBackend(Object, frozen=True):
    """gateway.networking.x-k8s.io XBackend."""

    spec: XBackendSpec = XBackendSpec()


# --- filters of our own -----------------------------------------------------------------------------------


class ExtensionRef(Struct, frozen=True):
    """A reference to one of our own kinds, in the same namespace unless the kind has none."""

    name: str
    group: str = EXTENSION_GROUP
    kind: str = ""


class SecretKey(Struct, frozen=True):
    """A key of a Secret in the same namespace."""

    name: str
    key: str


class SecretUse(Struct, frozen=True):
    """A secret, and the name by which a filter knows it."""

    name: str
    secret_ref: SecretKey


class StoreSpec(Struct, frozen=True):
    """A Redis or Valkey that all replicas share."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Port = 6379
    database: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 0
    username: str = ""
    password_ref: SecretKey | None = None
    tls: bool = False
    timeout: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")] = "200ms"


class FilterSpec(Struct, frozen=True):
    """What a filter is, and what it is given."""

    type: str = ""
    definition_ref: ExtensionRef | None = None
    config_ref: ExtensionRef | None = None
    secrets: tuple[SecretUse, ...] = ()
    store: StoreSpec | None = None


class Filter(Object, frozen=True):
    """extension.gateway.flomesh.io Filter: what an ExtensionRef of a route names."""

    spec: FilterSpec = FilterSpec()


class ListenerTarget(Struct, frozen=True):
    """A Gateway's port; all of its ports where none is given."""

    name: str
    group: str = GATEWAY_GROUP
    kind: str = "Gateway"
    port: Port | None = None


class ListenerFilterSpec(FilterSpec, frozen=True):
    """A filter for whole listeners."""

    priority: int = 100
    aspect: str = "Listener"
    target_refs: tuple[ListenerTarget, ...] = ()


class ListenerFilter(Object, frozen=True):
    """extension.gateway.flomesh.io ListenerFilter: for the connections of a Gateway, or all of its requests."""

    spec: ListenerFilterSpec = ListenerFilterSpec()
    fault: str = msgspec.field(default="", name=FAULT)  # what of it cannot be read


class RuleTarget(Struct, frozen=True):
    """A rule of a TCPRoute or UDPRoute, by its name; all of its rules where none is given."""

    kind: str
    name: str
    group: str = GATEWAY_GROUP
    rule: str = ""


class RuleFilterRef(Struct, frozen=True):
    """A Filter; those of low priority come first."""

    name: str
    group: str = EXTENSION_GROUP
    kind: str = "Filter"
    priority: int = 100


class RouteRuleFilterPolicySpec(Struct, frozen=True):
    """Filters for rules that have no place for them."""

    target_refs: tuple[RuleTarget, ...] = ()
    filter_refs: tuple[RuleFilterRef, ...] = ()


class RouteRuleFilterPolicy(Object, frozen=True):
    """gateway.flomesh.io RouteRuleFilterPolicy."""

    spec: RouteRuleFilterPolicySpec = RouteRuleFilterPolicySpec()
    fault: str = msgspec.field(default="", name=FAULT)  # what of it cannot be read


class Policy(Object, frozen=True):
    """A policy of gateway.flomesh.io/v1alpha1: a target, and what is said of it, of its parts, by name."""

    spec: Any = None  # as it is stored; `controller/objects/policies.py` reads it
    fault: str = msgspec.field(default="", name=FAULT)  # why it is not to be believed, but for what it is for

    @property
    def targets(self) -> tuple[Ref, ...]:
        """What it is for, as far as that can be read and is in its own namespace: of others it has nothing to say."""
        spec = self.spec if isinstance(self.spec, dict) else {}
        given = spec.get("targetRefs") or [spec.get("targetRef")]
        own = self.metadata.namespace
        return tuple(
            Ref(one["kind"], own, one["name"])
            for one in (given if isinstance(given, list) else ())
            if isinstance(one, dict) and one.get("namespace") in (None, "", own)
            and isinstance(one.get("kind"), str) and isinstance(one.get("name"), str)
        )  # fmt: skip


class RateLimitPolicy(Policy, frozen=True):
    """gateway.flomesh.io RateLimitPolicy."""


class AccessControlPolicy(Policy, frozen=True):
    """gateway.flomesh.io AccessControlPolicy."""


class CircuitBreakingPolicy(Policy, frozen=True):
    """gateway.flomesh.io CircuitBreakingPolicy."""


class RetryPolicy(Policy, frozen=True):
    """gateway.flomesh.io RetryPolicy."""


class SessionStickyPolicy(Policy, frozen=True):
    """gateway.flomesh.io SessionStickyPolicy."""


class LoadBalancerPolicy(Policy, frozen=True):
    """gateway.flomesh.io LoadBalancerPolicy."""


class BackendLBPolicy(Policy, frozen=True):
    """gateway.flomesh.io BackendLBPolicy."""


class HealthCheckPolicy(Policy, frozen=True):
    """gateway.flomesh.io HealthCheckPolicy, as both versions spell it."""


class GatewayTLSPolicy(Policy, frozen=True):
    """gateway.flomesh.io GatewayTLSPolicy."""


class UpstreamTLSPolicy(Policy, frozen=True):
    """gateway.flomesh.io UpstreamTLSPolicy."""


class FaultInjectionPolicy(Policy, frozen=True):
    """gateway.flomesh.io FaultInjectionPolicy."""


# Kinds that guard something: where one cannot be done, what it guards stays shut.
GUARDING: Final = frozenset((
    "AccessControlPolicy", "RateLimitPolicy", "GatewayTLSPolicy", "UpstreamTLSPolicy", "BackendTLSPolicy", "ListenerFilter",
    "RouteRuleFilterPolicy",
))  # fmt: skip


class SourceRef(Struct, frozen=True):
    """A key of a ConfigMap that holds a source."""

    name: str
    key: str
    namespace: str = ""


class FilterDefinitionSpec(Struct, frozen=True):
    """A filter's source and how it runs."""

    type: str = ""
    script: str = ""
    config_map_ref: SourceRef | None = None
    parameters: dict[str, Any] | None = None
    execution: str = ""
    failure_policy: str = "Closed"
    timeout: str = "1s"
    memory: str = "256Mi"
    network: tuple[str, ...] = ()


class FilterDefinition(Object, frozen=True):
    """extension.gateway.flomesh.io FilterDefinition, for every namespace."""

    spec: FilterDefinitionSpec = FilterDefinitionSpec()


class NamespacedFilterDefinition(Object, frozen=True):
    """extension.gateway.flomesh.io NamespacedFilterDefinition, for its own namespace."""

    spec: FilterDefinitionSpec = FilterDefinitionSpec()


class FilterConfigSpec(Struct, frozen=True):
    """YAML."""

    config: str = ""


class FilterConfig(Object, frozen=True):
    """extension.gateway.flomesh.io FilterConfig."""

    spec: FilterConfigSpec = FilterConfigSpec()


class Settings(Object, frozen=True):
    """One of our own kinds whose spec is, as it stands, what its filter is configured with."""

    spec: Any = None


class RequestTermination(Settings, frozen=True):
    """extension.gateway.flomesh.io RequestTermination."""


class FaultInjection(Settings, frozen=True):
    """extension.gateway.flomesh.io FaultInjection."""


class RateLimit(Settings, frozen=True):
    """extension.gateway.flomesh.io RateLimit."""


class ExternalRateLimit(Settings, frozen=True):
    """extension.gateway.flomesh.io ExternalRateLimit."""


class CircuitBreaker(Settings, frozen=True):
    """extension.gateway.flomesh.io CircuitBreaker."""


class IPRestriction(Settings, frozen=True):
    """extension.gateway.flomesh.io IPRestriction."""


class ConcurrencyLimit(Settings, frozen=True):
    """extension.gateway.flomesh.io ConcurrencyLimit."""


class HTTPLog(Settings, frozen=True):
    """extension.gateway.flomesh.io HTTPLog."""


class Metrics(Settings, frozen=True):
    """extension.gateway.flomesh.io Metrics."""


class Zipkin(Settings, frozen=True):
    """extension.gateway.flomesh.io Zipkin."""


class ProxyTag(Settings, frozen=True):
    """extension.gateway.flomesh.io ProxyTag."""


class DNSModifier(Settings, frozen=True):
    """extension.gateway.flomesh.io DNSModifier."""


# --- core -------------------------------------------------------------------------------------------------


class ServicePort(Struct, frozen=True):
    """ServicePort."""

    port: Port
    name: str = ""
    protocol: str = "TCP"
    target_port: int | str = 0
    app_protocol: str = ""


class ServiceSpec(Struct, frozen=True):
    """ServiceSpec."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}
    external_name: str = ""


class Ingress(Struct, frozen=True):
    """LoadBalancerIngress."""

    ip: str = ""
    hostname: str = ""


class LoadBalancer(Struct, frozen=True):
    """LoadBalancerStatus."""

    ingress: tuple[Ingress, ...] = ()


class ServiceStatus(Struct, frozen=True):
    """ServiceStatus."""

    load_balancer: LoadBalancer = LoadBalancer()


class Service(Object, frozen=True):
    """core/v1 Service. Its status matters: the addresses of a Gateway's own Service are the Gateway's."""

    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class SliceConditions(Struct, frozen=True):
    """EndpointConditions; unknown ready counts as ready, unknown serving as ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetRef(Struct, frozen=True):
    """The pod behind an endpoint."""

    kind: str = ""
    name: str = ""


class SliceEndpoint(Struct, frozen=True):
    """Endpoint of an EndpointSlice."""

    addresses: tuple[str, ...] = ()
    conditions: SliceConditions = SliceConditions()
    target_ref: TargetRef | None = None


class SlicePort(Struct, frozen=True):
    """EndpointPort."""

    name: str | None = ""
    port: Port | None = None
    protocol: str | None = "TCP"


class EndpointSlice(Object, frozen=True):
    """discovery.k8s.io/v1 EndpointSlice."""

    address_type: str = "IPv4"
    endpoints: tuple[SliceEndpoint, ...] | None = ()
    ports: tuple[SlicePort, ...] | None = ()

    @property
    def service(self) -> str:
        """The Service that it belongs to."""
        return self.metadata.labels.get("kubernetes.io/service-name", "")


class Secret(Object, frozen=True):
    """core/v1 Secret. Values stay base64, and never appear in a repr."""

    type: str = "Opaque"
    data: dict[str, str] | None = None
    string_data: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"Secret({self.metadata.namespace}/{self.metadata.name})"


class ConfigMap(Object, frozen=True):
    """core/v1 ConfigMap."""

    data: dict[str, str] | None = None


class Namespace(Object, frozen=True):
    """core/v1 Namespace."""


class TrustBundleSpec(Struct, frozen=True):
    """ClusterTrustBundleSpec."""

    trust_bundle: str = ""


class ClusterTrustBundle(Object, frozen=True):
    """certificates.k8s.io ClusterTrustBundle."""

    spec: TrustBundleSpec = TrustBundleSpec()


AnyObject: TypeAlias = (
    GatewayClass | Gateway | ListenerSet | AnyRoute | ReferenceGrant | BackendTLSPolicy | XBackend | Service | EndpointSlice
    | Secret | ConfigMap | Namespace | ClusterTrustBundle | Filter | FilterDefinition | NamespacedFilterDefinition
    | FilterConfig | ListenerFilter | RouteRuleFilterPolicy | Policy | Settings
)  # fmt: skip


class Kind(NamedTuple):
    """How an object's kind is spelled on the wire; the first version is the preferred one."""

    type: type[Any]
    group: str
    versions: tuple[str, ...]
    plural: str
    namespaced: bool = True

    @property
    def api_versions(self) -> list[str]:
        """As `apiVersion` has them."""
        return [f"{self.group}/{version}" if self.group else version for version in self.versions]


KINDS: Final = {
    kind.type.__name__: kind
    for kind in (
        Kind(GatewayClass, GATEWAY_GROUP, ("v1", "v1beta1"), "gatewayclasses", namespaced=False),
        Kind(Gateway, GATEWAY_GROUP, ("v1", "v1beta1"), "gateways"),
        Kind(ListenerSet, GATEWAY_GROUP, ("v1",), "listenersets"),
        Kind(HTTPRoute, GATEWAY_GROUP, ("v1", "v1beta1"), "httproutes"),
        Kind(GRPCRoute, GATEWAY_GROUP, ("v1",), "grpcroutes"),
        Kind(TLSRoute, GATEWAY_GROUP, ("v1",), "tlsroutes"),
        Kind(TCPRoute, GATEWAY_GROUP, ("v1",), "tcproutes"),
        Kind(UDPRoute, GATEWAY_GROUP, ("v1",), "udproutes"),
        Kind(BackendTLSPolicy, GATEWAY_GROUP, ("v1",), "backendtlspolicies"),
        Kind(ReferenceGrant, GATEWAY_GROUP, ("v1", "v1beta1"), "referencegrants"),
        Kind(XBackend, "gateway.networking.x-k8s.io", ("v1alpha1",), "xbackends"),
        Kind(Filter, EXTENSION_GROUP, ("v1alpha1",), "filters"),
        Kind(FilterDefinition, EXTENSION_GROUP, ("v1alpha1",), "filterdefinitions", namespaced=False),
        Kind(NamespacedFilterDefinition, EXTENSION_GROUP, ("v1alpha1",), "namespacedfilterdefinitions"),
        Kind(FilterConfig, EXTENSION_GROUP, ("v1alpha1",), "filterconfigs"),
        Kind(RequestTermination, EXTENSION_GROUP, ("v1alpha1",), "requestterminations"),
        Kind(FaultInjection, EXTENSION_GROUP, ("v1alpha1",), "faultinjections"),
        Kind(RateLimit, EXTENSION_GROUP, ("v1alpha1",), "ratelimits"),
        Kind(ExternalRateLimit, EXTENSION_GROUP, ("v1alpha1",), "externalratelimits"),
        Kind(CircuitBreaker, EXTENSION_GROUP, ("v1alpha1",), "circuitbreakers"),
        Kind(IPRestriction, EXTENSION_GROUP, ("v1alpha1",), "iprestrictions"),
        Kind(ConcurrencyLimit, EXTENSION_GROUP, ("v1alpha1",), "concurrencylimits"),
        Kind(HTTPLog, EXTENSION_GROUP, ("v1alpha1",), "httplogs"),
        Kind(Metrics, EXTENSION_GROUP, ("v1alpha1",), "metrics"),
        Kind(Zipkin, EXTENSION_GROUP, ("v1alpha1",), "zipkins"),
        Kind(ProxyTag, EXTENSION_GROUP, ("v1alpha1",), "proxytags"),
        Kind(DNSModifier, EXTENSION_GROUP, ("v1alpha1",), "dnsmodifiers"),
        Kind(ListenerFilter, EXTENSION_GROUP, ("v1alpha1",), "listenerfilters"),
        Kind(RateLimitPolicy, POLICY_GROUP, ("v1alpha1",), "ratelimitpolicies"),
        Kind(AccessControlPolicy, POLICY_GROUP, ("v1alpha1",), "accesscontrolpolicies"),
        Kind(FaultInjectionPolicy, POLICY_GROUP, ("v1alpha1",), "faultinjectionpolicies"),
        Kind(CircuitBreakingPolicy, POLICY_GROUP, ("v1alpha1",), "circuitbreakingpolicies"),
        Kind(RetryPolicy, POLICY_GROUP, ("v1alpha1",), "retrypolicies"),
        Kind(SessionStickyPolicy, POLICY_GROUP, ("v1alpha1",), "sessionstickypolicies"),
        Kind(LoadBalancerPolicy, POLICY_GROUP, ("v1alpha1",), "loadbalancerpolicies"),
        Kind(BackendLBPolicy, POLICY_GROUP, ("v1alpha2",), "backendlbpolicies"),
        Kind(HealthCheckPolicy, POLICY_GROUP, ("v1alpha2", "v1alpha1"), "healthcheckpolicies"),
        Kind(GatewayTLSPolicy, POLICY_GROUP, ("v1alpha1",), "gatewaytlspolicies"),
        Kind(UpstreamTLSPolicy, POLICY_GROUP, ("v1alpha1",), "upstreamtlspolicies"),
        Kind(RouteRuleFilterPolicy, POLICY_GROUP, ("v1alpha2",), "routerulefilterpolicies"),
        Kind(Service, "", ("v1",), "services"),
        Kind(EndpointSlice, "discovery.k8s.io", ("v1",), "endpointslices"),
        Kind(Secret, "", ("v1",), "secrets"),
        Kind(ConfigMap, "", ("v1",), "configmaps"),
        Kind(Namespace, "", ("v1",), "namespaces", namespaced=False),
        Kind(ClusterTrustBundle, "certificates.k8s.io", ("v1beta1",), "clustertrustbundles", namespaced=False),
    )
}
