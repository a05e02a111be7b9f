"""The reverse proxy that a Python programmer would write in ten minutes: aiohttp on both sides, on uvloop.

python aiohttp_proxy.py PORT BACKEND_PORT
"""

from __future__ import annotations

import sys

import aiohttp
import uvloop
from aiohttp import web

HOP = {"connection", "keep-alive", "te", "transfer-encoding", "upgrade", "host", "content-length"}


async def main() -> web.Application:
    app = web.Application()
    session = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=512))

    async def proxy(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        headers["X-Forwarded-For"] = request.remote or ""
        headers["Host"] = request.host
        url = f"http://127.0.0.1:{sys.argv[2]}{request.path_qs}"
        async with session.request(
            request.method, url, headers=headers, data=request.content, allow_redirects=False
        ) as upstream:
            kept = {name: value for name, value in upstream.headers.items() if name.lower() not in HOP}
            response = web.StreamResponse(status=upstream.status, headers=kept)
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    app.router.add_route("*", "/{path:.*}", proxy)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(main(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
