"""What policies of gateway.flomesh.io say of Services: how an endpoint is chosen and kept to, whether it is well, how it is
spoken to, and when it is asked again.

Which policy is in force at a Service's port is `attachment`'s decision.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from controller.objects.base import Ref
from controller.objects.policies.backend_lb import BackendLBConfig, PersistenceConfig
from controller.objects.policies.health_check import HealthCheckConfig
from controller.objects.policies.load_balancer import LoadBalancerConfig
from controller.objects.policies.retry import RetryConfig
from controller.objects.policies.session_sticky import SessionStickyConfig
from controller.objects.routes import CookiePersistence, HeaderPersistence, SessionPersistence
from controller.state.view import View
from controller.translate import sessions
from controller.translate.policies import attachment
from controller.translate.policies.attachment import scope_name
from controller.translate.shared.names import BackendName, FilterName
from gateway import snapshot
from gateway.base.durations import seconds


def of_service(view: View, kind: str, backend: tuple[str, str, int]) -> Any:
    """What the policy of a kind says that is in force at a Service's port: (namespace, name, port)."""
    namespace, name, port = backend
    in_force = attachment.at_port(view, kind, Ref("Service", namespace, name), port)
    return in_force[1].config if in_force is not None and not in_force[0].shut else None


def breaker(view: View, backend: BackendName) -> FilterName | None:
    """The circuit breaker of a backend."""
    if backend.kind != "Service":
        return None
    kind = "CircuitBreakingPolicy"
    in_force = attachment.at_port(view, kind, Ref("Service", backend.namespace, backend.name), backend.port)
    return FilterName(in_force[0].namespace, in_force[0].name, kind, scope_name(in_force[1])) if in_force is not None else None


def retry(view: View, backends: Iterable[BackendName]) -> snapshot.Retry | None:
    """What RetryPolicies say of a rule's backends: the first that has one decides."""
    for backend in backends:
        config: RetryConfig | None = of_service(view, "RetryPolicy", (backend.namespace, backend.name, backend.port))
        if config is not None:
            codes = tuple(sorted({code for word in config.retry_on for code in _codes(word)}))
            return snapshot.Retry(codes, config.num_retries, float(config.backoff_base_interval))
    return None


ALGORITHMS: Final = {
    "RoundRobinLoadBalancer": "RoundRobin", "LeastConnectionLoadBalancer": "LeastLoad", "HashingLoadBalancer": "Hashing",
}  # fmt: skip


def algorithm(view: View, namespace: str, name: str, port: int) -> str:
    """How a Service's endpoints are chosen."""
    by_backend: BackendLBConfig | None = of_service(view, "BackendLBPolicy", (namespace, name, port))
    if by_backend is not None:
        return by_backend.algorithm
    by_balancer: LoadBalancerConfig | None = of_service(view, "LoadBalancerPolicy", (namespace, name, port))
    return ALGORITHMS[by_balancer.type] if by_balancer is not None else "RoundRobin"


def is_hashed(view: View, backend: BackendName) -> bool:
    """Whether a client's requests all go to the same endpoint."""
    return backend.kind == "Service" and algorithm(view, backend.namespace, backend.name, backend.port) == "Hashing"


def health(view: View, namespace: str, name: str, port: int) -> snapshot.Health | None:
    """How the health of a Service's endpoints is known."""
    config: HealthCheckConfig | None = of_service(view, "HealthCheckPolicy", (namespace, name, port))
    if config is None:
        return None
    matches_ = tuple(
        snapshot.HealthMatch(match.status_codes, match.body, tuple((field.name, field.value) for field in match.headers))
        for match in config.matches
    )
    interval, timeout = _lasting(config.interval), _lasting(config.fail_timeout)
    return snapshot.Health(interval, config.max_fails, timeout, config.path, matches_)


def upstream_tls(view: View, namespace: str, name: str, port: int) -> snapshot.BackendTLS | str | None:
    """How a Service is spoken to over TLS by an UpstreamTLSPolicy; in words, why it cannot be."""
    in_force = attachment.at_port(view, "UpstreamTLSPolicy", Ref("Service", namespace, name), port)
    if in_force is None:
        return None
    if in_force[0].shut:
        return f'UpstreamTLSPolicy "{in_force[0].name}" is not valid'
    return attachment.authority(view, namespace, name, in_force[1].config)


def _lasting(given: str | int) -> float:
    """Seconds, of a Duration or of a number of them."""
    return seconds(given) if isinstance(given, str) else float(given)


def _codes(word: str) -> Iterable[int]:
    """ "503", or all of "5xx"."""
    return range(int(word[0]) * 100, int(word[0]) * 100 + 100) if word.endswith("xx") else (int(word),)


def session(view: View, backends: Iterable[BackendName]) -> snapshot.Persistence | None:
    """What BackendLBPolicies and SessionStickyPolicies say of a rule's backends: the first that has one decides."""
    for backend in backends:
        service_port = (backend.namespace, backend.name, backend.port)
        balancing: BackendLBConfig | None = of_service(view, "BackendLBPolicy", service_port)
        if balancing is not None and balancing.session_persistence is not None:
            return sessions.persistence(_as_in_routes(balancing.session_persistence), str(backend))
        sticky: SessionStickyConfig | None = of_service(view, "SessionStickyPolicy", service_port)
        if sticky is not None:
            return sessions.sticky(sticky)
    return None


def _as_in_routes(asked: PersistenceConfig) -> SessionPersistence:
    """SessionPersistence as BackendLBPolicy spells it (Gateway API 1.1)."""
    name = asked.session_name
    return SessionPersistence(
        asked.type,
        asked.absolute_timeout or "",
        CookiePersistence(name, lifetime_type=asked.cookie_config.lifetime_type),
        HeaderPersistence(name) if name else None,
    )
