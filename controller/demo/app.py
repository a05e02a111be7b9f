"""A demo app: a page that shows its version in its colour. `python -m controller.demo.app --version 1.0`."""

from __future__ import annotations

import argparse

from aiohttp import web

PAGE = "<div class='pod' style='background:{colour}'> ver: {version}\n </div>"


def application(version: str, colour: str) -> web.Application:
    """The app: /callme shows the version; every other path does too."""
    page = PAGE.format(version=version, colour=colour)

    async def callme(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    app = web.Application()
    app.router.add_get("/{path:.*}", callme)
    return app


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", default="1.0")
    parser.add_argument("--colour", "--color", default="#44B3C2")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    app = application(arguments.version, arguments.colour)
    web.run_app(app, host=arguments.host, port=arguments.port, access_log=None, print=lambda *_: None, keepalive_timeout=75)


if __name__ == "__main__":
    main()
