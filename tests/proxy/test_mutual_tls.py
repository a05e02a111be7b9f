"""Who proves what to whom: clients to the gateway (GEP-91), backends to the gateway (GEP-1897), it to them (GEP-3155)."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trustme
from cryptography import x509
from support.certificates import certificate
from support.http2_peers import Backend2, client
from support.proxy import OK, Proxy, Server, make_rule, parsed

from gateway.snapshot import Backend, BackendTLS, Clients, Endpoint, Listener, SubjectName, Target, redacted


def pem(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


# --- clients ---


async def front(proxy: Proxy, server: Server, authority: trustme.CA, clients: Clients | None) -> None:
    await proxy.apply(
        certificate(authority, "c", "www.example"), Listener("l", 80, "HTTPS", "", ("c",), clients=clients),
        Backend("b", (Endpoint("127.0.0.1", server.port),)), make_rule(targets=(Target(1, "b"),)),
    )  # fmt: skip


async def shown(
    proxy: Proxy, authority: trustme.CA, mine: trustme.CA | None, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> str:
    """What becomes of a request by a client with a certificate of `mine`."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.maximum_version = newest
    if mine is not None:
        mine.issue_cert("client@example").configure_cert(context)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname="www.example")
        writer.write(b"GET / HTTP/1.1\r\nHost: www.example\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(1000), 5)
        writer.close()
    except (ssl.SSLError, ConnectionError):
        return "refused"
    return "served" if answer == OK else "refused"


async def test_only_valid_certificates(proxy: Proxy, server: Server, authority: trustme.CA, stranger: trustme.CA) -> None:
    await front(proxy, server, authority, None)
    assert await shown(proxy, authority, None) == "served"
    await front(proxy, server, authority, Clients(pem(authority)))
    assert await shown(proxy, authority, None) == "refused"
    assert await shown(proxy, authority, stranger) == "refused"
    assert await shown(proxy, authority, authority) == "served"
    # Authorities change: so does who is let in.
    await front(proxy, server, authority, Clients(pem(stranger)))
    assert await shown(proxy, authority, authority) == "refused"
    assert await shown(proxy, authority, stranger) == "served"
    await front(proxy, server, authority, Clients(pem(stranger) + "\n" + pem(authority)))
    assert await shown(proxy, authority, authority) == "served"
    await front(proxy, server, authority, None)
    assert await shown(proxy, authority, None) == "served"


async def test_insecure_fallback(proxy: Proxy, server: Server, authority: trustme.CA, stranger: trustme.CA) -> None:
    await front(proxy, server, authority, Clients(pem(authority), optional=True))
    for mine in (None, stranger, authority):
        assert await shown(proxy, authority, mine) == "served"
    # Strict again: what was accepted is not any more, and the other way round, over and over.
    for _ in range(3):
        await front(proxy, server, authority, Clients(pem(authority)))
        assert [await shown(proxy, authority, mine) for mine in (None, stranger, authority)] == ["refused", "refused", "served"]
        await front(proxy, server, authority, Clients(pem(authority), optional=True))
        assert [await shown(proxy, authority, mine) for mine in (None, stranger, authority)] == ["served"] * 3
    await front(proxy, server, authority, None)
    assert await shown(proxy, authority, stranger) == "served"


async def test_insecure_fallback_asks_for_a_certificate(proxy: Proxy, server: Server, authority: trustme.CA) -> None:
    """Clients are asked: a client with one shows it, though nothing comes of that."""
    await front(proxy, server, authority, Clients(pem(authority), optional=True))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # where the request for a certificate is in the clear
    authority.configure_trust(context)
    tls = context.wrap_bio(incoming, outgoing, server_hostname="www.example")
    reader, writer = await proxy.connect()
    heard = b""
    for _ in range(5):
        try:
            tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(outgoing.read())
            data = await asyncio.wait_for(reader.read(65536), 5)
            heard += data
            incoming.write(data)
    assert 13 in handshake_types(heard)  # CertificateRequest (RFC 5246 §7.4.4)
    writer.close()


def handshake_types(data: bytes) -> list[int]:
    """The types of the handshake messages that went in the clear."""
    messages, types = b"", []
    while data and data[0] == 22:
        size = int.from_bytes(data[3:5], "big")
        messages, data = messages + data[5 : 5 + size], data[5 + size :]
    while messages:
        types.append(messages[0])
        messages = messages[4 + int.from_bytes(messages[1:4], "big") :]
    return types


async def test_a_session_from_before_is_no_certificate(proxy: Proxy, server: Server, authority: trustme.CA) -> None:
    """A ticket of the time when nobody had to show a certificate does not let a client in later (TLS 1.2 and 1.3)."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        await front(proxy, server, authority, None)
        context = ssl.create_default_context()
        authority.configure_trust(context)
        context.maximum_version = version

        def visit(session: ssl.SSLSession | None, context: ssl.SSLContext = context) -> ssl.SSLSession | None:
            raw = socket.create_connection(("127.0.0.1", proxy.port), 5)
            with context.wrap_socket(raw, server_hostname="www.example", session=session) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nHost: www.example\r\nConnection: close\r\n\r\n")
                if not tls.recv(1000).startswith(b"HTTP/1.1 200"):
                    raise ssl.SSLError("refused")
                return tls.session

        session = await asyncio.to_thread(visit, None)
        await front(proxy, server, authority, Clients(pem(authority)))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(visit, session)


async def test_versions_and_ciphers(proxy: Proxy, server: Server, authority: trustme.CA) -> None:
    await proxy.apply(
        certificate(authority, "c", "www.example"), Listener("l", 80, "HTTPS", "", ("c",), minimum="1.3"),
        Backend("b", (Endpoint("127.0.0.1", server.port),)), make_rule(targets=(Target(1, "b"),)),
    )  # fmt: skip
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname="www.example")
    # Beside a listener that takes older ones it is cut off after the handshake.
    await proxy.apply(Listener("m", 80, "HTTPS", "old.example", ("c",)))
    assert await shown(proxy, authority, None, newest=ssl.TLSVersion.TLSv1_2) == "refused"
    await proxy.apply(drop=(("listener", "m"),))
    await proxy.apply(Listener("l", 80, "HTTPS", "", ("c",), ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"))
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname="www.example")
    assert writer.get_extra_info("cipher")[0] == "ECDHE-ECDSA-AES256-GCM-SHA384"
    writer.close()


# --- backends ---

Secure = Callable[..., Awaitable[int]]


@pytest.fixture
async def secure() -> AsyncIterator[Secure]:
    """HTTPS servers that say which server name and whose certificate they saw."""
    servers: list[asyncio.Server] = []

    async def make(issued: trustme.LeafCert, clients: trustme.CA | None = None) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        names: dict[int, str] = {}
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            clients.configure_trust(context)
        context.sni_callback = lambda obj, name, _: names.__setitem__(id(obj), name or "")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while True:
                    await reader.readuntil(b"\r\n\r\n")
                    tls = writer.get_extra_info("ssl_object")
                    peer = (tls.getpeercert() or {}).get("subjectAltName", ())
                    said = f"{names.get(id(tls))} {','.join(value for _, value in peer)}".encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
        return int(servers[-1].sockets[0].getsockname()[1])

    yield make
    for server in servers:
        server.close()
    await asyncio.sleep(0)


async def towards(proxy: Proxy, port: int, tls: BackendTLS, **more: Any) -> tuple[int, str]:
    await proxy.apply(
        Listener("l", 80), Backend("b", (Endpoint("127.0.0.1", port),), "http", tls), make_rule(targets=(Target(1, "b"),))
    )  # fmt: skip
    status, _, body = await proxy.get()
    return status, body.decode().strip()


URI = "spiffe://example/backend"


@pytest.mark.parametrize(
    ("names", "status"),
    [
        ((), 200),
        ((SubjectName("Hostname", "other.internal"),), 503),
        ((SubjectName("Hostname", "other.internal"), SubjectName("Hostname", "B.internal")), 200),
        ((SubjectName("URI", URI),), 200),
        ((SubjectName("URI", URI + "/x"),), 503),
        ((SubjectName("Hostname", "a.wild.internal"),), 200),
        ((SubjectName("Hostname", "a.b.wild.internal"),), 503),
    ],
)
async def test_names(proxy: Proxy, secure: Secure, authority: trustme.CA, names: tuple[SubjectName, ...], status: int) -> None:
    issued = leaf(authority, "b.internal", "*.wild.internal", uri=URI)
    port = await secure(issued)
    # With names of their own, the hostname is for SNI only.
    server_name = "b.internal" if not names else "sni.internal"
    got, said = await towards(proxy, port, BackendTLS(server_name, pem(authority), names))
    assert got == status
    if status == 200:
        assert said == server_name


def leaf(authority: trustme.CA, *names: str, uri: str = "") -> Any:
    """A certificate with DNS names and, if asked for, a URI, which trustme does not issue."""
    if not uri:
        return authority.issue_cert(*names)

    import datetime

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.load_pem_x509_certificate(authority.cert_pem.bytes())
    issuer_key = serialization.load_pem_private_key(authority.private_key_pem.bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(issuer.subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([*map(x509.DNSName, names), x509.UniformResourceIdentifier(uri)]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())  # type: ignore[arg-type]
    )  # fmt: skip
    text = built.public_bytes(serialization.Encoding.PEM)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return trustme.LeafCert(key.private_bytes(*form), text, [])


async def test_whom_not_to_believe(proxy: Proxy, secure: Secure, authority: trustme.CA, stranger: trustme.CA) -> None:
    port = await secure(authority.issue_cert("b.internal"))
    assert await towards(proxy, port, BackendTLS("b.internal", pem(authority))) == (200, "b.internal")
    assert (await towards(proxy, port, BackendTLS("other.internal", pem(authority))))[0] == 503
    assert (await towards(proxy, port, BackendTLS("b.internal", pem(stranger))))[0] == 503
    assert (await towards(proxy, port, BackendTLS("b.internal")))[0] == 503  # the system knows neither
    # Another authority is followed.
    assert (await towards(proxy, port, BackendTLS("b.internal", pem(stranger) + "\n" + pem(authority))))[0] == 200


async def test_who_we_are_to_a_backend_and_its_renewal(
    proxy: Proxy, secure: Secure, authority: trustme.CA, stranger: trustme.CA
) -> None:
    port = await secure(authority.issue_cert("b.internal"), stranger)
    assert (await towards(proxy, port, BackendTLS("b.internal", pem(authority))))[0] in (502, 503)
    await proxy.apply(certificate(stranger, "me", "gateway.one"))
    mine = BackendTLS("b.internal", pem(authority), certificate="me")
    assert await towards(proxy, port, mine) == (200, "b.internal gateway.one")
    await proxy.apply(certificate(stranger, "me", "gateway.two"))
    assert await towards(proxy, port, mine) == (200, "b.internal gateway.two")


async def test_who_we_are_to_one_backend_only(
    proxy: Proxy, secure: Secure, authority: trustme.CA, stranger: trustme.CA
) -> None:
    """As an UpstreamTLSPolicy with mTLS says it: not the Gateway's own certificate, but the policy's."""
    port = await secure(authority.issue_cert("b.internal"), authority)
    mine, other = certificate(authority, "me", "gateway"), certificate(stranger, "me", "gateway")
    assert (await towards(proxy, port, BackendTLS("b.internal", pem(authority), own=mine)))[0] == 200
    assert (await towards(proxy, port, BackendTLS("b.internal", pem(authority), own=other)))[0] in (502, 503)
    assert mine.key not in repr(redacted(Backend("b", tls=BackendTLS("b.internal", own=mine))))


async def test_http2_over_tls_behind(proxy: Proxy, authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    authority.issue_cert("b.internal").configure_cert(context)
    backend = await Backend2().start(context)
    await proxy.apply(
        Listener("l", 80), make_rule(targets=(Target(1, "b"),)),
        Backend("b", (Endpoint("127.0.0.1", backend.port),), "h2c", BackendTLS("b.internal", pem(authority))),
    )  # fmt: skip
    me = await client(proxy.port)
    assert (await me.get()).body == b"ok"
    assert backend.seen[0].headers[":scheme"] == "https"
    await backend.stop()


@pytest.mark.parametrize("has_one_for_all", [True, False])
async def test_http2_in_front_by_alpn_and_421(
    proxy: Proxy, server: Server, authority: trustme.CA, has_one_for_all: bool
) -> None:
    """Connections belong to the listener that their server name chose (GEP-3567); a Host that no listener has is nowhere."""
    from gateway.snapshot import Attachment, Order, Rule

    names = ("" if has_one_for_all else "plain.example", "one.example", "*.wild.example", "x.wild.example")
    listeners = [Listener(f"l{n}", 80, "HTTPS", name, ("c",)) for n, name in enumerate(names)]
    at = (*tuple(Attachment(f"l{n}", name) for n, name in enumerate(names) if name), Attachment("l0", "plain.example"))
    issued = authority.issue_cert("plain.example", "one.example", "*.wild.example")
    chain = "".join(one.bytes().decode() for one in issued.cert_chain_pems)
    from gateway.snapshot import Certificate

    await proxy.apply(
        Certificate("c", chain, issued.private_key_pem.bytes().decode()), *listeners,
        Backend("b", (Endpoint("127.0.0.1", server.port),)), Rule("r", Order(), at, targets=(Target(1, "b"),)),
    )  # fmt: skip
    table = [
        ("plain.example", "plain.example", 200), ("plain.example", "one.example", 421), ("plain.example", "unknown.example", 404),
        ("one.example", "one.example", 200), ("one.example", "plain.example", 421),
        ("one.example", "unknown.example", 421 if has_one_for_all else 404),
        ("a.wild.example", "b.wild.example", 200), ("a.wild.example", "x.wild.example", 421),
        ("a.wild.example", "one.example", 421), ("x.wild.example", "b.wild.example", 421),
    ]  # fmt: skip
    for name, host, status in table:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        me = await client(proxy.port, context, name)
        for _ in range(3):
            assert (await me.get(host=host)).status == status, (name, host)
        me.transport.close()
        # The same on HTTP/1.1, over and over on one connection.
        context = ssl.create_default_context()
        authority.configure_trust(context)
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname=name)
        for _ in range(4):
            writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            got, fields, _ = parsed(head)
            assert got == status, (name, host)
            await reader.readexactly(int(fields["content-length"]))
        writer.close()
