"""What each kind of policy of gateway.flomesh.io comes to: what it may be attached to, and the filter that does it.

A kind is a line in `POLICIES`; nothing here looks at an object but the policy's own config.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from controller.objects import (
    GUARDING,
    AccessControlPolicy,
    BackendLBPolicy,
    CircuitBreakingPolicy,
    FaultInjectionPolicy,
    Gateway,
    GatewayTLSPolicy,
    GRPCMatch,
    GRPCRoute,
    HealthCheckPolicy,
    HTTPMatch,
    HTTPRoute,
    LoadBalancerPolicy,
    Policy,
    RateLimitPolicy,
    RetryPolicy,
    Service,
    SessionStickyPolicy,
    UpstreamTLSPolicy,
    policies,
)
from controller.objects.policies import Scope
from controller.translate.shared import matches
from gateway import snapshot

Config: TypeAlias = dict[str, Any]
TARGETS: Final[dict[str, Any]] = {"Gateway": Gateway, "HTTPRoute": HTTPRoute, "GRPCRoute": GRPCRoute, "Service": Service}


def _rate_limit(config: policies.RateLimit) -> Config:
    return {
        "requests": config.requests,
        "burst": config.requests if config.burst is None else config.burst,
        "interval": f"{config.stat_time_window}s",
        "backlog": config.backlog,
        "response": {
            "status": config.response_status_code,
            "headers": {one.name: one.value for one in config.response_headers_to_add},
        },
    }


def _access_control(config: policies.AccessControl) -> Config:
    # Where both are given, both hold: who is on the blacklist may not, whatever the whitelist says.
    lists = {name: given for name, given in (("allowed", config.whitelist), ("forbidden", config.blacklist)) if given}
    return {
        **(lists or {"forbidden": ()}),
        "enableXFF": config.enable_xff,
        "response": {"status": config.status_code, "body": config.message},
    }


def _fault_injection(config: policies.FaultInjectionConfig) -> Config:
    made: Config = {}
    if config.delay is not None:
        delay = config.delay
        least, most = (delay.range.min, delay.range.max) if delay.range is not None else (delay.fixed, delay.fixed)
        unit, times = ("h", 24) if delay.unit == "d" else (delay.unit, 1)
        made["delay"] = {
            "percentage": delay.percent, "min": f"{(least or 0) * times}{unit}", "max": f"{(most or 0) * times}{unit}",
        }  # fmt: skip
    if config.abort is not None:
        abort = config.abort
        made["abort"] = {"percentage": abort.percent, "response": {"status": abort.status_code, "body": abort.message}}
    return made


def _circuit_breaking(config: policies.CircuitBreaking) -> Config:
    return {
        "latencyThreshold": f"{round(float(config.slow_time_threshold or 0) * 1000)}ms",
        "minRequests": config.min_request_amount,
        "anyOf": {
            "errors": [config.error_amount_threshold or 0, float(config.error_ratio_threshold or 0)],
            "slow": [config.slow_amount_threshold or 0, float(config.slow_ratio_threshold or 0)],
        },
        "checkInterval": f"{config.stat_time_window}s",
        "breakInterval": f"{config.degraded_time_window}s",
        "response": {"status": config.degraded_status_code, "body": config.degraded_response_content},
    }


class Meaning(NamedTuple):
    """What a kind of policy may be attached to, and the filter that it comes to (none for what is a rule's own)."""

    type: type[Policy]
    targets: tuple[str, ...]
    built_in: str = ""
    config: Callable[[Any], Config] = dict

    @property
    def protects(self) -> bool:
        """Whether nothing passes where it cannot be done."""
        return self.type.__name__ in GUARDING


ON_ROUTES: Final = ("Gateway", "HTTPRoute", "GRPCRoute")
# Those of routes in the order in which they look at a request.
POLICIES: Final = {
    "AccessControlPolicy": Meaning(AccessControlPolicy, ON_ROUTES, "IPRestriction", _access_control),
    "RateLimitPolicy": Meaning(RateLimitPolicy, ON_ROUTES, "RateLimit", _rate_limit),
    "FaultInjectionPolicy": Meaning(FaultInjectionPolicy, ON_ROUTES[1:], "FaultInjection", _fault_injection),
    "CircuitBreakingPolicy": Meaning(CircuitBreakingPolicy, ("Service",), "CircuitBreaker", _circuit_breaking),
    "RetryPolicy": Meaning(RetryPolicy, ("Service",)),
    "SessionStickyPolicy": Meaning(SessionStickyPolicy, ("Service",)),
    "LoadBalancerPolicy": Meaning(LoadBalancerPolicy, ("Service",)),
    "BackendLBPolicy": Meaning(BackendLBPolicy, ("Service",)),
    "HealthCheckPolicy": Meaning(HealthCheckPolicy, ("Service",)),
    "UpstreamTLSPolicy": Meaning(UpstreamTLSPolicy, ("Service",)),
    "GatewayTLSPolicy": Meaning(GatewayTLSPolicy, ("Gateway",)),
}
LOOKING: Final = [kind for kind, one in POLICIES.items() if one.built_in and one.targets != ("Service",)]  # at requests
WORDS: Final = {  # the parts of each kind of target that a policy may speak of
    "Gateway": ("", "ports", "hostnames"),
    "HTTPRoute": ("", "hostnames", "http"),
    "GRPCRoute": ("", "hostnames", "grpc"),
    "Service": ("", "ports"),
}


def meant(scope: Scope) -> snapshot.Match:
    """The match that an entry names."""
    if isinstance(scope.of, GRPCMatch):
        return matches.grpc_match(scope.of)
    assert isinstance(scope.of, HTTPMatch)
    return matches.http_match(scope.of)
