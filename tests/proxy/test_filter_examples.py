"""The examples of filters, each as it stands in its folder: translated, served, and asked."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import dns.message
import jwt
import pytest
from aiohttp import web
from msgspec.structs import replace
from support.http2_peers import until

from controller.inspect.loaded_files import LoadedFiles
from controller.ports import free_ports
from gateway.runtime.runtime import Runtime
from gateway.snapshot import Backend, Change

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


class Served:
    """An example, served in this process, with two backends that say what they were asked."""

    def __init__(self) -> None:
        self.seen: list[SimpleNamespace] = []
        self.reply = web.Response
        self.session: aiohttp.ClientSession
        self.runtime: Runtime
        self.offset = 0
        self.hold: asyncio.Event | None = None

    async def backend(self, request: web.Request) -> web.Response:
        self.seen.append(SimpleNamespace(
            path=request.path_qs, headers=request.headers, body=await request.text(), port=request.transport.get_extra_info("sockname")[1]
        ))  # fmt: skip
        if self.hold is not None:
            await self.hold.wait()
        return self.reply(text="from the backend")

    async def ask(self, path: str = "/", *, host: str = "example.com", method: str = "GET", **how: Any) -> SimpleNamespace:
        headers = {"Host": host, **how.pop("headers", {})}
        port = how.pop("port", 80) + self.offset
        scheme = how.pop("scheme", "http")
        async with self.session.request(
            method, f"{scheme}://127.0.0.1:{port}{path}", headers=headers, allow_redirects=False, **how
        ) as answer:
            return SimpleNamespace(status=answer.status, headers=answer.headers, body=(await answer.read()).decode())


@pytest.fixture
async def served(request: pytest.FixtureRequest) -> AsyncIterator[Served]:
    name = request.node.get_closest_marker("example").args[0]
    made = Served()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.backend)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    moved = {}
    for port in (8081, 8082):
        (moved[port],) = free_ports(1)
        await web.TCPSite(runner, "127.0.0.1", moved[port]).start()
    (port,) = free_ports(1)
    made.offset = port - 80
    made.runtime = Runtime(bind="127.0.0.1", port_offset=made.offset)
    loaded = LoadedFiles(EXAMPLES / name)
    assert [str(fault) for fault in loaded.faults()] == []
    (parts,) = loaded.translation.parts.values()
    put = [
        replace(part, endpoints=tuple(replace(e, port=moved[e.port]) for e in part.endpoints))
        if isinstance(part, Backend)
        else part
        for part in parts.values()
    ]
    made.moved = moved
    try:
        assert not await made.runtime.apply(Change(put=tuple(put)))
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as made.session:
            yield made
    finally:
        made.runtime.close()
        await made.runtime.programs.stop()
        for opened in made.runtime.ports.tcp.values():
            for connection in list(opened.listener_port.connections):
                connection.abort()
        await runner.cleanup()


def example(name: str):
    return pytest.mark.example(name)


@example("hello")
async def test_hello(served: Served) -> None:
    assert (await served.ask()).body == "Hello, world!\n"
    assert (await served.ask("/?name=Ada")).body == "Hello, Ada!\n"


@example("echo")
async def test_echo(served: Served) -> None:
    answer = await served.ask(method="POST", data=b"ping", headers={"Content-Type": "text/x-ping"})
    assert (answer.body, answer.headers["content-type"]) == ("ping", "text/x-ping")
    assert (await served.ask(method="POST", data=b"x" * 70_000)).status == 413


@example("proxy")
async def test_proxy(served: Served) -> None:
    answer = await served.ask("/a?b")
    assert (answer.body, answer.headers["via"], "server" in answer.headers) == ("from the backend", "1.1 fsm", False)
    assert (served.seen[0].path, served.seen[0].headers["x-client"]) == ("/a?b", "127.0.0.1")


@example("routing")
async def test_routing(served: Served) -> None:
    for path, host, port in (("/v1/x", "example.com", 8081), ("/v2/x", "example.com", 8082), ("/x", "beta.example.com", 8082)):
        assert (await served.ask(path, host=host)).status == 200
        assert served.seen[-1].port == served.moved[port]
    answer = await served.ask("/v3/x")
    assert (answer.status, answer.body) == (404, "No route\n")


@example("load-balancing")
async def test_load_balancing(served: Served) -> None:
    for _ in range(9):
        await served.ask()
    assert [one.port for one in served.seen] == [served.moved[port] for port in (8081, 8081, 8082)] * 3


@example("configuration")
async def test_configuration(served: Served) -> None:
    answer = await served.ask()
    assert (answer.headers["x-frame-options"], answer.headers["referrer-policy"]) == ("DENY", "no-referrer")


@example("plugins")
async def test_plugins(served: Served) -> None:
    answer = await served.ask()
    assert answer.headers["x-request-id"] == served.seen[0].headers["x-request-id"]
    assert answer.headers["server-timing"].startswith("backend;dur=")
    served.reply = lambda **_: web.Response(status=404)
    answer = await served.ask(headers={"X-Request-Id": "mine"})
    assert (answer.status, answer.body, answer.headers["x-request-id"]) == (404, "There is nothing here. Try /\n", "mine")


@example("sticky-sessions")
async def test_sticky_sessions(served: Served) -> None:
    ports = set()
    for _ in range(24):
        answer = await served.ask()
        cookie = answer.headers["set-cookie"].partition(";")[0]
        first = served.seen[-1].port
        ports.add(first)
        for _ in range(2):
            answer = await served.ask(headers={"Cookie": cookie})
            assert served.seen[-1].port == first
            assert "set-cookie" not in answer.headers
    assert len(ports) == 2


@example("connection-pool")
async def test_connection_pool(served: Served) -> None:
    served.hold = asyncio.Event()
    asked = [asyncio.create_task(served.ask()) for _ in range(3)]
    done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert [one.result().status for one in done] == [503]
    assert len(served.seen) == 2
    served.hold.set()
    assert sorted(one.status for one in await asyncio.gather(*asked)) == [200, 200, 503]
    assert (await served.ask()).status == 200


@example("path-rewriting")
async def test_path_rewriting(served: Served) -> None:
    await served.ask("/articles/7-hello?page=2")
    await served.ask("/~ada/notes")
    await served.ask("/else")
    assert [one.path for one in served.seen] == ["/api/articles/7?page=2", "/users/ada/notes", "/else"]


@example("access-lists")
async def test_access_lists(served: Served) -> None:
    for host, status in (("internal.example.com", 200), ("www.example.com", 403), ("other.example.com", 200)):
        assert (await served.ask(host=host)).status == status


@example("throttling")
async def test_throttling(served: Served) -> None:
    began = time.monotonic()
    answers = await asyncio.gather(*(served.ask() for _ in range(80)))
    took = time.monotonic() - began
    assert sorted(answer.status for answer in answers)[0] == 200
    assert sum(answer.status == 200 for answer in answers) <= 51 + 100 * took
    assert sum(answer.status == 429 for answer in answers) > 0
    assert 0.45 < took < 5


@example("extensions")
async def test_extensions(served: Served) -> None:
    assert [(await served.ask("/limited")).status for _ in range(4)] == [200, 200, 200, 429]
    assert [(await served.ask(f"/{path}")).status for path in ("asked", "guarded", "logged", "private")] == [200, 200, 200, 403]
    assert {(await served.ask("/faulty")).status for _ in range(40)} == {200, 503}
    assert (await served.ask("/partner")).status == 401
    assert (await served.ask("/partner", headers={"Authorization": "Bearer of-the-example"})).body == "hello\n"
    assert (await served.ask("/x")).status == 404
    assert (await served.ask("/x", headers={"Proxy-Tag": "tagged.example"})).body == "hello\n"
    series = served.runtime.programs.get("ListenerFilter/default/measured").measures.series
    assert any(name == "fgw_http_request_total" for _, name, _ in series)
    loop = asyncio.get_running_loop()
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    class Asking(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            answers.put_nowait(data)

    transport, _ = await loop.create_datagram_endpoint(Asking, remote_addr=("127.0.0.1", 5353 + served.offset))
    transport.sendto(dns.message.make_query("app.example.", "A").to_wire())
    async with asyncio.timeout(5):
        (answer,) = dns.message.from_wire(await answers.get()).answer
    assert [str(item) for item in answer] == ["10.0.0.1"]
    transport.close()


@example("policies")
async def test_policies(served: Served) -> None:
    pay = [await served.ask("/pay", host="shop.example") for _ in range(4)]
    assert [answer.status for answer in pay] == [200, 200, 200, 503]
    assert pay[3].headers["x-why"] == "busy"
    assert [(await served.ask(host="shop.example")).status for _ in range(6)] == [200] * 5 + [429]
    denied = await served.ask("/x", host="admin.example")
    assert (denied.status, denied.body) == (403, "staff only\n")
    began = time.monotonic()
    assert (await served.ask(host="other.example")).status == 502
    assert 0.05 <= time.monotonic() - began < 2


@example("cache")
async def test_cache(served: Served) -> None:
    first, second = await served.ask("/a.css"), await served.ask("/a.css")
    assert (first.body, second.body) == ("from the backend", "from the backend")
    assert ("x-cache" in first.headers, second.headers["x-cache"]) == (False, "hit")
    await served.ask("/a")
    await served.ask("/a")
    assert [one.path for one in served.seen] == ["/a.css", "/a", "/a"]


@example("static-files")
async def test_static_files(served: Served) -> None:
    answer = await served.ask("/style.css")
    assert (answer.body, answer.headers["content-type"]) == ("h1 { font-family: sans-serif }", "text/css")
    again = await served.ask("/style.css", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, "")
    assert "<h1>Hello</h1>" in (await served.ask("/")).body
    assert not served.seen
    assert (await served.ask("/else")).body == "from the backend"


@example("json-xml")
async def test_json_and_xml(served: Served) -> None:
    served.reply = lambda **_: web.Response(text="<order><id>7</id><by>Ada</by></order>", content_type="application/xml")
    answer = await served.ask(method="POST", json={"item": "tea", "count": 2})
    assert served.seen[0].body == "<request><item>tea</item><count>2</count></request>"
    assert served.seen[0].headers["content-type"] == "application/xml"
    assert json.loads(answer.body) == {"order": {"id": "7", "by": "Ada"}}


@example("logging")
async def test_logging(served: Served) -> None:
    got: list[list[dict[str, Any]]] = []

    async def collect(request: web.Request) -> web.Response:
        got.append([json.loads(line) for line in (await request.text()).splitlines()])
        return web.Response()

    app = web.Application()
    app.router.add_post("/log", collect)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    (port,) = free_ports(1)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    script = served.runtime.parts["script", "default/http-log"]
    moved = {"network": (f"127.0.0.1:{port}",), "config": script.config.replace("8123", str(port))}
    assert not await served.runtime.apply(Change(put=(replace(script, **moved),)))
    for path in ("/1", "/2", "/3", "/4"):
        await served.ask(path)
    await until(lambda: len(got) == 2)  # of three at once, and of what there is after a while
    assert [[line["path"] for line in batch] for batch in got] == [["/1", "/2", "/3"], ["/4"]]
    assert (
        got[0][0].items()
        >= {"method": "GET", "host": "example.com", "status": 200, "bytes": 16, "backend": "default/app:80"}.items()
    )
    await runner.cleanup()


@example("jwt")
async def test_jwt(served: Served) -> None:
    def token(key: str, **claims: Any) -> dict[str, str]:
        claims = {"sub": "ada", "exp": time.time() + 60, **claims}
        return {"Authorization": "Bearer " + jwt.encode(claims, f"the-key-of-{key}-is-at-least-32-bytes", "HS256")}

    assert (await served.ask("/orders/1", headers=token("orders"))).status == 200
    assert served.seen[0].headers["x-user"] == "ada"
    for path, headers, status, body in (
        ("/orders/1", {}, 401, "Invalid token\n"),
        ("/orders/1", {"Authorization": "Bearer nonsense"}, 401, "Invalid token\n"),
        ("/orders/1", token("orders", exp=time.time() - 1), 401, "Invalid token\n"),
        ("/orders/1", token("people"), 401, "Invalid signature\n"),
        ("/else", token("orders"), 401, "Invalid key\n"),
        ("/orders/1", token("orders", services=["people"]), 403, "Access denied\n"),
    ):
        answer = await served.ask(path, headers=headers)
        assert (answer.status, answer.body) == (status, body)


@example("tls-offload")
async def test_tls_offload(served: Served) -> None:
    answer = await served.ask("/a?b", host="shop.example.com")
    assert (answer.status, answer.headers["location"]) == (308, "https://shop.example.com/a?b")
    context = ssl._create_unverified_context()
    how = {"scheme": "https", "port": 443, "ssl": context, "server_hostname": "shop.example.com"}
    answer = await served.ask("/a", host="shop.example.com", **how)
    assert (answer.status, answer.headers["strict-transport-security"]) == (200, "max-age=31536000")
    assert served.seen[0].headers["x-tls"] == "offloaded"
