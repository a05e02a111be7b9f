"""CircuitBreakingPolicy: when a Service is not asked for a while."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from controller.objects.base import Struct
from controller.objects.policies.base import Amount, BuiltInConfig, Decimal, Policy, PolicyKind, Ratio, Seconds, StatusCode


class CircuitBreakingPolicy(Policy, frozen=True):
    """gateway.flomesh.io CircuitBreakingPolicy."""


class CircuitBreakingConfig(Struct, frozen=True):
    """What it says."""

    min_request_amount: Amount
    stat_time_window: Seconds
    degraded_time_window: Seconds
    slow_time_threshold: Decimal | None = None
    slow_amount_threshold: Amount | None = None
    slow_ratio_threshold: Ratio | None = None
    error_amount_threshold: Amount | None = None
    error_ratio_threshold: Ratio | None = None
    degraded_status_code: StatusCode = 503
    degraded_response_content: Annotated[str, Meta(max_length=65536)] = ""

    def __post_init__(self) -> None:
        slow = self.slow_amount_threshold is not None or self.slow_ratio_threshold is not None
        if not slow and self.error_amount_threshold is None and self.error_ratio_threshold is None:
            raise ValueError("one of the thresholds of slow answers or errors is needed")
        if slow and self.slow_time_threshold is None:
            raise ValueError("slowTimeThreshold says what is slow")


def _circuit_breaking(config: CircuitBreakingConfig) -> BuiltInConfig:
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


KIND: Final = PolicyKind(
    CircuitBreakingPolicy, "circuitbreakingpolicies", ("Service",), CircuitBreakingConfig,
    built_in="CircuitBreaker", built_in_config=_circuit_breaking,
)  # fmt: skip
