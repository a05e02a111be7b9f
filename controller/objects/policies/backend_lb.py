"""BackendLBPolicy: how an endpoint of a Service is chosen, and kept to."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from controller.objects.base import Struct
from controller.objects.policies.base import Duration, Policy, PolicyKind, one_of


class BackendLBPolicy(Policy, frozen=True):
    """gateway.flomesh.io BackendLBPolicy."""


class CookieConfig(Struct, frozen=True):
    """How long a cookie lasts."""

    lifetime_type: Annotated[str, one_of("Session", "Permanent")] = "Session"


class PersistenceConfig(Struct, frozen=True):
    """SessionPersistence as BackendLBPolicy spells it (Gateway API 1.1)."""

    type: Annotated[str, one_of("Cookie", "Header")] = "Cookie"
    session_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]{0,128}\Z")] = ""
    absolute_timeout: Duration | None = None
    cookie_config: CookieConfig = CookieConfig()

    def __post_init__(self) -> None:
        if self.cookie_config.lifetime_type == "Permanent" and self.absolute_timeout is None:
            raise ValueError("absoluteTimeout is needed where lifetimeType is Permanent")


class BackendLBConfig(Struct, frozen=True):
    """What it says, which has no config around it."""

    algorithm: Annotated[str, one_of("RoundRobin", "LeastLoad")] = "RoundRobin"
    session_persistence: PersistenceConfig | None = None


KIND: Final = PolicyKind(
    BackendLBPolicy, "backendlbpolicies", ("Service",), BackendLBConfig, versions=("v1alpha2",), config_fields=()
)
