"""What policies of gateway.flomesh.io may be attached to, and of which parts of it they may speak."""

from __future__ import annotations

from typing import Any, Final

from controller.objects.core import Service
from controller.objects.gateways import Gateway
from controller.objects.policies import POLICIES
from controller.objects.policies.statement import Scope
from controller.objects.routes import GRPCMatch, GRPCRoute, HTTPMatch, HTTPRoute
from controller.translate.shared import matches
from gateway import snapshot

TARGETS: Final[dict[str, Any]] = {"Gateway": Gateway, "HTTPRoute": HTTPRoute, "GRPCRoute": GRPCRoute, "Service": Service}
WORDS: Final = {  # the parts of each kind of target that a policy may speak of
    "Gateway": ("", "ports", "hostnames"),
    "HTTPRoute": ("", "hostnames", "http"),
    "GRPCRoute": ("", "hostnames", "grpc"),
    "Service": ("", "ports"),
}
# Kinds of policies whose filters look at requests, in the order in which they do.
LOOKING: Final = [policy.name for policy in POLICIES.values() if policy.built_in and policy.targets != ("Service",)]


def match_of(scope: Scope) -> snapshot.Match:
    """The match that an entry names."""
    if isinstance(scope.of, GRPCMatch):
        return matches.grpc_match(scope.of)
    assert isinstance(scope.of, HTTPMatch)
    return matches.http_match(scope.of)
