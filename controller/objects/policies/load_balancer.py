"""LoadBalancerPolicy: how an endpoint of a Service is chosen."""

from __future__ import annotations

from typing import Annotated, Final

from controller.objects.base import Struct
from controller.objects.policies.base import Policy, PolicyKind, one_of


class LoadBalancerPolicy(Policy, frozen=True):
    """gateway.flomesh.io LoadBalancerPolicy."""


class LoadBalancerConfig(Struct, frozen=True):
    """What it says, which has no config around it."""

    type: Annotated[str, one_of("RoundRobinLoadBalancer", "LeastConnectionLoadBalancer", "HashingLoadBalancer")]


KIND: Final = PolicyKind(
    LoadBalancerPolicy, "loadbalancerpolicies", ("Service",), LoadBalancerConfig, config_fields=(), needed="type"
)
