"""What policies of gateway.flomesh.io say, typed: read once, and whatever cannot be read is said in words.

A policy speaks of its target as a whole, and of parts of it (`http`, `grpc`, `hostnames`, `ports`). Each is a `Scope`; one
whose config cannot be read has a fault in its place. Limits are those of the CRDs; the objects may be older than these.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from controller.objects import GRPCMatch, HTTPMatch, Policy, StoreSpec, Struct
from controller.objects.decoding import convert
from controller.objects.documents import Path, spelled


def _one_of(*words: str) -> Any:
    """One of these; a message that it is not lists them."""
    return Meta(pattern=f"^({'|'.join(words)})$")


Port: TypeAlias = Annotated[int, Meta(ge=1, le=65535)]
Percent: TypeAlias = Annotated[int, Meta(ge=0, le=100)]
StatusCode: TypeAlias = Annotated[int, Meta(ge=200, le=599)]
Amount: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=86400)]
Decimal: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?$")]
Ratio: TypeAlias = Annotated[str, Meta(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?|\.[0-9]{1,6})$")]
Duration: TypeAlias = Annotated[str, Meta(pattern=r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")]
Message: TypeAlias = Annotated[str, Meta(max_length=4096)]
Rate: TypeAlias = Annotated[int, Meta(ge=1, le=10**12)]


class Header(Struct, frozen=True):
    """A field and its value."""

    name: Annotated[str, Meta(max_length=256)]
    value: Annotated[str, Meta(max_length=4096)]


class RateLimit(Struct, frozen=True):
    """RateLimitPolicy."""

    requests: Amount
    stat_time_window: Seconds
    mode: Annotated[str, _one_of("Local", "Global")] = "Local"
    backlog: Annotated[int, Meta(ge=0, le=100_000)] = 10
    burst: Amount | None = None
    response_status_code: StatusCode = 429
    response_headers_to_add: tuple[Header, ...] = ()
    store: StoreSpec | None = None

    def __post_init__(self) -> None:
        if self.mode == "Global" and self.store is None:
            raise ValueError('mode "Global" needs store, a Redis or Valkey in which all replicas count')


class AccessControl(Struct, frozen=True):
    """AccessControlPolicy."""

    blacklist: tuple[str, ...] | None = None
    whitelist: tuple[str, ...] | None = None
    enable_xff: bool = msgspec.field(default=False, name="enableXFF")
    status_code: StatusCode = 403
    message: Message = ""

    def __post_init__(self) -> None:
        if self.blacklist is None and self.whitelist is None:
            raise ValueError("blacklist or whitelist is needed")
        if self.whitelist == ():
            raise ValueError("whitelist is empty, so that nobody might pass; name who may")
        for field, given in (("blacklist", self.blacklist), ("whitelist", self.whitelist)):
            for index, one in enumerate(given or ()):
                try:
                    ip_network(one, strict=False)
                except ValueError:
                    raise ValueError(f'{field}[{index}]: "{one[:60]}" is neither an address nor a network') from None


class Range(Struct, frozen=True):
    """Of durations."""

    min: Annotated[int, Meta(ge=0, le=1_000_000)]
    max: Annotated[int, Meta(ge=0, le=1_000_000)]


class Delay(Struct, frozen=True):
    """How long requests are held."""

    percent: Percent
    fixed: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    range: Range | None = None
    unit: Annotated[str, _one_of("ms", "s", "m", "h", "d")] = "s"

    def __post_init__(self) -> None:
        if (self.fixed is None) == (self.range is None):
            raise ValueError("either fixed or range is needed")


class Abort(Struct, frozen=True):
    """How requests are answered."""

    percent: Percent
    status_code: StatusCode = 503
    message: Message = ""


class FaultInjectionConfig(Struct, frozen=True):
    """FaultInjectionPolicy."""

    delay: Delay | None = None
    abort: Abort | None = None

    def __post_init__(self) -> None:
        if self.delay is None and self.abort is None:
            raise ValueError("delay, abort or both are needed")


class CircuitBreaking(Struct, frozen=True):
    """CircuitBreakingPolicy."""

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


class Retry(Struct, frozen=True):
    """RetryPolicy."""

    retry_on: Annotated[tuple[Annotated[str, Meta(pattern=r"^[1-5]([0-9]{2}|xx)$")], ...], Meta(min_length=1)]
    num_retries: Annotated[int, Meta(ge=1, le=100)] = 3
    backoff_base_interval: Decimal = "1"


class SessionSticky(Struct, frozen=True):
    """SessionStickyPolicy."""

    cookie_name: Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$")] = "_srv_id"
    expires: Annotated[int, Meta(ge=0, le=31_536_000)] = 3600


class LoadBalancerConfig(Struct, frozen=True):
    """LoadBalancerPolicy, which has no config around it."""

    type: Annotated[str, _one_of("RoundRobinLoadBalancer", "LeastConnectionLoadBalancer", "HashingLoadBalancer")]


class CookieConfig(Struct, frozen=True):
    """How long a cookie lasts."""

    lifetime_type: Annotated[str, _one_of("Session", "Permanent")] = "Session"


class PersistenceConfig(Struct, frozen=True):
    """SessionPersistence as BackendLBPolicy spells it (Gateway API 1.1)."""

    type: Annotated[str, _one_of("Cookie", "Header")] = "Cookie"
    session_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]{0,128}$")] = ""
    absolute_timeout: Duration | None = None
    cookie_config: CookieConfig = CookieConfig()

    def __post_init__(self) -> None:
        if self.cookie_config.lifetime_type == "Permanent" and self.absolute_timeout is None:
            raise ValueError("absoluteTimeout is needed where lifetimeType is Permanent")


class BackendLB(Struct, frozen=True):
    """BackendLBPolicy, which has no config around it."""

    algorithm: Annotated[str, _one_of("RoundRobin", "LeastLoad")] = "RoundRobin"
    session_persistence: PersistenceConfig | None = None


class HealthMatchConfig(Struct, frozen=True):
    """What a healthy endpoint answers."""

    status_codes: tuple[Annotated[int, Meta(ge=100, le=599)], ...] = ()
    body: Annotated[str, Meta(max_length=1024)] = ""
    headers: tuple[Header, ...] = ()


class HealthCheck(Struct, frozen=True):
    """HealthCheckPolicy; durations are seconds where they are numbers."""

    interval: Annotated[int, Meta(ge=0, le=86400)] | Duration = 0
    max_fails: Annotated[int, Meta(ge=1, le=100)] = 1
    fail_timeout: Annotated[int, Meta(ge=0, le=86400)] | Duration = 5
    path: Annotated[str, Meta(pattern=r"^(/[!-~]*)?$", max_length=1024)] = ""
    matches: tuple[HealthMatchConfig, ...] = ()


class GatewayTLSConfig(Struct, frozen=True):
    """GatewayTLSPolicy."""

    mtls: bool = msgspec.field(name="mTLS")


class CertificateRef(Struct, frozen=True):
    """A Secret in the same namespace."""

    name: Annotated[str, Meta(min_length=1, max_length=253)]
    group: Annotated[str, Meta(pattern="^$")] = ""
    kind: Annotated[str, _one_of("Secret")] = "Secret"


class UpstreamTLS(Struct, frozen=True):
    """UpstreamTLSPolicy."""

    certificate_ref: CertificateRef
    mtls: bool = msgspec.field(default=False, name="mTLS")


Config: TypeAlias = (
    RateLimit | AccessControl | FaultInjectionConfig | CircuitBreaking | Retry | SessionSticky | LoadBalancerConfig | BackendLB
    | HealthCheck | GatewayTLSConfig | UpstreamTLS
)  # fmt: skip
CONFIGS: Final[dict[str, type[Any]]] = {
    "RateLimitPolicy": RateLimit,
    "AccessControlPolicy": AccessControl,
    "FaultInjectionPolicy": FaultInjectionConfig,
    "CircuitBreakingPolicy": CircuitBreaking,
    "RetryPolicy": Retry,
    "SessionStickyPolicy": SessionSticky,
    "LoadBalancerPolicy": LoadBalancerConfig,
    "BackendLBPolicy": BackendLB,
    "HealthCheckPolicy": HealthCheck,
    "GatewayTLSPolicy": GatewayTLSConfig,
    "UpstreamTLSPolicy": UpstreamTLS,
}
NEEDED: Final = {"LoadBalancerPolicy": "type", "HealthCheckPolicy": "config or healthCheck"}
BARE: Final = {"LoadBalancerPolicy": "type", "BackendLBPolicy": ""}  # kinds without a config, and what an entry must have then


class PolicyTargetConfig(Struct, frozen=True):
    """What a policy is for."""

    kind: str
    name: str
    group: str | None = None
    namespace: str = ""


class Scope(NamedTuple):
    """One part of a policy's target ("" for the whole), and what is said of it."""

    word: str  # the field that it stands in
    position: int
    of: HTTPMatch | GRPCMatch | str | int | None  # the match, hostname or port that is meant
    config: Any = None  # typed; None where only bytes are counted, or where it cannot be read
    bps: int = 0  # RateLimitPolicy: bytes a second

    @property
    def name(self) -> str:
        """Names it within its policy."""
        return f"{self.word}{self.position}"

    @property
    def field(self) -> str:
        """As people write it."""
        return f"spec.{self.word}[{self.position}]" if self.word else "spec"


