"""HTTPPathModifier, shared by RequestRedirect and URLRewrite: a new target from an old one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from gateway.http import grammar
from gateway.http.http1 import Request
from gateway.snapshot import PathEdit

# (request, the prefix that matched) → path and query as they go into a target.
NewTarget: TypeAlias = Callable[[Request, bytes], bytes]


def build(spec: PathEdit) -> NewTarget:
    """Replace the whole path or only the matched prefix; the query stays. Raises ValueError for what is no path."""
    value = grammar.path(spec.value)
    stem = value.rstrip(b"/")

    def replace_full(request: Request, prefix: bytes) -> bytes:
        return _with_query(value or b"/", request.query)

    def replace_prefix(request: Request, prefix: bytes) -> bytes:
        rest = request.path[len(prefix) :]
        # "/" or nothing as the replacement takes the prefix away; slashes are never doubled nor lost.
        path = stem + rest if rest.startswith(b"/") else (value or b"/") + rest
        return _with_query(path or b"/", request.query)

    return replace_full if spec.kind == "ReplaceFullPath" else replace_prefix


def _with_query(path: bytes, query: bytes) -> bytes:
    return path + b"?" + query if query else path
