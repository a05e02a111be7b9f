"""URLRewrite: another Host or path on the way to the backend (HTTPURLRewriteFilter)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from gateway.filters import path_modifier
from gateway.http import grammar
from gateway.http.http1 import Request
from gateway.snapshot import Rewrite

# (request, matched prefix) → Host and target to send.
Rewritten: TypeAlias = Callable[[Request, bytes], tuple[bytes, bytes]]


def build(spec: Rewrite) -> Rewritten:
    """What the spec does not name stays as the client sent it. Raises ValueError for what cannot be written."""
    hostname = grammar.host(spec.hostname) if spec.hostname else b""
    new_target = path_modifier.build(spec.path) if spec.path else None

    def rewrite(request: Request, prefix: bytes) -> tuple[bytes, bytes]:
        return hostname or request.host, new_target(request, prefix) if new_target else request.target

    return rewrite
