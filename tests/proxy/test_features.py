"""Features of the Gateway API v1.7.0 that the conformance suite v1.6.3 does not test, each named as the API names it.

From objects to answers: YAML is translated as on a cluster, and asked over real sockets.
"""

from __future__ import annotations

import asyncio
import ssl

import grpc
import pytest
import trustme
import yaml
from support.certificates import proving
from support.grpc_service import Service as Calls
from support.grpc_service import raw
from support.http2_peers import client
from support.proxy import OK, Proxy, Server
from support.translated import gateway, http_route, serve, service, world

from controller.objects.base import Ref
from controller.translate import translate
from controller.translate.shared.status import GatewayStatus


async def test_HTTPRouteBackendURLRewrite(proxy: Proxy, server: Server, other: Server) -> None:
    rules = """[{backendRefs: [
      {name: a, port: 80, filters: [{type: URLRewrite, urlRewrite: {hostname: a.internal, path: {type: ReplaceFullPath, replaceFullPath: /A}}}]},
      {name: b, port: 80, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /B}}}]},
    ], matches: [{path: {value: /x}}]}]"""
    await serve(proxy, gateway(), service("a", server.port), service("b", other.port), http_route(rules))
    assert [(await proxy.get("/x/y?z"))[0] for _ in range(4)] == [200] * 4
    assert {seen.split(b"\r\nX-For")[0].split(b"\r\nConn")[0] for seen in server.seen} == {
        b"GET /A?z HTTP/1.1\r\nHost: a.internal"
    }
    assert {seen.split(b"\r\nX-For")[0].split(b"\r\nConn")[0] for seen in other.seen} == {
        b"GET /B/y?z HTTP/1.1\r\nHost: example.com"
    }


async def test_HTTPRouteRetryCodes(proxy: Proxy, server: Server) -> None:
    rules = "[{retry: {codes: [500, 503], attempts: 2}, backendRefs: [{name: a, port: 80}]}]"
    await serve(proxy, gateway(), service("a", server.port), http_route(rules))
    for replies, status in (([500, 503], 200), ([503, 500, 503], 503), ([502], 502)):
        server.seen.clear()
        server.replies = [b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % code for code in replies]
        assert (await proxy.get())[0] == status
        assert len(server.seen) == {200: 3, 503: 3, 502: 1}[status]


async def test_HTTPRouteRetryCodes_attempts_default_to_1_and_may_be_0(proxy: Proxy, server: Server) -> None:
    for attempts, asked in (("", 2), (", attempts: 0", 1)):
        rules = f"[{{retry: {{codes: [500]{attempts}}}, backendRefs: [{{name: a, port: 80}}]}}]"
        await serve(proxy, gateway(), service("a", server.port), http_route(rules))
        server.seen.clear()
        server.replies = [b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"] * 2
        assert (await proxy.get())[0] == 500
        assert len(server.seen) == asked
        server.replies.clear()


async def test_HTTPRouteRetryConnectionError(proxy: Proxy, server: Server) -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: bytes) -> None:
        writer.transport.abort()

    rules = "[{retry: {codes: [500], attempts: 2}, backendRefs: [{name: a, port: 80}]}]"
    await serve(proxy, gateway(), service("a", server.port), http_route(rules))
    server.replies = [reset, reset]
    assert (await proxy.get())[0] == 200
    server.replies = [reset] * 3
    assert (await proxy.get())[0] == 503


async def test_HTTPRouteRetry_within_timeouts(proxy: Proxy, server: Server) -> None:
    async def never(*_: object) -> None:
        await asyncio.sleep(5)

    rules = """[{retry: {codes: [500], attempts: 3}, timeouts: {request: 400ms, backendRequest: 100ms},
      backendRefs: [{name: a, port: 80}]}]"""
    await serve(proxy, gateway(), service("a", server.port), http_route(rules))
    server.replies = [never, never]
    assert (await proxy.get())[0] == 200
    server.replies = [never] * 9
    assert (await proxy.get())[0] == 504


