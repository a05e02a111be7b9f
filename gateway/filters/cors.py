"""CORS: answer preflights, and tell browsers which responses they may show to whom (HTTPCORSFilter, GEP-1767).

The rules are those of the Fetch standard, §3.2: with credentials nothing may be "*", so what was asked for is said
instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from gateway.http import grammar
from gateway.http.http1 import PLAIN, Field, Request
from gateway.snapshot import Cors

Pairs = list[tuple[bytes, bytes]]
# By which a response lets a page read it: what a backend says of that is not heard where a policy has its say.
DECIDING: Final = frozenset((b"access-control-allow-origin", b"access-control-allow-credentials"))


class CorsPolicy:
    """A prepared filter."""

    __slots__ = (
        "_all_origins", "_credentials", "_expose", "_headers", "_max_age", "_methods", "_origins", "_varies", "_varying",
    )  # fmt: skip

    def __init__(self, spec: Cors) -> None:
        self._all_origins = "*" in spec.allow_origins
        self._origins = [_origin(origin) for origin in spec.allow_origins if origin != "*"]
        self._credentials = spec.allow_credentials
        self._methods = _listed(spec.allow_methods)
        self._headers = _listed(spec.allow_headers)
        self._expose = _listed(spec.expose_headers)
        self._max_age = str(spec.max_age).encode()
        # For caches, on every answer that would be another for another origin, also where none is allowed (Fetch, §3.2.5).
        self._varies: Pairs = [] if self._all_origins and not self._credentials else [(b"Vary", b"Origin")]
        self._varying = _fields(self._varies)

    def allows(self, origin: bytes) -> bool:
        """Whether a page of this origin may read responses."""
        if self._all_origins:
            return True
        origin = _without_default_port(origin)
        return any(pattern.fullmatch(origin) for pattern in self._origins)

    def answer(self, request: Request) -> tuple[Pairs | None, list[Field]]:
        """What is answered here to a preflight, or None and what the answer to any other request must say to a browser."""
        origin = request.value(b"origin")
        if origin is None:
            return None, self._varying
        fields, is_allowed = self.preflight(request, origin), self.allows(origin)
        if fields is None:
            return None, self.actual(origin) if is_allowed else self._varying
        return fields if is_allowed else self._varies, []

    def preflight(self, request: Request, origin: bytes) -> Pairs | None:
        """The fields of the answer to a preflight; None for a request that is none."""
        method = request.value(b"access-control-request-method")
        if request.method != b"OPTIONS" or method is None:
            return None
        asked = request.value(b"access-control-request-headers")
        fields = self._origin_fields(origin)
        methods = method if self._credentials and self._methods == b"*" else self._methods
        headers = asked if self._headers == b"*" and self._credentials else self._headers
        if methods:
            fields.append((b"Access-Control-Allow-Methods", methods))
        if headers:
            fields.append((b"Access-Control-Allow-Headers", headers))
        fields.append((b"Access-Control-Max-Age", self._max_age))
        return fields + self._exposed()

    def actual(self, origin: bytes) -> list[Field]:
        """The fields that go into the response of a request that is not a preflight."""
        return _fields(self._origin_fields(origin) + self._exposed())

    def _exposed(self) -> Pairs:
        """What pages may see. On preflights it says nothing to a browser, but the API's own suite looks for it there."""
        if not self._expose or (self._credentials and self._expose == b"*"):
            return []
        return [(b"Access-Control-Expose-Headers", self._expose)]

    def _origin_fields(self, origin: bytes) -> Pairs:
        if self._all_origins and not self._credentials:
            return [(b"Access-Control-Allow-Origin", b"*")]
        fields = [(b"Access-Control-Allow-Origin", origin), *self._varies]
        if self._credentials:
            fields.append((b"Access-Control-Allow-Credentials", b"true"))
        return fields


def _listed(values: Sequence[str]) -> bytes:
    return b"*" if "*" in values else b", ".join(map(grammar.field_name, values))


def _fields(pairs: Pairs) -> list[Field]:
    return [Field(PLAIN, name.lower(), value, name + b": " + value) for name, value in pairs]


def _without_default_port(origin: bytes) -> bytes:
    """Browsers leave out the port that the scheme implies (RFC 6454 §6.2); others, and authors of policies, may say it."""
    lower = origin.lower()
    for scheme, port in ((b"https://", b":443"), (b"http://", b":80")):
        if lower.startswith(scheme) and lower.endswith(port):
            return origin.removesuffix(port)
    return origin


def _origin(text: str) -> re.Pattern[bytes]:
    """An origin; `*` stands for any number of labels, or for a port. Scheme and host know no case (RFC 6454 §4)."""
    pattern = re.escape(_without_default_port(text.encode()).decode()).replace(r"\*", r"[^/]+")
    return re.compile(pattern.encode(), re.IGNORECASE)


def build(spec: Cors) -> CorsPolicy:
    """Prepare a filter."""
    return CorsPolicy(spec)
