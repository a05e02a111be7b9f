"""What protects, over real connections: from objects, as a cluster has them, to what a client gets.

`tests/unit/test_protection.py` says for every protocol and mode where each field is enforced; here each mechanism is tried.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trustme
from support.proxy import OK, Proxy, Server, parsed

from controller.objects.kinds import KINDS
from controller.state.world import World
from controller.translate import Translation, translate
from gateway import snapshot
from gateway.snapshot import Change

HOST = "www.example"


def put(world: World, kind: str, name: str, spec: Any = None, **rest: Any) -> None:
    metadata = {"name": name, "namespace": "default" if KINDS[kind].namespaced else "", **rest.pop("metadata", {})}
    value = {"metadata": metadata, **({"spec": spec} if spec is not None else {}), **rest}
    world.put(msgspec.convert(value, KINDS[kind].type))


def service(world: World, name: str, number: int, protocol: str = "TCP") -> None:
    put(world, "Service", name, {"ports": [{"name": "p", "port": 80, "protocol": protocol}]})
    put(
        world, "EndpointSlice", name, metadata={"labels": {"kubernetes.io/service-name": name}},
        endpoints=[{"addresses": ["127.0.0.1"]}], ports=[{"name": "p", "port": number, "protocol": protocol}],
    )  # fmt: skip


def base(authority: trustme.CA, *listeners: dict[str, Any], **gateway: Any) -> World:
    world = World()
    world.note(("setting", "loopback backends"), True)
    put(world, "GatewayClass", "fsm-gateway-cls", {"controllerName": "flomesh.io/gateway-controller"})
    every = [{"name": f"l{index}", "port": 80, **one} for index, one in enumerate(listeners)]
    meta = {"annotations": gateway.pop("annotations", {})}
    put(world, "Gateway", "gw", {"gatewayClassName": "fsm-gateway-cls", "listeners": every, **gateway}, metadata=meta)
    mine = authority.issue_cert(HOST, "other.example", "app.default.svc", "helper.default.svc")
    data = {
        "tls.crt": b"".join(one.bytes() for one in mine.cert_chain_pems).decode(),
        "tls.key": mine.private_key_pem.bytes().decode(),
        "ca.crt": authority.cert_pem.bytes().decode(),
    }
    put(world, "Secret", "cert", type="kubernetes.io/tls", stringData=data)
    put(world, "ConfigMap", "ca", data={"ca.crt": data["ca.crt"]})
    return world


def route(world: World, kind: str, **rule: Any) -> None:
    spec: dict[str, Any] = {"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": "app", "port": 80}], **rule}]}
    put(world, kind, f"r-{kind.lower()}", spec)


def policy(world: World, kind: str, target: str, name: str, **said: Any) -> None:
    group = "" if target == "Service" else "gateway.networking.k8s.io"
    put(world, kind, "p", {"targetRef": {"group": group, "kind": target, "name": name}, **said})


async def serve(proxy: Proxy, world: World) -> Translation:
    world.changed |= {("object", one.ref) for one in world}  # a world tells of its changes once
    made = translate(world)
    parts = sorted(made.parts.get(("default", "gw"), {}).values(), key=lambda part: snapshot.RANK[snapshot.key(part)[0]])
    problems = await proxy.runtime.apply(Change(put=tuple(parts), reset=True))
    assert not problems, problems
    return made


CERT = {"certificateRefs": [{"name": "cert"}]}
HTTPS = {"protocol": "HTTPS", "tls": CERT}
TERMINATE = {"protocol": "TLS", "tls": {"mode": "Terminate", **CERT}}
FRONTEND = {"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}}


async def asked(
    proxy: Proxy, authority: trustme.CA, mine: trustme.CA | None = None, host: str = HOST, newest: Any = ssl.TLSVersion.TLSv1_3
) -> str:
    """What becomes of a request over TLS by a client with a certificate of `mine`."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.maximum_version = newest
    if mine is not None:
        mine.issue_cert("client@example").configure_cert(context)
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname=host)
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            answer = await reader.read(1000)
            writer.close()
    except (ssl.SSLError, ConnectionError):
        return "refused"
    if not answer:
        return "refused"
    return "served" if answer == OK else str(parsed(answer)[0])


