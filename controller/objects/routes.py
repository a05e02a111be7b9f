"""The five kinds of routes, with the defaults of the Gateway API v1.7.0."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec

from controller.objects.base import Object, Struct
from controller.objects.references import ObjectReference, ParametersRef, ParentRef


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
    use_default_gateways: str = ""
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
    use_default_gateways: str = ""
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
    use_default_gateways: str = ""
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
ROUTES: Final[dict[str, type[AnyRoute]]] = {
    type_.__name__: type_ for type_ in (HTTPRoute, GRPCRoute, TLSRoute, TCPRoute, UDPRoute)
}
