"""HealthCheckPolicy: how the health of a Service's endpoints is known."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from controller.objects.base import Struct
from controller.objects.policies.base import Duration, Header, Policy, PolicyKind


class HealthCheckPolicy(Policy, frozen=True):
    """gateway.flomesh.io HealthCheckPolicy, as both versions spell it."""


class HealthMatchConfig(Struct, frozen=True):
    """What a healthy endpoint answers."""

    status_codes: tuple[Annotated[int, Meta(ge=100, le=599)], ...] = ()
    body: Annotated[str, Meta(max_length=1024)] = ""
    headers: tuple[Header, ...] = ()


class HealthCheckConfig(Struct, frozen=True):
    """What it says; durations are seconds where they are numbers."""

    interval: Annotated[int, Meta(ge=0, le=86400)] | Duration = 0
    max_fails: Annotated[int, Meta(ge=1, le=100)] = 1
    fail_timeout: Annotated[int, Meta(ge=0, le=86400)] | Duration = 5
    path: Annotated[str, Meta(pattern=r"^(/[!-~]*)?\Z", max_length=1024)] = ""
    matches: tuple[HealthMatchConfig, ...] = ()


KIND: Final = PolicyKind(
    HealthCheckPolicy, "healthcheckpolicies", ("Service",), HealthCheckConfig,
    versions=("v1alpha2", "v1alpha1"), config_fields=("config", "healthCheck"),
)  # fmt: skip
