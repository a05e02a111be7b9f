"""The kinds of policies of gateway.flomesh.io: a file each, and a row here."""

from __future__ import annotations

from typing import Final

from controller.objects.policies import (
    access_control,
    backend_lb,
    circuit_breaking,
    fault_injection,
    gateway_tls,
    health_check,
    load_balancer,
    rate_limit,
    retry,
    session_sticky,
    upstream_tls,
)

# Those that come to filters of routes in the order in which they look at a request.
POLICIES: Final = {
    kind.name: kind
    for kind in (
        access_control.KIND,
        rate_limit.KIND,
        fault_injection.KIND,
        circuit_breaking.KIND,
        retry.KIND,
        session_sticky.KIND,
        load_balancer.KIND,
        backend_lb.KIND,
        health_check.KIND,
        upstream_tls.KIND,
        gateway_tls.KIND,
    )
}
