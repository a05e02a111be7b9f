"""Kinds of Kubernetes itself: core/v1, discovery.k8s.io/v1 and certificates.k8s.io."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from controller.objects.base import OPTION, Key, Meta, Object, Port, Struct

GATEWAY_NAME: Final = "gateway.networking.k8s.io/gateway-name"  # the label of what is made for a Gateway
# The label of what has an XBackend's endpoints. Kubernetes copies the labels of a Service to its EndpointSlices.
XBACKEND_NAME: Final = f"{OPTION}xbackend"


class OwnerReference(Struct, frozen=True):
    """OwnerReference."""

    kind: str = ""
    uid: str = ""


class OwnedMeta(Meta, frozen=True):
    """ObjectMeta of what may have been made for another object."""

    owner_references: tuple[OwnerReference, ...] = ()


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

    metadata: OwnedMeta = OwnedMeta()
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()

    def index_keys(self) -> Iterator[Key]:
        if GATEWAY_NAME in self.metadata.labels:
            yield "services of gateway", self.metadata.namespace, self.metadata.labels[GATEWAY_NAME]
        for owner in self.metadata.owner_references:
            if owner.kind == "XBackend":
                yield "services of xbackend", self.metadata.namespace, owner.uid


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

    def index_keys(self) -> Iterator[Key]:
        yield "slices", self.metadata.namespace, self.service
        if XBACKEND_NAME in self.metadata.labels:
            yield "slices of xbackend", self.metadata.namespace, self.metadata.labels[XBACKEND_NAME]


class Secret(Object, frozen=True):
    """core/v1 Secret. Values stay base64, and never appear in a repr."""

    holds_secrets = True

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
