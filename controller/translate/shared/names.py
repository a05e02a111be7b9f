"""By what names a rule refers to what it needs besides itself: backends, and filters in Python."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

Protocol: TypeAlias = Literal["http", "h2c", "tcp", "udp"]  # how a backend is spoken to


class ScopeName(NamedTuple):
    """Names a part of a policy: the field that it stands in and its position there; or `bps`, and a port."""

    word: str
    number: int

    def __str__(self) -> str:
        return f"{self.word}{self.number}"


class FilterName(NamedTuple):
    """Names a Filter, a ListenerFilter, or a part of a policy that comes to a filter."""

    namespace: str
    name: str
    kind: str = "Filter"
    scope: ScopeName | None = None

    def __str__(self) -> str:
        kind = "" if self.kind == "Filter" else f"{self.kind}/"
        scope = f"#{self.scope}" if self.scope is not None else ""
        return f"{kind}{self.namespace}/{self.name}{scope}"


class BackendName(NamedTuple):
    """Names a backend: a port of a Service, or an XBackend (port 0), and how to speak to it, unless it says so itself."""

    kind: str
    namespace: str
    name: str
    port: int
    spoken: Protocol | Literal[""] = ""

    def __str__(self) -> str:
        prefix = "" if self.kind == "Service" else f"{self.kind}/"
        port = f":{self.port}" if self.port else ""
        return f"{prefix}{self.namespace}/{self.name}{port}" + (f" ({self.spoken})" if self.spoken else "")


Needed: TypeAlias = BackendName | FilterName  # what a Gateway must have besides rules