async def test_GRPCRouteRequestHeaderModifier(proxy: Proxy) -> None:
    calls = Calls()
    running = grpc.aio.server()
    running.add_generic_rpc_handlers((calls,))
    port = running.add_insecure_port("127.0.0.1:0")
    await running.start()
    route = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: g, namespace: default}
spec:
  parentRefs: [{name: gw}]
  rules:
  - matches: [{method: {service: test.Test}}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-Set, value: new}], add: [{name: X-Add, value: more}], remove: [X-Gone]}}
    backendRefs: [{name: calls, port: 80}]
"""
    await serve(proxy, gateway(), service("calls", port), route)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        call = channel.unary_unary("/test.Test/Empty", raw, raw)
        await call(b"", metadata=(("x-set", "old"), ("x-add", "some"), ("x-gone", "1"), ("x-kept", "1")))
    metadata = calls.seen[0]
    assert (metadata["x-set"], metadata["x-add"], metadata["x-kept"]) == ("new", "some,more", "1")
    assert "x-gone" not in metadata
    await running.stop(0)


@pytest.mark.parametrize("is_older", [True, False])
async def test_GatewayRouteHostnameIntersectionPrecedence(proxy: Proxy, server: Server, other: Server, is_older: bool) -> None:
    """Where two routes come to the same name at a listener, what they wrote decides: the more specific goes first, whatever its
    age and the length of its matches; what none of its rules match goes on to the other one."""
    listeners = "[{name: http, port: 80, protocol: HTTP, hostname: 'x.a.example.com'}]"
    long = "[{matches: [{path: {type: Exact, value: /both}}, {path: {value: /wide}}], backendRefs: [{name: a, port: 80}]}]"
    short = "[{matches: [{path: {value: /both}}, {path: {value: /narrow}}], backendRefs: [{name: b, port: 80}]}]"
    ages = ("2020-01-01T00:00:00Z", "2026-01-01T00:00:00Z")
    wide = http_route(long, "wide", ", hostnames: ['*.example.com']", created=ages[not is_older])
    narrow = http_route(short, "narrow", ", hostnames: ['*.a.example.com', 'y.example.com']", created=ages[is_older])
    translation = await serve(proxy, gateway(listeners), service("a", server.port), service("b", other.port), wide, narrow)
    for path, seen in (("/both", (0, 1)), ("/wide/1", (1, 1)), ("/narrow/1", (1, 2)), ("/both", (1, 3))):
        assert (await proxy.get(path, host="x.a.example.com"))[0] == 200
        assert (len(server.seen), len(other.seen)) == seen, path
    assert (await proxy.get("/narrow", host="y.example.com"))[0] == 404
    assert (await proxy.get("/elsewhere", host="x.a.example.com"))[0] == 404
    status = translation.statuses[Ref("Gateway", "default", "gw")]
    assert isinstance(status, GatewayStatus)
    assert status.listeners[0].attached == 2


async def test_GatewayListenerFilters(proxy: Proxy, server: Server, other: Server) -> None:
    listeners = """[
      {name: guarded, port: 80, protocol: HTTP, hostname: guarded.example, filters: {requests: [
        {type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: auth, port: 80}, http: {allowedResponseHeaders: [x-id]}}}]}},
      {name: open, port: 80, protocol: HTTP, hostname: open.example}]"""
    rules = "[{matches: [{path: {value: /there}}], backendRefs: [{name: a, port: 80}]}]"
    await serve(proxy, gateway(listeners), service("a", server.port), service("auth", other.port), http_route(rules))
    other.default = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    assert (await proxy.get("/there", host="guarded.example"))[0] == 401
    # Before a request is matched: who may not pass does not learn which routes there are.
    assert (await proxy.get("/not-there", host="guarded.example"))[0] == 401
    assert (await proxy.get("/there", host="open.example"))[0] == 200
    other.default = b"HTTP/1.1 200 OK\r\nX-Id: 7\r\nContent-Length: 0\r\n\r\n"
    assert (await proxy.get("/there", host="guarded.example"))[0] == 200
    assert b"\r\nX-Id: 7\r\n" in server.seen[-1]
    assert (await proxy.get("/not-there", host="guarded.example"))[0] == 404


async def test_GatewayListenerFilters_that_lead_nowhere_let_nothing_pass(proxy: Proxy, server: Server) -> None:
    listeners = """[{name: http, port: 80, protocol: HTTP, filters: {requests: [
      {type: ExternalAuth, externalAuth: {protocol: HTTP, backendRef: {name: none, port: 80}}}]}}]"""
    rules = "[{backendRefs: [{name: a, port: 80}]}]"
    translation = await serve(proxy, gateway(listeners), service("a", server.port), http_route(rules))
    assert (await proxy.get())[0] == 500
    status = translation.statuses[Ref("Gateway", "default", "gw")]
    assert isinstance(status, GatewayStatus)
    resolved = next(c for c in status.listeners[0].conditions if c.type == "ResolvedRefs")
    assert (resolved.status, resolved.reason) == ("False", "BackendNotFound")


@pytest.mark.parametrize(
    ("addresses", "reasons", "said"),
    [
        ("[{type: IPAddress, routability: Cluster}]", ("Accepted", "Pending"), [("10.0.0.9", "Cluster")]),
        ("[{type: IPAddress}]", ("Accepted", "Pending"), [("198.41.0.4", "")]),
        (
            "[{type: IPAddress, routability: gateway.flomesh.io/public}]",
            ("Accepted", "Pending"),
            [("198.41.0.4", "gateway.flomesh.io/public")],
        ),
        (
            "[{type: IPAddress, routability: gateway.flomesh.io/private}]",
            ("Accepted", "AddressNotUsable"),
            [("198.41.0.4", "gateway.flomesh.io/public")],
        ),
        ("[{type: IPAddress, routability: example.com/Moon}]", ("UnsupportedAddress", "Invalid"), None),
    ],
)
def test_GatewayAddressRoutability(addresses: str, reasons: tuple[str, str], said: list[tuple[str, str]] | None) -> None:
    own = """
