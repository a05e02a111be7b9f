"""An admin server whose directory can be written, and what is written there."""

from __future__ import annotations

import io
import re
from typing import ClassVar

from gateway.admin.server import FilterSource, Saved
from gateway.process.messages import Statistics
from gateway.process.metrics import Supervision
from gateway.snapshot import Parts
from support.standalone import Running

GREETING = """\
from gateway.filters.api import Request, Response


def request(request: Request) -> Response:
    return Response(200, "hello\\n")


def test_greeting() -> None:
    assert request(Request.of()).content == "hello\\n".encode()
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: greeting}
spec:
  parentRefs: [{name: simple-fsm-gateway}]
  hostnames: [greeting.example]
  rules:
  - filters:
    - type: ExtensionRef
      extensionRef: {group: extension.gateway.flomesh.io, kind: Filter, name: greeting}
"""


def key(running: Running) -> str:
    found = re.search("#key=([\\w-]+)", running.said)
    assert found
    return found[1]


async def save(
    running: Running, text: str, *, digest: str | None = None, shown: str | None = None, name: str = "default/greeting"
):
    async with running.session.get(f"{running.admin}/filters") as answer:
        known = {one["name"]: one for one in await answer.json()}
    headers = {"Authorization": f"Bearer {shown if shown is not None else key(running)}"}
    if digest != "":
        headers["If-Match"] = f'"{digest or known["default/greeting"]["digest"]}"'
    url = f"{running.admin}/filters/{name.replace('/', '%2F')}"
    async with running.session.put(url, data=io.BytesIO(text.encode()), headers=headers) as answer:
        body = await (answer.json() if answer.content_type == "application/json" else answer.text())
        return answer.status, body


class Plane:
    """A data plane that does nothing."""

    parts: ClassVar[Parts] = {}
    version = ""
    bind = ""
    port_offset = 0
    problems = ()

    async def statistics(self) -> list[Statistics]:
        return []

    async def is_well(self, *, whole: bool = False) -> bool:
        return True

    def supervision(self) -> Supervision:
        return Supervision(1, 1, {}, 0)


class Writable:
    """Sources that take anything."""

    def sources(self) -> list[FilterSource]:
        return [FilterSource("default/greeting", "", "greeting.py", "0123")]

    async def save(self, name: str, text: str, digest: str) -> Saved:
        raise AssertionError("nobody may")