# --- clients' certificates ---

SPOTS: dict[str, tuple[dict[str, Any], ...]] = {
    "HTTPS": (HTTPS,),
    "TLS terminated": (TERMINATE,),
    "both at one port": ({**HTTPS, "hostname": HOST}, {**TERMINATE, "hostname": "other.example"}),
    "beside passthrough": ({**TERMINATE, "hostname": HOST}, {"protocol": "TLS", "hostname": "x.example", "tls": {"mode": "Passthrough"}}),
}  # fmt: skip


@pytest.mark.parametrize("by", ["default", "perPort", "GatewayTLSPolicy", "GatewayTLSPolicy at a port"])
@pytest.mark.parametrize("spot", SPOTS)
async def test_clients_prove_who_they_are(
    proxy: Proxy, server: Server, authority: trustme.CA, stranger: trustme.CA, spot: str, by: str
) -> None:
    frontend: dict[str, Any] = {}
    if by == "default":
        frontend = {"tls": {"frontend": {"default": FRONTEND}}}
    elif by == "perPort":
        frontend = {"tls": {"frontend": {"default": {}, "perPort": [{"port": 80, "tls": FRONTEND}]}}}
    for is_asked in (False, True):
        world = base(authority, *SPOTS[spot], **(frontend if is_asked else {}))
        service(world, "app", server.port)
        route(world, "HTTPRoute")
        route(world, "TLSRoute")
        if is_asked and by.startswith("GatewayTLSPolicy"):
            config = {"config": {"mTLS": True}}
            policy(
                world, "GatewayTLSPolicy", "Gateway", "gw", **({"ports": [{"port": 80, **config}]} if "port" in by else config)
            )
        await serve(proxy, world)
        for host in {HOST, "other.example"} if spot == "both at one port" else {HOST}:
            assert await asked(proxy, authority, None, host) == ("refused" if is_asked else "served")
            assert await asked(proxy, authority, authority, host) == "served"
            if is_asked:
                assert await asked(proxy, authority, stranger, host) == "refused"


async def test_a_set_s_listener_asks_as_its_gateway_does(proxy: Proxy, server: Server, authority: trustme.CA) -> None:
    world = base(
        authority, {"protocol": "TCP", "port": 81}, allowedListeners={"namespaces": {"from": "Same"}},
        tls={"frontend": {"default": FRONTEND}},
    )  # fmt: skip
    put(world, "ListenerSet", "set", {"parentRef": {"name": "gw"}, "listeners": [{"name": "x", "port": 80, **TERMINATE}]})
    service(world, "app", server.port)
    put(
        world,
        "TLSRoute",
        "r",
        {"parentRefs": [{"kind": "ListenerSet", "name": "set"}], "rules": [{"backendRefs": [{"name": "app", "port": 80}]}]},
    )
    made = translate(world)
    parts = [
        part for part in made.parts["default", "gw"].values() if not (isinstance(part, snapshot.Listener) and part.port == 81)
    ]
    parts.sort(key=lambda part: snapshot.RANK[snapshot.key(part)[0]])
    assert not await proxy.runtime.apply(Change(put=tuple(parts), reset=True))
    assert await asked(proxy, authority) == "refused"
    assert await asked(proxy, authority, authority) == "served"


async def test_a_policy_that_cannot_be_read_lets_nobody_in(proxy: Proxy, server: Server, authority: trustme.CA) -> None:
    """mTLS that is no truth value: the listener is not there, rather than there without asking."""
    world = base(authority, HTTPS)
    service(world, "app", server.port)
    route(world, "HTTPRoute")
    await serve(proxy, world)
    assert await asked(proxy, authority) == "served"
    policy(world, "GatewayTLSPolicy", "Gateway", "gw", config={"mTLS": "yes"})
    await serve(proxy, world)
    assert await asked(proxy, authority, authority) == "refused"


