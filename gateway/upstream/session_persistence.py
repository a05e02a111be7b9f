"""Session persistence (GEP-1619): at each backend, a client comes back to the endpoint that it met there first, by a cookie
or a header.

Weights choose the backend, for every request; a session binds within it. What the client holds has a token for each backend
that it has met: a digest of the rule, the backend and the endpoint. Every worker and every replica knows it without telling
each other, and it says nothing of addresses. Where an endpoint is gone, so is its session: the client is sent elsewhere and
told so.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from typing import Final

from gateway.http import grammar
from gateway.http.http1 import PLAIN, Field, Request
from gateway.interfaces import Endpoint
from gateway.snapshot import Persistence
from gateway.upstream.backend import Backend

MAX_SESSIONS: Final = 64  # of one client: a rule has 16 backends, or as many as its weights name
_SEPARATORS: Final = re.compile("[_, \t]+")  # a header that came in several lines has commas between them


class Sessions:
    """The sessions of one rule; or, where `rule` is empty, those that backends have of their own, whatever rule leads there."""

    __slots__ = ("_attributes", "_backends", "_spec", "_tokens", "rule")

    def __init__(self, rule: str, spec: Persistence, backends: Sequence[Backend]) -> None:
        """Raises ValueError for what cannot be written of names and a cookie's attributes."""
        self.rule = rule
        self._spec = spec
        if spec.header:
            grammar.field_name(spec.header)
        else:
            grammar.cookie_name(spec.cookie)
            grammar.cookie_path(spec.path)
            if spec.domain:
                grammar.cookie_domain(spec.domain)
            if spec.same_site:
                grammar.same_site(spec.same_site)
        self._attributes = {scheme: _attributes(spec, is_tls=scheme == b"https") for scheme in (b"http", b"https")}
        self._backends = backends
        self._tokens: dict[tuple[str, str], str] = {}

    def find(self, request: Request, backend: Backend | None) -> Endpoint | None:
        """Where a request's session with a backend leads, if it has one that still holds."""
        held = self._held(request)
        return self._endpoint(backend, held) if held and backend is not None else None

    def _endpoint(self, backend: Backend, held: dict[str, str]) -> Endpoint | None:
        return next((endpoint for endpoint in backend.endpoints if self._token(backend.name, endpoint) in held), None)

    def _held(self, request: Request) -> dict[str, str]:
        """What a request says of its sessions, as far as their time is not up: when they began, by their tokens."""
        seconds, now = self._spec.seconds, time.time()
        held: dict[str, str] = {}
        for session in _SEPARATORS.split(self._said(request))[:MAX_SESSIONS]:
            token, _, since = session.partition(".")
            if token and (not seconds or (since.isdecimal() and len(since) < 12 and now < int(since) + seconds)):
                held[token] = since
        return held

    def _said(self, request: Request) -> str:
        if self._spec.header:
            return (request.value(self._spec.header.lower().encode()) or b"").decode("latin-1")
        # One name may come more than once (by another path or domain, RFC 6265 §5.4), and in several lines: any may be ours.
        wanted, found = self._spec.cookie + "=", []
        for line in request.values(b"cookie"):
            for crumb in line.decode("latin-1").split(";"):
                crumb = crumb.strip()
                if crumb.startswith(wanted):
                    found.append(crumb.removeprefix(wanted).strip('"'))
        return "_".join(found)

    def begin(
        self, request: Request, backend: Backend | None, endpoint: Endpoint | None, held: Endpoint | None, scheme: bytes
    ) -> Sequence[Field]:
        """The field that tells a client of its session with the endpoint that answers, beside those that it has with other
        backends; none where that is what it `held`."""
        if backend is None or endpoint is None or held is endpoint:
            return ()
        spec, now, had = self._spec, f"{int(time.time())}", self._held(request)
        sessions = {self._token(backend.name, endpoint): now}
        for other in self._backends:
            known = self._endpoint(other, had) if had and other is not backend else None
            if known is not None:
                token = self._token(other.name, known)
                sessions.setdefault(token, had[token])
        value = "_".join(f"{token}.{since}" if spec.seconds else token for token, since in sessions.items())
        if spec.header:
            name, text = spec.header, value
        else:
            name, text = "Set-Cookie", f"{spec.cookie}={value}{self._attributes[scheme]}"
        raw = name.encode()
        return (Field(PLAIN, raw.lower(), text.encode(), raw + b": " + text.encode()),)

    def _token(self, backend: str, endpoint: Endpoint) -> str:
        key = (backend, endpoint.name)
        token = self._tokens.get(key)
        if token is None:
            if len(self._tokens) > 4096:
                self._tokens.clear()
            identity = f"{self.rule}\n{backend}\n{endpoint.name}".encode()
            token = self._tokens[key] = hashlib.blake2b(identity, digest_size=12).hexdigest()
        return token


def _attributes(spec: Persistence, *, is_tls: bool) -> str:
    """What follows a cookie's value on a listener with or without TLS (RFC 6265 §4.1.1; SameSite is rfc6265bis §4.1.2.7)."""
    said = [f"Path={spec.path}"]
    if spec.domain:
        said.append(f"Domain={spec.domain}")
    said.append("HttpOnly")
    if spec.permanent:
        said.append(f"Max-Age={int(spec.seconds)}")
    if is_tls if spec.secure is None else spec.secure:
        said.append("Secure")
    if spec.same_site:
        said.append(f"SameSite={spec.same_site}")
    return "".join(f"; {one}" for one in said)
