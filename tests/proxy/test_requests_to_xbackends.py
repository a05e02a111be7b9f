"""XBackends over real sockets (GEP-4894): pods by a selector, sessions of their own, and the protocols that they ask for."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trustme
import yaml
from support.certificates import proving
from support.http2_peers import Backend2
from support.proxy import OK, Proxy, Server
from support.translated import gateway, http_route, serve, service

REF = "group: gateway.networking.x-k8s.io, kind: XBackend"
TO_SHOP = f"backendRefs: [{{{REF}, name: shop}}]"


def xbackend(more: str = "", name: str = "shop") -> str:
    return f"""
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {{name: {name}, namespace: default}}
spec: {{type: EndpointSelector, endpointSelector: {{matchLabels: {{app: {name}}}}}, port: {{number: 80}}{more}}}
"""


def pods(*ports: int, name: str = "shop") -> str:
    """Slices of pods on loopback: one each, as each has a port of its own here."""
    return "---".join(
        f"""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{port}, namespace: default, labels: {{gateway.flomesh.io/xbackend: {name}}}}}
addressType: IPv4
endpoints: [{{addresses: [127.0.0.1]}}]
ports: [{{port: {port}}}]
"""
        for port in ports
    )


@pytest.fixture
async def third() -> AsyncIterator[Server]:
    made = await Server().start()
    yield made
    await made.stop()


def numbered(*servers: Server) -> None:
    for number, one in enumerate(servers):
        one.default = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number


async def test_requests_are_shared_out_among_its_pods(proxy: Proxy, server: Server, other: Server) -> None:
    numbered(server, other)
    scene = (gateway(), xbackend(), http_route(f"[{{{TO_SHOP}}}]"))
    await serve(proxy, *scene, pods(server.port, other.port))
    assert Counter([(await proxy.get())[2] for _ in range(10)]) == {b"0": 5, b"1": 5}
    await serve(proxy, *scene, pods(other.port))
    assert Counter([(await proxy.get())[2] for _ in range(4)]) == {b"1": 4}
    await serve(proxy, *scene)
    assert (await proxy.get())[0] == 503


COOKIE = ", sessionPersistence: {type: Cookie, cookie: {name: shop}}"
HEADER = ", sessionPersistence: {type: Header, header: {name: X-Shop}}"


@pytest.mark.parametrize("how", [COOKIE, HEADER])
async def test_a_session_binds_within_it_after_the_split(
    proxy: Proxy, server: Server, other: Server, third: Server, how: str
) -> None:
    """Its own sessions are for its own requests: a share of the rule's goes to a Service, which has none."""
    numbered(server, other, third)
    rules = f"[{{backendRefs: [{{{REF}, name: shop, weight: 3}}, {{name: plain, port: 80, weight: 1}}]}}]"
    await serve(proxy, gateway(), xbackend(how), pods(server.port, other.port), service("plain", third.port), http_route(rules))
    held: dict[str, str] = {}
    seen: Counter[bytes] = Counter()
    for _ in range(20):
        status, got, body = await proxy.get(**held)
        assert status == 200
        seen[body] += 1
        given = got.get("set-cookie", "").partition(";")[0] or got.get("x-shop", "")
        if given:
            assert body != b"2"
            assert not held, "told once"
            held = {"Cookie" if how == COOKIE else "X-Shop": given}
    assert seen[b"2"] == 5
    assert sorted((seen[b"0"], seen[b"1"])) == [0, 15]
    assert held


async def test_its_sessions_are_the_same_whatever_rule_leads_there(proxy: Proxy, server: Server, other: Server) -> None:
    numbered(server, other)
    rules = f"[{{{TO_SHOP}}}, {{matches: [{{path: {{value: /second}}}}], {TO_SHOP}}}]"
    await serve(proxy, gateway(), xbackend(COOKIE), pods(server.port, other.port), http_route(rules))
    _, got, first = await proxy.get()
    cookie = got["set-cookie"].partition(";")[0]
    for path in ("/second", "/", "/second", "/second"):
        _, got, body = await proxy.get(path, Cookie=cookie)
        assert body == first
        assert "set-cookie" not in got


async def test_what_the_rule_says_of_sessions_goes_first(proxy: Proxy, server: Server, other: Server) -> None:
    numbered(server, other)
    rules = f"[{{sessionPersistence: {{type: Header, header: {{name: X-Rule}}}}, {TO_SHOP}}}]"
    await serve(proxy, gateway(), xbackend(COOKIE), pods(server.port, other.port), http_route(rules))
    _, got, first = await proxy.get()
    assert "set-cookie" not in got
    for _ in range(4):
        assert (await proxy.get(X_Rule=got["x-rule"]))[2] == first


@pytest.mark.parametrize(
    "lines",
    [
        "Cookie: shop=stale; shop={}", "Cookie: shop={}; shop=stale", "Cookie: a=b\r\nCookie: shop={}", "Cookie: a=b,c; shop={}",
        "Cookie: shop=stale\r\nCookie: shop={}", 'Cookie: shop="{}"', "Cookie: shop=__x_{}._",
    ],
)  # fmt: skip
async def test_a_cookie_is_found_among_others_of_its_name(proxy: Proxy, server: Server, other: Server, lines: str) -> None:
    await _is_held(proxy, server, other, COOKIE, lines)


