"""Session persistence (GEP-1619): a client comes back to the endpoint that it met first, by a cookie or a header.

What the client holds is a digest of the rule, the backend and the endpoint: every worker and every replica knows it
without telling each other, and it says nothing of addresses. An endpoint that is gone, or a backend whose weight is now
0, ends the session: the client is sent elsewhere and told so.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Protocol

from gateway.http import grammar
from gateway.http.http1 import PLAIN, Field, Request
from gateway.interfaces import Endpoint
from gateway.snapshot import Persistence
from gateway.upstream.backend import Backend
from gateway.upstream.load_balancing import EndpointPicker


class Holder(Protocol):
    """A target, as far as sessions are concerned."""

    endpoints: EndpointPicker[Endpoint]


class Sessions:
    """The sessions of one rule."""

    __slots__ = ("_spec", "_targets", "_tokens", "rule")

    def __init__(self, rule: str, spec: Persistence, targets: Sequence[tuple[str, Holder]]) -> None:
        """Raises ValueError for names and paths that cannot be written."""
        self.rule = rule
        self._spec = spec
        if spec.header:
            grammar.field_name(spec.header)
        else:
            grammar.cookie_name(spec.cookie)
            grammar.cookie_path(spec.path)
        self._targets = targets  # those with a weight, by the names of their backends
        self._tokens: dict[tuple[str, str], str] = {}

    def find(self, request: Request) -> tuple[Holder, Endpoint] | None:
        """Where a request's session leads, if it has one that still holds."""
        said = self._said(request)
        if not said:
            return None
        token, _, since = said.partition(".")
        if self._spec.seconds and (not since.isdigit() or int(since) + self._spec.seconds < time.time()):
            return None
        for backend, target in self._targets:
            for endpoint in target.endpoints:
                if self._token(backend, endpoint) == token:
                    return target, endpoint
        return None

    def _said(self, request: Request) -> str:
        if self._spec.header:
            return (request.value(self._spec.header.lower().encode()) or b"").decode("latin-1")
        wanted = self._spec.cookie + "="
        for crumb in (request.value(b"cookie") or b"").decode("latin-1").split(";"):
            crumb = crumb.strip()
            if crumb.startswith(wanted):
                return crumb.removeprefix(wanted).strip('"')
        return ""

    def begin(
        self, backend: Backend | None, endpoint: Endpoint | None, held: tuple[Holder, Endpoint] | None, scheme: bytes
    ) -> Sequence[Field]:
        """The field that tells a client of its session with the endpoint that answers; none where that is what it `held`."""
        if backend is None or endpoint is None or (held is not None and held[1] is endpoint):
            return ()
        value = self._token(backend.name, endpoint)
        spec = self._spec
        if spec.seconds:
            value += f".{int(time.time())}"
        if spec.header:
            name, text = spec.header, value
        else:
            name, text = "Set-Cookie", f"{spec.cookie}={value}; Path={spec.path}; HttpOnly"
            if spec.permanent:
                text += f"; Max-Age={int(spec.seconds)}"
            if scheme == b"https":
                text += "; Secure"
        raw = name.encode()
        return (Field(PLAIN, raw.lower(), text.encode(), raw + b": " + text.encode()),)

    def _token(self, backend: str, endpoint: Endpoint) -> str:
        key = (backend, endpoint.name)
        found = self._tokens.get(key)
        if found is None:
            if len(self._tokens) > 4096:
                self._tokens.clear()
            said = f"{self.rule}\n{backend}\n{endpoint.name}".encode()
            found = self._tokens[key] = hashlib.blake2b(said, digest_size=12).hexdigest()
        return found
