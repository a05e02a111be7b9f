"""Backends that cannot be reached: an answer that says why, at once, by whatever way they are spoken to."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest
import trustme
from support.proxy import Proxy, Server, make_rule

from gateway.snapshot import Attachment, Backend, BackendTLS, Endpoint, Listener, Order, Relay, Target


def nobody() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("protocol", ["http", "h2c"])
@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("a" * 64 + ".example.com", "its name is not known"),  # no label has more than 63 characters
        ("a..example", "its name is not known"),
        ("127.0.0.1", "it refuses connections"),
    ],
)
async def test_a_request(proxy: Proxy, protocol: Any, host: str, words: str) -> None:
    await proxy.apply(
        Listener("l", 80), Backend("b", (Endpoint(host, nobody()),), protocol), make_rule("r", targets=(Target(1, "b"),))
    )
    began = time.monotonic()
    status, _, body = await proxy.get()
    assert (status, body.decode()) == (503, f"no endpoint of the backend accepts connections; of the last one: {words}\n")
    assert time.monotonic() - began < 2
    assert [(backend, n) for backend, _, n in proxy.runtime.backends.failures()] == [("b", 1)]


@pytest.mark.parametrize("protocol", ["http", "h2c"])
async def test_a_certificate_that_is_not_the_backends(proxy: Proxy, protocol: Any, authority: trustme.CA) -> None:
    """It is told from a backend that is not there; what it shows is for the log, not for clients."""
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.internal").configure_cert(context)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    tls = BackendTLS("b.internal", authority.cert_pem.bytes().decode())
    endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    await proxy.apply(Listener("l", 80), Backend("b", (endpoint,), protocol, tls), make_rule("r", targets=(Target(1, "b"),)))
    status, _, body = await proxy.get()
    assert (status, body) == (503, b"no endpoint of the backend accepts connections; of the last one: TLS with it fails\n")
    assert proxy.runtime.backends.failures() == (("b", "tls", 1),)
    server.close()


async def test_a_relay(proxy: Proxy, server: Server) -> None:
    """The next endpoint is tried."""
    endpoints = (Endpoint("a" * 64 + ".example.com", 80), Endpoint("127.0.0.1", nobody()), Endpoint("127.0.0.1", server.port))
    relay = Relay("t", Order("", "t"), (Attachment("l"),), (Target(1, "b"),))
    await proxy.apply(Listener("l", 80, "TCP"), Backend("b", endpoints, "tcp"), relay)
    reader, writer = await proxy.connect()
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()
    assert {reason for _, reason, _ in proxy.runtime.backends.failures()} <= {"name", "refused"}
