"""GatewayClass, Gateway, ListenerSet and XTelemetryPolicy, with the defaults of the Gateway API v1.7.0."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from controller.objects.base import GATEWAY_GROUP, Key, Meta, Object, Struct
from controller.objects.naming import generated_name
from controller.objects.references import AuthorityRef, ObjectReference, ParametersRef, PolicyTarget, SecretRef
from controller.objects.routes import HTTPFilter
from controller.objects.selectors import Selector

# Scopes of default Gateways (GEP-3793); no scope is the same as "None".
ALL: Final = "All"
DEFAULT_SCOPES: Final = ("", "None", ALL)


class GatewayClassSpec(Struct, frozen=True):
    """GatewayClassSpec."""

    controller_name: str = ""
    parameters_ref: ParametersRef | None = None


class GatewayClass(Object, frozen=True):
    """gateway.networking.k8s.io GatewayClass."""

    spec: GatewayClassSpec = GatewayClassSpec()

    def index_keys(self) -> Iterator[Key]:
        yield "classes of controller", self.spec.controller_name


class ListenerTLS(Struct, frozen=True):
    """ListenerTLSConfig."""

    mode: str = "Terminate"
    certificate_refs: tuple[SecretRef, ...] = ()
    options: dict[str, str] = {}


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

    @property
    def generated_name(self) -> str:
        """The name of everything that is made for it."""
        return generated_name(self.metadata.name, self.spec.gateway_class_name)

    def index_keys(self) -> Iterator[Key]:
        yield "gateways of class", self.spec.gateway_class_name
        yield "gateways that run as", self.metadata.namespace, self.generated_name
        if self.spec.default_scope == ALL:
            yield ("default gateways",)


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

    def index_keys(self) -> Iterator[Key]:
        parent = self.spec.parent_ref
        yield "listener sets of", parent.namespace or self.metadata.namespace, parent.name


class TelemetryProvider(Struct, frozen=True):
    """TelemetryProvider: where spans go."""

    backend_ref: ObjectReference


class Tracing(Struct, frozen=True):
    """TracingPolicy; what is said of spans is not read as long as there are none."""

    mode: str = "ImplementationDefault"
    provider: TelemetryProvider | None = None


class XTelemetryPolicySpec(Struct, frozen=True):
    """TelemetryPolicySpec (GEP-4768)."""

    target_refs: tuple[PolicyTarget, ...] = ()
    tracing: Tracing | None = None


class XTelemetryPolicy(Object, frozen=True):
    """gateway.networking.x-k8s.io XTelemetryPolicy."""

    spec: XTelemetryPolicySpec = XTelemetryPolicySpec()

    def index_keys(self) -> Iterator[Key]:
        for target in self.spec.target_refs:
            yield "telemetry policies of", self.metadata.namespace, target.name
