"""GatewayTLSPolicy: whether a Gateway's clients must show a certificate."""

from __future__ import annotations

from typing import Final

import msgspec

from controller.objects.base import Struct
from controller.objects.policies.base import Policy, PolicyKind


class GatewayTLSPolicy(Policy, frozen=True):
    """gateway.flomesh.io GatewayTLSPolicy."""


class GatewayTLSConfig(Struct, frozen=True):
    """What it says."""

    mtls: bool = msgspec.field(name="mTLS")


KIND: Final = PolicyKind(
    GatewayTLSPolicy, "gatewaytlspolicies", ("Gateway",), GatewayTLSConfig, when_shut="nobody can connect over TLS to"
)