class PolicyStatement(NamedTuple):
    """All that a policy says."""

    targets: tuple[PolicyTargetConfig, ...]
    scopes: tuple[Scope, ...]
    faults: tuple[str, ...]  # what cannot be read, by the field


UNKNOWN: Final = -1  # bytes a second that cannot be read
WHOLE: Final = Scope("", 0, None)
_HEADS: Final[dict[str, tuple[str, Any]]] = {
    "http": ("match", HTTPMatch),
    "grpc": ("match", GRPCMatch),
    "hostnames": ("hostname", Annotated[str, Meta(min_length=1, max_length=253)]),
    "ports": ("port", Port),
}


class _Reading:
    """One policy being read."""

    def __init__(self, policy: Policy) -> None:
        self.kind = policy.ref.kind
        self.spec: Any = policy.spec
        self.faults: list[str] = []

    def fault(self, path: Path, words: str) -> None:
        self.faults.append(f"{spelled(('spec', *path))}: {words}.")

    def typed(self, value: Any, type_: Any, path: Path) -> Any:
        """A typed value, or None and a fault."""
        made = convert(value, type_)
        if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], tuple):
            self.fault((*path, *made[0]), made[1])
            return None
        return made

    def targets(self) -> tuple[PolicyTargetConfig, ...]:
        if not isinstance(self.spec, dict):
            self.fault((), "is missing; targetRef is needed, and what is said of it")
            return ()
        if self.spec.get("targetRefs"):
            given = self.spec["targetRefs"]
            if not isinstance(given, list):
                self.fault(("targetRefs",), "is not a list")
                return ()
            made = [self.typed(one, PolicyTargetConfig, ("targetRefs", index)) for index, one in enumerate(given)]
        elif "targetRef" in self.spec:
            made = [self.typed(self.spec["targetRef"], PolicyTargetConfig, ("targetRef",))]
        else:
            self.fault(("targetRef",), "is missing; it is needed")
            return ()
        return tuple(one for one in made if one is not None)

    def scopes(self) -> Iterator[Scope]:
        if not isinstance(self.spec, dict):
            return
        whole, path = self._given(self.spec, ())
        for word, (field, type_) in _HEADS.items():
            entries = self.spec.get(word)
            if entries is None:
                continue
            if not isinstance(entries, list):
                self.fault((word,), f"is not a list of entries, each with its {field}")
                yield WHOLE
                continue
            for index, entry in enumerate(entries):
                if not isinstance(entry, dict):
                    self.fault((word, index), f"is not an entry with its {field}")
                    yield WHOLE
                    continue
                if field not in entry:
                    self.fault((word, index, field), "is missing; it is needed")
                    yield WHOLE
                    continue
                of = self.typed(entry[field], type_, (word, index, field))
                if of is None:
                    yield WHOLE
                    continue
                own, where = self._given(entry, (word, index))
                bps = self.typed(entry["bps"], Rate, (word, index, "bps")) if "bps" in entry else 0
                if own is None and "bps" not in entry:
                    own, where = whole, path  # what an entry does not say is as the policy has it
                if own is None and "bps" not in entry:
                    self.fault((word, index), f"says nothing; {NEEDED.get(self.kind, 'config')} is needed")
                    yield Scope(word, index, of)
                else:
                    config = self.typed(own, CONFIGS[self.kind], where) if own is not None else None
                    yield Scope(word, index, of, config, UNKNOWN if bps is None else bps)
        bps = self.typed(self.spec["bps"], Rate, ("bps",)) if "bps" in self.spec else 0
        if whole is not None or "bps" in self.spec:
            config = self.typed(whole, CONFIGS[self.kind], path) if whole is not None else None
            yield Scope("", 0, None, config, UNKNOWN if bps is None else bps)

    def _given(self, entry: dict[str, Any], path: Path) -> tuple[Any, Path]:
        """What an entry says, and where; None where it says nothing."""
        if self.kind in BARE:
            needed = BARE[self.kind]
            return (entry if not needed or needed in entry else None), path
        for field in ("config", "healthCheck"):
            if field in entry and (field == "config" or self.kind == "HealthCheckPolicy"):
                return entry[field], (*path, field)
        return None, path


def read(policy: Policy) -> PolicyStatement:
    """All that a policy says, typed."""
    reading = _Reading(policy)
    targets = reading.targets()
    scopes = tuple(dict.fromkeys(reading.scopes())) if targets else ()
    if policy.fault:
        return PolicyStatement(targets, (WHOLE,), (policy.fault,))
    return PolicyStatement(targets, scopes, tuple(dict.fromkeys(reading.faults)))
