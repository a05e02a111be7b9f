"""UpstreamTLSPolicy: how a Service is spoken to over TLS."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from controller.objects.base import Struct
from controller.objects.policies.base import Policy, PolicyKind, one_of


class UpstreamTLSPolicy(Policy, frozen=True):
    """gateway.flomesh.io UpstreamTLSPolicy."""


class CertificateRef(Struct, frozen=True):
    """A Secret in the same namespace."""

    name: Annotated[str, Meta(min_length=1, max_length=253)]
    group: Annotated[str, Meta(pattern=r"^\Z")] = ""
    kind: Annotated[str, one_of("Secret")] = "Secret"


class UpstreamTLSConfig(Struct, frozen=True):
    """What it says."""

    certificate_ref: CertificateRef
    mtls: bool = msgspec.field(default=False, name="mTLS")


KIND: Final = PolicyKind(
    UpstreamTLSPolicy, "upstreamtlspolicies", ("Service",), UpstreamTLSConfig, when_shut="nothing is sent to"
)
