"""Serves files from its configuration; what it does not have is asked of the backend."""

import hashlib
import mimetypes

from gateway.filters.api import Request, Response, config

FILES = {}
for path, text in config.get("files", {}).items():
    kind = mimetypes.guess_type(path)[0] or "text/html; charset=utf-8"
    FILES[path] = text.encode(), kind, '"' + hashlib.sha256(text.encode()).hexdigest()[:16] + '"'


def request(request: Request) -> Response | None:
    found = FILES.get(request.path)
    if found is None or request.method not in ("GET", "HEAD"):
        return None
    body, kind, tag = found
    if request.headers.get("if-none-match") == tag:
        return Response(304, headers={"ETag": tag})
    return Response(200, body, {"ETag": tag}, content_type=kind)
