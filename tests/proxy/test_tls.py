"""HTTPS listeners: certificates by name, renewed without touching a connection."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
import trustme
from support.certificates import certificate
from support.proxy import OK, Proxy, Server, make_rule

from controller.ports import free_ports
from gateway.runtime.runtime import Runtime
from gateway.snapshot import Attachment, Backend, Certificate, Change, Endpoint, Listener, Order, Rule, Target


class Caller:
    def __init__(self, proxy: Proxy, authority: trustme.CA) -> None:
        self._proxy = proxy
        self._context = ssl.create_default_context()
        authority.configure_trust(self._context)

    async def connect(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._proxy.port, ssl=self._context, server_hostname=name)

    async def get(self, name: str) -> tuple[bytes, int]:
        """The answer, and the serial number of the certificate that was shown."""
        reader, writer = await self.connect(name)
        shown = writer.get_extra_info("peercert")
        writer.write(f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        answer = await reader.readexactly(len(OK))
        writer.close()
        await writer.wait_closed()
        return answer, int(shown["serialNumber"], 16)


async def stage(proxy: Proxy, server: Server, authority: trustme.CA) -> Caller:
    await proxy.apply(
        certificate(authority, "one", "one.example"),
        certificate(authority, "wild", "*.wild.example"),
        Listener("l", 80, "HTTPS", "one.example", ("one",)),
        Listener("w", 80, "HTTPS", "*.wild.example", ("wild",)),
        Backend("b", (Endpoint("127.0.0.1", server.port),)),
        Rule("r", Order(), (Attachment("l", "one.example"), Attachment("w", "*.wild.example")), targets=(Target(1, "b"),)),
    )
    return Caller(proxy, authority)


async def test_certificates_by_name(proxy: Proxy, server: Server, authority: trustme.CA) -> None:
    caller = await stage(proxy, server, authority)
    one, wild = await caller.get("one.example"), await caller.get("a.wild.example")
    assert one[0] == wild[0] == OK
    assert one[1] != wild[1]
    assert b"\r\nX-Forwarded-Proto: https\r\n" in server.seen[0]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await caller.connect("nobody.example")


async def test_a_renewed_certificate_is_shown_at_once_and_drops_nobody(
    proxy: Proxy, server: Server, authority: trustme.CA
) -> None:
    caller = await stage(proxy, server, authority)
    reader, writer = await caller.connect("one.example")
    before = await caller.get("one.example")
    await proxy.apply(certificate(authority, "one", "one.example"))
    after = await caller.get("one.example")
    assert before[1] != after[1]
    writer.write(b"GET / HTTP/1.1\r\nHost: one.example\r\n\r\n")
    assert await reader.readexactly(len(OK)) == OK
    writer.close()
    await writer.wait_closed()


async def test_a_broken_certificate_leaves_the_old_one(proxy: Proxy, server: Server, authority: trustme.CA) -> None:
    caller = await stage(proxy, server, authority)
    problems = await proxy.runtime.apply(Change(put=(Certificate("one", "nonsense", "nonsense"), make_rule("other"))))
    assert [problem.part for problem in problems] == ["one"]
    assert "nonsense" not in problems[0].message
    assert (await caller.get("one.example"))[0] == OK


async def test_a_session_that_one_worker_began_is_resumed_by_another(proxy: Proxy, authority: trustme.CA) -> None:
    (port,) = free_ports(1)
    runtimes = {port: Runtime(bind="127.0.0.1", port_offset=port - 80), proxy.port: proxy.runtime}
    made = certificate(authority, "one", "one.example")

    async def listen(*secrets: bytes) -> None:
        for runtime, secret in zip(runtimes.values(), secrets, strict=True):
            await runtime.apply(Change(reset=True))  # closes the port
            runtime.ports.tickets = secret
            assert not await runtime.apply(Change(put=(made, Listener("l", 80, "HTTPS", "one.example", ("one",)))))

    def visit(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
        raw = socket.create_connection(("127.0.0.1", port), 5)
        with context.wrap_socket(raw, server_hostname="one.example", session=session) as tls:
            tls.sendall(b"GET / HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n")
            assert tls.recv(1000).startswith(b"HTTP/1.1 404")
            return tls.session, tls.session_reused

    for secrets, resumed in (((b"a" * 32, b"a" * 32), True), ((b"a" * 32, b"b" * 32), False)):
        await listen(*secrets)
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context()
            authority.configure_trust(context)
            context.maximum_version = version
            first, second = runtimes
            session, _ = await asyncio.to_thread(visit, first, context, None)
            assert (await asyncio.to_thread(visit, second, context, session))[1] is resumed
    runtimes[port].close()