@pytest.mark.parametrize("spot", ["HTTPS", "TLS terminated", "both at one port", "beside passthrough"])
async def test_the_oldest_version(proxy: Proxy, server: Server, authority: trustme.CA, spot: str) -> None:
    for minimum, outcome in (("1.2", "served"), ("1.3", "refused")):
        options = {"gateway.flomesh.io/minimum-tls-version": minimum}
        listeners = [
            {**one, "tls": {**one["tls"], "options": options}} if one["tls"].get("mode") != "Passthrough" else one
            for one in SPOTS[spot]
        ]  # fmt: skip
        world = base(authority, *listeners)
        service(world, "app", server.port)
        route(world, "HTTPRoute")
        route(world, "TLSRoute")
        await serve(proxy, world)
        assert await asked(proxy, authority, newest=ssl.TLSVersion.TLSv1_2) == outcome
        assert await asked(proxy, authority) == "served"


async def test_a_port_whose_tls_cannot_be_put_in_force_lets_nobody_in(
    proxy: Proxy, server: Server, authority: trustme.CA
) -> None:
    """Listeners of one port that want different cipher suites never come from our controller: nobody is let in half-checked."""
    world = base(
        authority, {**HTTPS, "hostname": HOST}, {**HTTPS, "hostname": "other.example"}, tls={"frontend": {"default": FRONTEND}}
    )
    service(world, "app", server.port)
    route(world, "HTTPRoute")
    made = translate(world).parts["default", "gw"]
    odd = made["listener", "default/gw/l1"]
    assert isinstance(odd, snapshot.Listener)
    made["listener", odd.name] = msgspec.structs.replace(odd, ciphers="ECDHE-RSA-AES256-GCM-SHA384")
    parts = sorted(made.values(), key=lambda part: snapshot.RANK[snapshot.key(part)[0]])
    assert await proxy.runtime.apply(Change(put=tuple(parts), reset=True))
    assert await asked(proxy, authority) == "refused"
    assert await asked(proxy, authority, authority) == "refused"


# --- addresses ---


class Datagram(asyncio.DatagramProtocol):
    """Says what it hears, or remembers it."""

    def __init__(self, *, echoes: bool = False) -> None:
        self.echoes = echoes
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.put_nowait(data)
        if self.echoes:
            self.transport.sendto(data, addr)


@pytest.fixture
async def echo() -> AsyncIterator[Datagram]:
    made = Datagram(echoes=True)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, local_addr=("127.0.0.1", 0))
    yield made
    transport.close()


async def passes(proxy: Proxy, authority: trustme.CA, protocol: str) -> bool:
    """Whether a client of 127.0.0.1 gets anything."""
    if protocol == "UDP":
        asking = Datagram()
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: asking, remote_addr=("127.0.0.1", proxy.port)
        )
        port = proxy.runtime.ports.udp[80]
        refused, tally = port.refused, sum(one.refused for one in proxy.runtime.tallies.values())
        transport.sendto(b"x")
        try:
            async with asyncio.timeout(5):
                while asking.heard.empty() and (port.refused, sum(one.refused for one in proxy.runtime.tallies.values())) == (
                    refused,
                    tally,
                ):
                    await asyncio.sleep(0.001)
            return not asking.heard.empty()
        finally:
            transport.close()
    if protocol in ("HTTPS", "TLS"):
        return await asked(proxy, authority) == "served"
    reader, writer = await proxy.connect()
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: www.example\r\n\r\n")
        async with asyncio.timeout(5):
            return (await reader.read(1000)).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False
    finally:
        writer.close()


ROUTES = {"HTTP": "HTTPRoute", "HTTPS": "HTTPRoute", "TLS": "TLSRoute", "TCP": "TCPRoute", "UDP": "UDPRoute"}
LISTENERS: dict[str, dict[str, Any]] = {
    "HTTP": {"protocol": "HTTP"}, "HTTPS": HTTPS, "TLS": TERMINATE, "TCP": {"protocol": "TCP"}, "UDP": {"protocol": "UDP"},
}  # fmt: skip