apiVersion: v1
kind: Service
metadata: {name: gw-fsm-gateway-cls, namespace: default, labels: {gateway.networking.k8s.io/gateway-name: gw}}
spec: {clusterIP: 10.0.0.9}
status: {loadBalancer: {ingress: [{ip: 198.41.0.4}]}}
"""
    status = translate(world(gateway(more=f", addresses: {addresses}"), own)).statuses[Ref("Gateway", "default", "gw")]
    assert isinstance(status, GatewayStatus)
    assert (status.conditions[0].reason, status.conditions[1].reason) == reasons
    if said is not None:
        assert [(a.value, a.routability) for a in status.addresses] == said


def trust_bundle(authority: trustme.CA) -> str:
    pem = authority.cert_pem.bytes().decode().replace("\n", "\n    ")
    return f"""
apiVersion: certificates.k8s.io/v1beta1
kind: ClusterTrustBundle
metadata: {{name: ours}}
spec:
  trustBundle: |
    {pem}
"""


def policy(name: str, hostname: str) -> str:
    return f"""
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}, namespace: default}}
spec:
  targetRefs: [{{group: "", kind: Service, name: {name}}}]
  validation: {{hostname: {hostname}, caCertificateRefs: [{{group: certificates.k8s.io, kind: ClusterTrustBundle, name: ours}}]}}
