"""RateLimitPolicy: how many requests a Gateway or a route takes, and how many bytes a Gateway's port."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from controller.objects.base import Struct
from controller.objects.filters import StoreSpec
from controller.objects.policies.base import (
    ON_ROUTES,
    Amount,
    BuiltInConfig,
    Policy,
    PolicyKind,
    Seconds,
    StatusCode,
    WrittenHeader,
    one_of,
)


class RateLimitPolicy(Policy, frozen=True):
    """gateway.flomesh.io RateLimitPolicy."""


class RateLimitConfig(Struct, frozen=True):
    """What it says."""

    requests: Amount
    stat_time_window: Seconds
    mode: Annotated[str, one_of("Local", "Global")] = "Local"
    backlog: Annotated[int, Meta(ge=0, le=100_000)] = 10
    burst: Amount | None = None
    response_status_code: StatusCode = 429
    response_headers_to_add: tuple[WrittenHeader, ...] = ()
    store: StoreSpec | None = None

    def __post_init__(self) -> None:
        if self.mode == "Global" and self.store is None:
            raise ValueError('mode "Global" needs store, a Redis or Valkey in which all replicas count')


def _rate_limit(config: RateLimitConfig) -> BuiltInConfig:
    return {
        "requests": config.requests,
        "burst": config.requests if config.burst is None else config.burst,
        "interval": f"{config.stat_time_window}s",
        "backlog": config.backlog,
        "response": {
            "status": config.response_status_code,
            "headers": {header.name: header.value for header in config.response_headers_to_add},
        },
    }


KIND: Final = PolicyKind(
    RateLimitPolicy, "ratelimitpolicies", ON_ROUTES, RateLimitConfig,
    built_in="RateLimit", built_in_config=_rate_limit, when_shut="requests are answered with 500, and connections closed, at",
)  # fmt: skip
