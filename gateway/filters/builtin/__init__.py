"""Kinds of filters that come with the gateway. Each is a filter as a user would write it, in a file of its own: the spec of
its kind is its `config`. They run inline, and cost what such filters cost.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final, NamedTuple


class BuiltIn(NamedTuple):
    """A type that comes with the gateway."""

    kind: str  # of the object that configures it; "" where only a policy does
    file: str  # here
    passes: bool = False  # where it fails, requests go on: it only watches


# By the type that a Filter or ListenerFilter names.
BUILT_IN: Final = {
    "RequestTermination": BuiltIn("RequestTermination", "request_termination.py"),
    "FaultInjection": BuiltIn("FaultInjection", "fault_injection.py"),
    "RateLimit": BuiltIn("RateLimit", "rate_limit.py"),
    "ExternalRateLimit": BuiltIn("ExternalRateLimit", "external_rate_limit.py"),
    "CircuitBreaker": BuiltIn("CircuitBreaker", "circuit_breaker.py", passes=True),
    "CircuitBreak": BuiltIn("CircuitBreaker", "circuit_breaker.py", passes=True),  # as FSM calls the type
    "IPRestriction": BuiltIn("IPRestriction", "ip_restriction.py"),
    "ConcurrencyLimit": BuiltIn("ConcurrencyLimit", "concurrency_limit.py"),
    "HTTPLog": BuiltIn("HTTPLog", "http_log.py", passes=True),
    "Metrics": BuiltIn("Metrics", "metrics.py", passes=True),
    "Zipkin": BuiltIn("Zipkin", "zipkin.py", passes=True),
    "ProxyTag": BuiltIn("ProxyTag", "proxy_tag.py"),
    "DNSModifier": BuiltIn("DNSModifier", "dns_modifier.py"),
    "ByteRate": BuiltIn("", "byte_rate.py"),
}


@cache
def source(name: str) -> str:
    """The source of a type."""
    return (files("gateway.filters.builtin") / BUILT_IN[name].file).read_text()