def stage(authority: trustme.CA, protocol: str, server: Server, echo: Datagram) -> World:
    world = base(authority, LISTENERS[protocol])
    number = echo.transport.get_extra_info("sockname")[1] if protocol == "UDP" else server.port
    service(world, "app", number, "UDP" if protocol == "UDP" else "TCP")
    route(world, ROUTES[protocol])
    return world


@pytest.mark.parametrize("protocol", LISTENERS)
@pytest.mark.parametrize(
    "how", ["AccessControlPolicy", "AccessControlPolicy at a port", "ListenerFilter", "ListenerFilter for routes"]
)
async def test_addresses(proxy: Proxy, server: Server, echo: Datagram, authority: trustme.CA, protocol: str, how: str) -> None:
    """Who may not connect does not, whatever is spoken."""
    for lists, outcome in (({"blacklist": ["127.0.0.1"]}, False), ({"whitelist": ["127.0.0.0/8"]}, True)):
        world = stage(authority, protocol, server, echo)
        if how.startswith("Access"):
            said = {"ports": [{"port": 80, "config": lists}]} if "port" in how else {"config": lists}
            policy(world, "AccessControlPolicy", "Gateway", "gw", **said)
        else:
            spec = {"forbidden": lists.get("blacklist", []), "allowed": lists.get("whitelist", [])}
            put(world, "IPRestriction", "ips", {name: given for name, given in spec.items() if given})
            aspect = "Route" if "routes" in how else "Listener"
            given = {"type": "IPRestriction", "configRef": {"kind": "IPRestriction", "name": "ips"}, "aspect": aspect}
            put(world, "ListenerFilter", "f", {**given, "targetRefs": [{"name": "gw"}]})
        await serve(proxy, world)
        assert await passes(proxy, authority, protocol) == outcome
    if protocol == "UDP":
        assert echo.heard.qsize() == 1
    else:
        assert len(server.seen) == 1


@pytest.mark.parametrize("protocol", LISTENERS)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("AccessControlPolicy", {"config": {"blacklist": ["10.0.0.300"]}}),
        ("AccessControlPolicy", {"config": None}),
        ("AccessControlPolicy", {"ports": "x"}),
        ("RateLimitPolicy", {"config": {"requests": "x", "statTimeWindow": 1}, "bps": 10_000_000}),
        ("RateLimitPolicy", {"bps": "fast"}),
        ("ListenerFilter", {"type": "IPRestriction", "targetRefs": [{"name": "gw"}]}),
        ("ListenerFilter", {"type": ["x"], "aspect": "Route", "targetRefs": [{"name": "gw"}]}),
    ],
)
async def test_what_cannot_be_done_lets_nobody_pass(
    proxy: Proxy, server: Server, echo: Datagram, authority: trustme.CA, protocol: str, kind: str, said: Any
) -> None:
    from controller.objects.base import Ref
    from controller.objects.decoding import faulty

    world = stage(authority, protocol, server, echo)
    await serve(proxy, world)
    assert await passes(proxy, authority, protocol)
    if kind == "ListenerFilter":
        value = {"metadata": {"name": "f", "namespace": "default"}, "spec": said}
        try:
            world.put(msgspec.convert(value, KINDS[kind].type))
        except msgspec.ValidationError as error:
            world.put(faulty(KINDS[kind], value, Ref(kind, "default", "f"), error))  # type: ignore[arg-type]
    else:
        policy(world, kind, "Gateway", "gw", **said)
    await serve(proxy, world)
    assert not await passes(proxy, authority, protocol)
    if protocol == "HTTP" and kind != "ListenerFilter":
        assert (await proxy.get())[0] == 500