@pytest.mark.parametrize("lines", ["X-Shop: stale\r\nX-Shop: {}", "X-Shop: {}, stale", "X-Shop: {}\r\nX-Shop:"])
async def test_a_header_is_found_among_others_of_its_name(proxy: Proxy, server: Server, other: Server, lines: str) -> None:
    await _is_held(proxy, server, other, HEADER, lines)


async def _is_held(proxy: Proxy, server: Server, other: Server, how: str, lines: str) -> None:
    numbered(server, other)
    await serve(proxy, gateway(), xbackend(how), pods(server.port, other.port), http_route(f"[{{{TO_SHOP}}}]"))
    _, got, first = await proxy.get()
    token = got.get("x-shop") or got["set-cookie"].partition(";")[0].removeprefix("shop=")
    request = f"GET / HTTP/1.1\r\nHost: a\r\n{lines.format(token)}\r\nConnection: close\r\n\r\n"
    for _ in range(4):
        answer = await proxy.talk(request.encode())
        assert answer.endswith(b"\r\n\r\n" + first)
        assert b"shop" not in answer.lower()


# --- protocols ---


Secure = Callable[..., Awaitable[int]]


def tls(authority: trustme.CA) -> str:
    """An authority, and what an XBackend says to believe it."""
    data = {"ca.crt": authority.cert_pem.bytes().decode()}
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "default"}, "data": data}
    )


BELIEVING = (
    ", tls: {mode: ServerOnly, validation: {hostname: b.internal, caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]}}"
)


class Speaking:
    """A backend of TLS that answers as HTTP/1.1 does, and remembers what was agreed on."""

    def __init__(self) -> None:
        self.agreed: list[str | None] = []
        self.heads: list[bytes] = []

    async def start(self, context: ssl.SSLContext) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        return int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.agreed.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if b"websocket" in self.heads[-1]:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
                writer.write(await reader.read(100))
            else:
                writer.write(OK)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def stop(self) -> None:
        self._server.close()
        await asyncio.sleep(0)


@pytest.fixture
async def speaking() -> AsyncIterator[Speaking]:
    made = Speaking()
    yield made
    await made.stop()


@pytest.mark.parametrize("protocol", ["HTTP2", "GRPC"])
async def test_http2_over_tls_is_agreed_on(proxy: Proxy, authority: trustme.CA, speaking: Speaking, protocol: str) -> None:
    backend = await Backend2().start(proving(authority, "http/1.1", "h2"))
    scene = (gateway(), tls(authority), xbackend(f", protocol: {protocol}{BELIEVING}"), http_route(f"[{{{TO_SHOP}}}]"))
    await serve(proxy, *scene, pods(backend.port))
    assert (await proxy.get())[0] == 200
    assert backend.seen[0].headers[":scheme"] == "https"
    await backend.stop()
    for offered in (("http/1.1",), ()):  # who does not agree is not spoken to
        port = await speaking.start(proving(authority, *offered))
        await serve(proxy, *scene, pods(port))
        assert (await proxy.get())[0] == 503
        assert not speaking.heads
        await speaking.stop()


async def test_http11_is_never_http2(proxy: Proxy, authority: trustme.CA, speaking: Speaking) -> None:
    port = await speaking.start(proving(authority, "h2", "http/1.1"))  # it would rather
    scene = (gateway(), tls(authority), xbackend(f", protocol: HTTP11{BELIEVING}"), http_route(f"[{{{TO_SHOP}}}]"))
    await serve(proxy, *scene, pods(port))
    assert (await proxy.get())[0] == 200
    assert speaking.agreed == ["http/1.1"]
    assert b" HTTP/1.1\r\n" in speaking.heads[0]


async def test_websocket_over_tls(proxy: Proxy, authority: trustme.CA, speaking: Speaking) -> None:
    port = await speaking.start(proving(authority, "http/1.1"))
    scene = (gateway(), tls(authority), xbackend(f", protocol: WSS{BELIEVING}"), http_route(f"[{{{TO_SHOP}}}]"))
    await serve(proxy, *scene, pods(port))
    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.write(b"frames")
        assert await reader.readexactly(6) == b"frames"
    writer.close()


async def test_bytes_that_are_passed_on_are_promised_to_be_nothing(
    proxy: Proxy, authority: trustme.CA, speaking: Speaking
) -> None:
    """A TCPRoute does not know what its clients speak: a backend that were offered http/1.1 might hold it to that."""
    port = await speaking.start(proving(authority, "imap", "http/1.1"))
    route = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {{name: t, namespace: default}}
spec: {{parentRefs: [{{name: gw}}], rules: [{{{TO_SHOP}}}]}}
"""
    listeners = "[{name: tcp, port: 80, protocol: TCP}]"
    await serve(proxy, gateway(listeners), tls(authority), xbackend(BELIEVING), route, pods(port))
    assert (await proxy.talk(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half_close=False)) == OK
    assert speaking.agreed == [None]