"""


async def test_ClusterTrustBundle(proxy: Proxy, authority: trustme.CA) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.close()

    secure = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=proving(authority))
    port = secure.sockets[0].getsockname()[1]
    rules = "[{backendRefs: [{name: a, port: 80}]}]"
    parts = (gateway(), service("a", port), http_route(rules), policy("a", "b.internal"))
    await serve(proxy, *parts, trust_bundle(authority))
    assert (await proxy.get())[0] == 200
    await serve(proxy, *parts, trust_bundle(trustme.CA()))
    assert (await proxy.get())[0] == 503
    await serve(proxy, *parts)  # no such bundle
    assert (await proxy.get())[0] == 503
    secure.close()


async def test_BackendTLSPolicy_of_a_GRPCRoute(proxy: Proxy, authority: trustme.CA) -> None:
    calls = Calls()
    running = grpc.aio.server()
    running.add_generic_rpc_handlers((calls,))
    issued = authority.issue_cert("b.internal")
    chain = b"".join(one.bytes() for one in issued.cert_chain_pems)
    port = running.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(issued.private_key_pem.bytes(), chain)]))
    await running.start()
    route = """
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: g, namespace: default}
spec: {parentRefs: [{name: gw}], rules: [{backendRefs: [{name: a, port: 80}]}]}
"""
    await serve(proxy, gateway(), service("a", port), route, policy("a", "b.internal"), trust_bundle(authority))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        assert await channel.unary_unary("/test.Test/Unary", raw, raw)(b"x") == b"x"
    await running.stop(0)


async def test_BackendTLSPolicy_of_a_TLSRoute_that_terminates(proxy: Proxy, authority: trustme.CA) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    secure = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=proving(authority))
    port = secure.sockets[0].getsockname()[1]
    issued = authority.issue_cert("www.example")
    chain = "".join(one.bytes().decode() for one in issued.cert_chain_pems)
    secret = yaml.safe_dump({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "default"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": chain, "tls.key": issued.private_key_pem.bytes().decode()},
    })  # fmt: skip
    listeners = "[{name: tls, port: 80, protocol: TLS, hostname: www.example, tls: {certificateRefs: [{name: cert}]}}]"
    route = """
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: t, namespace: default}
spec: {parentRefs: [{name: gw}], hostnames: [www.example], rules: [{backendRefs: [{name: a, port: 80}]}]}
"""
    await serve(
        proxy, gateway(listeners), service("a", port), route, secret, policy("a", "b.internal"), trust_bundle(authority)
    )  # fmt: skip
    context = ssl.create_default_context()
    authority.configure_trust(context)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname="www.example")
    assert await asyncio.wait_for(reader.read(), 5) == b"hello"
    writer.close()
    secure.close()


async def test_HTTPRouteBackendProtocolH2C_for_clients_of_both_kinds(proxy: Proxy) -> None:
    from support.http2_peers import Backend2

    backend = await Backend2().start()
    rules = "[{backendRefs: [{name: a, port: 80}]}]"
    await serve(proxy, gateway(), service("a", backend.port, ", appProtocol: kubernetes.io/h2c"), http_route(rules))
    assert (await proxy.get())[0] == 200
    assert (await (await client(proxy.port)).get()).status == 200
    await backend.stop()


async def test_default_Gateways(proxy: Proxy, server: Server) -> None:
    """GEP-3793, which has no name of a feature: a route that names no Gateway is served, as long as one takes it."""
    rules = "[{backendRefs: [{name: a, port: 80}]}]"
    route = http_route(rules).replace("parentRefs: [{name: gw}]", "useDefaultGateways: All")
    for scope, status in ((", defaultScope: All", 200), ("", 404), (", defaultScope: All", 200), (", defaultScope: None", 404)):
        translation = await serve(proxy, gateway(more=scope), service("a", server.port), route)
        assert (await proxy.get())[0] == status
        said = translation.statuses[Ref("Gateway", "default", "gw")]
        assert isinstance(said, GatewayStatus)
        assert any(one.type == "DefaultGateway" for one in said.conditions) == (status == 200)
