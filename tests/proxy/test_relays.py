"""TCPRoute, TLSRoute and UDPRoute on real sockets: shares, names, refusals, and what holds through changes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
import trustme
from support.certificates import certificate
from support.proxy import OK, Proxy, Server, make_rule
from support.streams import Datagram, Made, datagrams, echo

from gateway.snapshot import Attachment, Backend, Change, Endpoint, Listener, Order, Relay, Target

__all__ = ["datagrams", "echo"]


def relay(name: str, *targets: Target, hostname: str = "", listener: str = "l", since: str = "") -> Relay:
    return Relay(name, Order(since, name), (Attachment(listener, hostname),), targets)


def backend(name: str, port: int) -> Backend:
    return Backend(name, (Endpoint("127.0.0.1", port),), "tcp")


async def banner(proxy: Proxy) -> bytes:
    """What a new connection hears first; nothing where it is refused."""
    reader, writer = await proxy.connect()
    try:
        async with asyncio.timeout(5):
            return await reader.read(1)
    except ConnectionError:
        return b""
    finally:
        writer.close()


# --- TCP ---


async def test_shares_are_of_connections(proxy: Proxy, echo: Made) -> None:
    one, two = await echo(b"1"), await echo(b"2")
    await proxy.apply(
        Listener("l", 80, "TCP"), backend("a", one), backend("b", two),
        relay("r", Target(3, "a"), Target(1, "b"), Target(0, "a"), Target(1, "", (), 500)),
    )  # fmt: skip
    assert Counter([await banner(proxy) for _ in range(50)]) == {b"1": 30, b"2": 10, b"": 10}


async def test_the_oldest_carries_the_traffic(proxy: Proxy, echo: Made) -> None:
    one, two = await echo(b"1"), await echo(b"2")
    younger = relay("younger", Target(1, "a"), since="2")
    await proxy.apply(Listener("l", 80, "TCP"), backend("a", one), backend("b", two), younger)
    assert await banner(proxy) == b"1"
    await proxy.apply(relay("older", Target(1, "b"), since="1"))
    assert await banner(proxy) == b"2"
    await proxy.apply(drop=(("relay", "older"),))
    assert await banner(proxy) == b"1"


async def test_nobody_to_talk_to(proxy: Proxy, echo: Made) -> None:
    gone = await echo(b"1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        await proxy.apply(Listener("l", 80, "TCP"), backend("a", closed.getsockname()[1]))
        assert await banner(proxy) == b""  # no route
        await proxy.apply(relay("r", Target(1, "a")))
        assert await banner(proxy) == b""  # nobody accepts
        endpoints = (Endpoint("127.0.0.1", closed.getsockname()[1]), Endpoint("127.0.0.1", gone))
        await proxy.apply(Backend("a", endpoints, "tcp"))
        assert [await banner(proxy) for _ in range(4)] == [b"1"] * 4  # another endpoint does


async def test_bytes_both_ways_and_half_closed(proxy: Proxy, echo: Made) -> None:
    await proxy.apply(Listener("l", 80, "TCP"), backend("a", await echo(b"")), relay("r", Target(1, "a")))
    reader, writer = await proxy.connect()
    sent = b"abcdefgh" * 200_000

    async def send() -> None:
        writer.write(sent)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    async with asyncio.timeout(10):
        assert await reader.read() == sent.upper() + b"bye"
    await sending
    writer.close()


async def test_what_comes_before_the_two_ends_are_joined_is_not_lost(proxy: Proxy, echo: Made) -> None:
    await proxy.apply(Listener("l", 80, "TCP"), backend("a", await echo(b"1")), relay("r", Target(1, "a")))

    async def one() -> bytes:
        reader, writer = await proxy.connect()
        writer.write(b"x")
        writer.write_eof()
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
        return answer

    assert await asyncio.gather(*(one() for _ in range(200))) == [b"1Xbye"] * 200
    async with asyncio.timeout(5):
        while proxy.runtime.ports.busy():
            await asyncio.sleep(0.001)


async def test_a_connection_holds_through_200_changes(proxy: Proxy, echo: Made) -> None:
    one, two = await echo(b"1"), await echo(b"2")
    await proxy.apply(Listener("l", 80, "TCP"), backend("a", one), relay("r", Target(1, "a")))
    reader, writer = await proxy.connect()
    assert await reader.readexactly(1) == b"1"
    for n in range(200):
        await proxy.apply(backend("a", two if n % 2 else one), relay("r", Target(n + 1, "a"), Target(1, "", (), 500)))
        writer.write(b"x")
        assert await reader.readexactly(1) == b"X"
    writer.close()


# --- TLS ---


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


class Caller:
    def __init__(self, proxy: Proxy, authority: trustme.CA) -> None:
        self._port = proxy.port
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)

    async def open(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, ssl=self.context, server_hostname=name)

    async def banner(self, name: str) -> bytes:
        try:
            reader, writer = await self.open(name)
        except (ConnectionError, ssl.SSLError):
            return b"refused"
        try:
            async with asyncio.timeout(5):
                return await reader.read(1)
        except ConnectionError:
            return b"cut"
        finally:
            writer.close()


async def test_passthrough_by_name(proxy: Proxy, echo: Made, authority: trustme.CA) -> None:
    one = await echo(b"1", server_context(authority, "one.example"))
    wild = await echo(b"w", server_context(authority, "a.wild.example"))
    await proxy.apply(
        Listener("l", 80, "TLS", "", passthrough=True), backend("a", one), backend("b", wild),
        relay("r", Target(1, "a"), hostname="one.example"), relay("w", Target(1, "b"), hostname="*.wild.example"),
    )  # fmt: skip
    caller = Caller(proxy, authority)
    assert await caller.banner("one.example") == b"1"
    assert await caller.banner("a.wild.example") == b"w"
    assert await caller.banner("other.example") == b"refused"
    # A ClientHello in pieces.
    with socket.create_connection(("127.0.0.1", proxy.port)) as raw:
        raw.setblocking(False)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = caller.context.wrap_bio(incoming, outgoing, server_hostname="one.example")
        loop = asyncio.get_running_loop()
        pieces = 0
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in (data := outgoing.read()):
                    await loop.sock_sendall(raw, bytes((byte,)))
                    pieces += 1
                    if pieces % 50 == 0:
                        await asyncio.sleep(0.001)
                del data
                incoming.write(await asyncio.wait_for(loop.sock_recv(raw, 65536), 5))
    assert pieces > 200


async def test_not_tls_at_all(proxy: Proxy) -> None:
    await proxy.apply(Listener("l", 80, "TLS", "", passthrough=True))
    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_terminated(proxy: Proxy, echo: Made, authority: trustme.CA) -> None:
    await proxy.apply(
        certificate(authority, "c", "one.example"), Listener("l", 80, "TLS", "one.example", ("c",)),
        backend("a", await echo(b"p")), relay("r", Target(1, "a"), hostname="one.example"),
    )  # fmt: skip
    caller = Caller(proxy, authority)
    assert await caller.banner("one.example") == b"p"
    assert await caller.banner("other.example") == b"refused"
    reader, writer = await caller.open("one.example")
    assert await reader.readexactly(1) == b"p"
    for n in range(200):  # held through changes of the certificate as well
        await proxy.apply(
            certificate(authority, "c", "one.example")
            if n % 20 == 0
            else relay("r", Target(n + 1, "a"), hostname="one.example")
        )
        writer.write(b"x")
        assert await reader.readexactly(1) == b"X"
    writer.close()


async def test_both_modes_and_https_on_one_port(proxy: Proxy, server: Server, echo: Made, authority: trustme.CA) -> None:
    through = await echo(b"t", server_context(authority, "through.example"))
    await proxy.apply(
        certificate(authority, "c", "here.example"), certificate(authority, "h", "web.example"),
        Listener("l", 80, "TLS", "here.example", ("c",)), Listener("p", 80, "TLS", "through.example", passthrough=True),
        Listener("w", 80, "HTTPS", "web.example", ("h",)), backend("a", await echo(b"p")), backend("b", through),
        Backend("web", (Endpoint("127.0.0.1", server.port),)), relay("r", Target(1, "a"), hostname="here.example"),
        relay("s", Target(1, "b"), hostname="through.example", listener="p"),
    )  # fmt: skip
    rule = make_rule("web", targets=(Target(1, "web"),))
    await proxy.apply(type(rule)(rule.name, rule.order, (Attachment("w", "web.example"),), rule.matches, (), rule.targets))
    caller = Caller(proxy, authority)
    assert await caller.banner("here.example") == b"p"
    assert await caller.banner("through.example") == b"t"
    reader, writer = await caller.open("web.example")
    writer.write(b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
    assert await reader.readexactly(len(OK)) == OK
    writer.close()
    # One mode goes: the port changes its way, and nothing else.
    await proxy.runtime.apply(Change(drop=(("listener", "p"), ("relay", "s"))))
    assert await caller.banner("here.example") == b"p"
    assert await caller.banner("through.example") == b"refused"


# --- UDP ---


async def test_flows(proxy: Proxy, datagrams: Callable[..., Awaitable[Datagram]]) -> None:
    one, two = await datagrams(b"1"), await datagrams(b"2")
    await proxy.apply(
        Listener("l", 80, "UDP"), Backend("a", (Endpoint("127.0.0.1", one.port),), "udp"),
        Backend("b", (Endpoint("127.0.0.1", two.port),), "udp"), relay("r", Target(3, "a"), Target(1, "b"), Target(0, "a")),
    )  # fmt: skip
    clients = [await datagrams(to=proxy.port) for _ in range(20)]
    answers = Counter([(await client.ask(b"x"))[:1] for client in clients])
    assert answers == {b"1": 15, b"2": 5}
    # A flow stays where it is, through every change.
    first = (await clients[0].ask(b"y"))[:1]
    for n in range(200):
        await proxy.apply(relay("r", Target(1, "b" if n % 2 else "a")))
        assert await clients[0].ask(b"z%d" % n) == first + b"z%d" % n
    # Another protocol on the same port is another matter.
    await proxy.apply(Listener("t", 80, "TCP"))
    assert await clients[0].ask(b"still") == first + b"still"


async def test_dropped_shares_and_silence(proxy: Proxy, datagrams: Callable[..., Awaitable[Datagram]]) -> None:
    one = await datagrams(b"1")
    await proxy.apply(
        Listener("l", 80, "UDP"), Backend("a", (Endpoint("127.0.0.1", one.port),), "udp"),
        relay("r", Target(1, "a"), Target(1, "", (), 500)),
    )  # fmt: skip
    port = proxy.runtime.ports.udp[80]
    clients = [await datagrams(to=proxy.port) for _ in range(10)]
    for client in clients:
        client.transport.sendto(b"x")  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        while len(port) < 5 or port.refused < 5:
            await asyncio.sleep(0.001)
    assert (len(port), port.refused) == (5, 5)
    proxy.runtime.tick(port.now + 61)
    assert len(port) == 0


async def test_too_many_flows(
    proxy: Proxy, datagrams: Callable[..., Awaitable[Datagram]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.l4.udp.FLOWS", 3)
    one = await datagrams(b"1")
    await proxy.apply(
        Listener("l", 80, "UDP"), Backend("a", (Endpoint("127.0.0.1", one.port),), "udp"), relay("r", Target(1, "a"))
    )
    for _ in range(10):
        assert await (await datagrams(to=proxy.port)).ask(b"x") == b"1x"
    assert len(proxy.runtime.ports.udp[80]) == 3


async def test_empty_datagrams_pass_both_ways(proxy: Proxy) -> None:
    """RFC 768 has a length of 8, which is the header alone: some protocols say hello with one."""
    behind, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    for one in (behind, client):
        one.bind(("127.0.0.1", 0))
        one.settimeout(5)
    backend = Backend("a", (Endpoint("127.0.0.1", behind.getsockname()[1]),), "udp")
    await proxy.apply(Listener("l", 80, "UDP"), backend, relay("r", Target(1, "a")))
    for data in (b"", b"x", b""):
        client.sendto(data, ("127.0.0.1", proxy.port))
        found, address = await asyncio.to_thread(behind.recvfrom, 99)
        assert found == data
        behind.sendto(data, address)
        assert await asyncio.to_thread(client.recv, 99) == data
    behind.close()
    client.close()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def end_of(reader: asyncio.StreamReader) -> str:
    try:
        while await reader.read(100):
            pass
    except ConnectionResetError:
        return "reset"
    return "end"


@pytest.mark.parametrize("side", ["backend", "client"])
@pytest.mark.parametrize("has_talked", [False, True])
@pytest.mark.parametrize("how", ["reset", "end"])
async def test_a_reset_arrives_as_one(proxy: Proxy, side: str, has_talked: bool, how: str) -> None:
    """An end would say that all has been sent; and an end is no reset."""
    met: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda *both: met.put_nowait(both), "127.0.0.1", 0)
    await proxy.apply(Listener("l", 80, "TCP"), backend("a", server.sockets[0].getsockname()[1]), relay("r", Target(1, "a")))
    here = await proxy.connect()
    there = await asyncio.wait_for(met.get(), 5)
    try:
        async with asyncio.timeout(5):
            if has_talked:
                for (_, writer), (reader, _) in ((here, there), (there, here)):
                    writer.write(b"hello")
                    assert await reader.readexactly(5) == b"hello"
            (_, ending), (waiting, _) = (there, here) if side == "backend" else (here, there)
            reset(ending) if how == "reset" else ending.close()
            assert await end_of(waiting) == how
    finally:
        for _, writer in (here, there):
            writer.transport.abort()
        server.close()