@pytest.mark.parametrize("protocol", ["HTTP", "TLS", "TCP"])
async def test_connections_of_one_address(
    proxy: Proxy, server: Server, echo: Datagram, authority: trustme.CA, protocol: str
) -> None:
    """connectionsPerAddress is for connections, whatever they carry."""
    world = stage(authority, protocol, server, echo)
    annotations = {"annotations": {"gateway.flomesh.io/limits": "{connectionsPerAddress: 2}"}}
    put(
        world,
        "Gateway",
        "gw",
        {"gatewayClassName": "fsm-gateway-cls", "listeners": [{"name": "l0", "port": 80, **LISTENERS[protocol]}]},
        metadata=annotations,
    )
    await serve(proxy, world)
    context = None
    if protocol == "TLS":
        context = ssl.create_default_context()
        authority.configure_trust(context)
    host = HOST if context else None
    server.default = OK

    async def talks() -> asyncio.StreamWriter | None:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname=host)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: www.example\r\n\r\n")
            async with asyncio.timeout(5):
                answer = await reader.read(100)
        except ConnectionError:
            answer = b""
        if answer == OK:
            return writer
        writer.close()
        return None

    first, second, third = await talks(), await talks(), await talks()
    assert first is not None
    assert second is not None
    assert third is None
    first.close()
    async with asyncio.timeout(5):
        while (again := await talks()) is None:
            await asyncio.sleep(0.001)
    for writer in (second, again):
        writer.close()


# --- towards backends ---


class Plain:
    """A backend that remembers what it hears first, and never answers."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.port = 0

    async def start(self) -> Plain:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard.put_nowait(await reader.read(1000))
        except ConnectionError:
            pass
        finally:
            writer.close()


AUTH = {"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": "helper", "port": 80}}}
MIRROR = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "helper", "port": 80}}}


@pytest.mark.parametrize("kind", ["UpstreamTLSPolicy", "BackendTLSPolicy"])
@pytest.mark.parametrize("way", ["HTTP", "TCP", "TLS", "mirror", "who is asked"])
async def test_towards_backends(
    proxy: Proxy, server: Server, echo: Datagram, authority: trustme.CA, way: str, kind: str
) -> None:
    """What must be spoken to over TLS hears a ClientHello first, from whoever speaks to it; nothing, where nobody can be trusted."""
    protocol = way if way in LISTENERS else "HTTP"
    for is_valid in (True, False):
        plain = await Plain().start()
        world = stage(authority, protocol, server, echo)
        name = "app" if way in LISTENERS else "helper"
        service(world, name, plain.port)
        if way in ("mirror", "who is asked"):
            route(world, "HTTPRoute", filters=[MIRROR if way == "mirror" else AUTH])
        if kind == "UpstreamTLSPolicy":
            policy(world, kind, "Service", name, config={"certificateRef": {"name": "cert" if is_valid else "nobody"}})
        else:
            refs = [{"group": "", "kind": "ConfigMap", "name": "ca" if is_valid else "nobody"}]
            target = {"group": "", "kind": "Service", "name": name}
            put(world, kind, "p", {"targetRefs": [target], "validation": {"hostname": "x.internal", "caCertificateRefs": refs}})
        await serve(proxy, world)
        passed = await passes(proxy, authority, protocol)
        assert passed == (way == "mirror")
        if is_valid:
            async with asyncio.timeout(5):
                assert (await plain.heard.get())[:2] == b"\x16\x03"  # a TLS handshake (RFC 8446 §5.1)
        else:
            assert plain.heard.empty()
        plain.stop()


async def test_datagrams_are_not_sent_in_the_clear_where_tls_is_asked_for(
    proxy: Proxy, server: Server, echo: Datagram, authority: trustme.CA
) -> None:
    world = stage(authority, "UDP", server, echo)
    policy(world, "UpstreamTLSPolicy", "Service", "app", config={"certificateRef": {"name": "cert"}})
    await serve(proxy, world)
    assert not await passes(proxy, authority, "UDP")
    assert echo.heard.empty()
