"""FaultInjectionPolicy: requests that are held, or answered with an error, on purpose."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from controller.objects.base import Struct
from controller.objects.policies.base import BuiltInConfig, Message, Percent, Policy, PolicyKind, StatusCode, one_of


class FaultInjectionPolicy(Policy, frozen=True):
    """gateway.flomesh.io FaultInjectionPolicy."""


class Range(Struct, frozen=True):
    """Of durations."""

    min: Annotated[int, Meta(ge=0, le=1_000_000)]
    max: Annotated[int, Meta(ge=0, le=1_000_000)]


class Delay(Struct, frozen=True):
    """How long requests are held."""

    percent: Percent
    fixed: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    range: Range | None = None
    unit: Annotated[str, one_of("ms", "s", "m", "h", "d")] = "s"

    def __post_init__(self) -> None:
        if (self.fixed is None) == (self.range is None):
            raise ValueError("either fixed or range is needed")


class Abort(Struct, frozen=True):
    """How requests are answered."""

    percent: Percent
    status_code: StatusCode = 503
    message: Message = ""


class FaultInjectionConfig(Struct, frozen=True):
    """What it says."""

    delay: Delay | None = None
    abort: Abort | None = None

    def __post_init__(self) -> None:
        if self.delay is None and self.abort is None:
            raise ValueError("delay, abort or both are needed")


def _fault_injection(config: FaultInjectionConfig) -> BuiltInConfig:
    settings: BuiltInConfig = {}
    if config.delay is not None:
        delay = config.delay
        least, most = (delay.range.min, delay.range.max) if delay.range is not None else (delay.fixed, delay.fixed)
        unit, times = ("h", 24) if delay.unit == "d" else (delay.unit, 1)
        settings["delay"] = {
            "percentage": delay.percent, "min": f"{(least or 0) * times}{unit}", "max": f"{(most or 0) * times}{unit}",
        }  # fmt: skip
    if config.abort is not None:
        abort = config.abort
        settings["abort"] = {"percentage": abort.percent, "response": {"status": abort.status_code, "body": abort.message}}
    return settings


KIND: Final = PolicyKind(
    FaultInjectionPolicy, "faultinjectionpolicies", ("HTTPRoute", "GRPCRoute"), FaultInjectionConfig,
    built_in="FaultInjection", built_in_config=_fault_injection,
)  # fmt: skip
