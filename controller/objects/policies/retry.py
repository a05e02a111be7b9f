"""RetryPolicy: when a Service is asked again."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from controller.objects.base import Struct
from controller.objects.policies.base import Decimal, Policy, PolicyKind


class RetryPolicy(Policy, frozen=True):
    """gateway.flomesh.io RetryPolicy."""


class RetryConfig(Struct, frozen=True):
    """What it says."""

    retry_on: Annotated[tuple[Annotated[str, Meta(pattern=r"^[1-5]([0-9]{2}|xx)\Z")], ...], Meta(min_length=1)]
    num_retries: Annotated[int, Meta(ge=1, le=100)] = 3
    backoff_base_interval: Decimal = "1"


KIND: Final = PolicyKind(RetryPolicy, "retrypolicies", ("Service",), RetryConfig)
