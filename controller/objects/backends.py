"""What a backend may be besides a Service, how one is spoken to over TLS, and what may be sent to it again: XBackend,
BackendTLSPolicy and XBackendTrafficPolicy."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from controller.objects.base import FAULT, Key, Object, Struct
from controller.objects.references import AuthorityRef, PolicyTarget, SecretRef
from controller.objects.routes import SessionPersistence


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

    def index_keys(self) -> Iterator[Key]:
        for target in self.spec.target_refs:
            yield "TLS policies of", self.metadata.namespace, target.kind, target.name


class ExternalHostname(Struct, frozen=True):
    """ExternalHostnameBackend: the host that an XBackend stands for."""

    hostname: str = ""


class EndpointSelector(Struct, frozen=True):
    """EndpointSelectorBackend: the labels that a pod of its namespace must have, all of them."""

    match_labels: dict[str, str] = {}


class XBackendPort(Struct, frozen=True):
    """BackendPort: of the host, or of the pods. Whether there is such a port, its status says."""

    number: int = 0


class XBackendTLS(Struct, frozen=True):
    """XBackendTLS: whether a backend is spoken to over TLS, and who proves what (GEP-4894)."""

    mode: str = "None"
    validation: BackendValidation = BackendValidation()
    client_certificate_ref: SecretRef | None = None


class XBackendSpec(Struct, frozen=True):
    """BackendSpec."""

    type: str = ""
    port: XBackendPort = XBackendPort()
    external_hostname: ExternalHostname | None = None
    endpoint_selector: EndpointSelector | None = None
    protocol: str = ""
    tls: XBackendTLS = XBackendTLS()
    session_persistence: SessionPersistence | None = None


class XBackend(Object, frozen=True):
    """gateway.networking.x-k8s.io XBackend."""

    spec: XBackendSpec = XBackendSpec()


class BudgetDetails(Struct, frozen=True):
    """BudgetDetails: how many of the requests of an interval may be retries, of a hundred."""

    percent: int = 20
    interval: str = "10s"


class RequestRate(Struct, frozen=True):
    """RequestRate, with the defaults of minRetryRate."""

    count: int = 10
    interval: str = "1s"


class RetryConstraint(Struct, frozen=True):
    """RetryConstraint (GEP-3388)."""

    budget: BudgetDetails = BudgetDetails()
    min_retry_rate: RequestRate = RequestRate()


class XBackendTrafficPolicySpec(Struct, frozen=True):
    """BackendTrafficPolicySpec. Its sessionPersistence is deprecated, and yet meant."""

    target_refs: tuple[PolicyTarget, ...] = ()
    retry_constraint: RetryConstraint | None = None
    session_persistence: SessionPersistence | None = None


class XBackendTrafficPolicy(Object, frozen=True):
    """gateway.networking.x-k8s.io XBackendTrafficPolicy."""

    spec: XBackendTrafficPolicySpec = XBackendTrafficPolicySpec()

    def index_keys(self) -> Iterator[Key]:
        for target in self.spec.target_refs:
            yield "traffic policies of", self.metadata.namespace, target.kind, target.name
