"""Requests that filters in Python make: over the same pooled connections as everybody's, to whom they may speak to.

A filter may call the authorities that its definition names (`network`), and no others; a confined one has no network of
its own and asks its worker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.base.logs import whereto
from gateway.filters.api import Reply
from gateway.filters.api.headers import FRAMING, pair
from gateway.filters.api.http_client import Call
from gateway.interfaces import Endpoint
from gateway.snapshot import BackendTLS
from gateway.tls import contexts
from gateway.tls.contexts import Security
from gateway.upstream.internal_request import answer_to

MAX_ANSWER_BYTES: Final = 1 << 20  # octets of an answer
PATIENCE: Final = 60.0  # seconds, whatever a filter says
_URL: Final = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?(/[\x21\x22\x24-\x7e]*)?")

# Host, port, and how to speak TLS → where connections to it are kept.
Reach = Callable[[str, int, Security | None], Endpoint]

_security: dict[str, Security] = {}


async def send(call: Call, reach: Reach, allowed: tuple[str, ...]) -> Reply:
    """Make a request. Raises PermissionError for somebody that a filter may not call, OSError where no answer comes."""
    parsed = _URL.fullmatch(call.url)
    if parsed is None:
        raise ValueError(f"'{whereto(call.url)}' is not an http or https URL")
    scheme, host, port, target = parsed.groups()
    number = int(port or (443 if scheme == "https" else 80))
    authority = f"{host}:{number}"
    if authority not in allowed and "*" not in allowed:
        listed = ", ".join(allowed) or "nobody"
        raise PermissionError(f"this filter may not call {authority}; its definition's spec.network has {listed}")
    endpoint = reach(host.strip("[]"), number, _secured(host) if scheme == "https" else None)
    content = _composed(call, authority if port else host, target or "/")
    patience = min(max(call.timeout, 0.001), PATIENCE)
    answer = await answer_to(content, endpoint, patience, most=MAX_ANSWER_BYTES, head_only=call.method == "HEAD")
    if isinstance(answer, str):
        raise OSError(f"{call.method} {whereto(call.url)}: {answer}")
    fields = [pair(field) for field in answer.response.fields if field.name not in FRAMING]
    return Reply(answer.response.status, fields, answer.body)


def _composed(call: Call, host: str, target: str) -> bytes:
    lines = [f"{call.method} {target} HTTP/1.1".encode(), b"Host: " + host.encode()]
    lines += [name + b": " + value for name, value in call.headers]
    if call.body or call.method not in ("GET", "HEAD"):
        lines.append(b"Content-Length: %d" % len(call.body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + call.body


def _secured(host: str) -> Security:
    security = _security.get(host)
    if security is None:
        if len(_security) > 256:
            _security.clear()
        security = _security[host] = contexts.towards(BackendTLS(host), None, "http/1.1")
    return security
