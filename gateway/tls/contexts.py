"""TLS on both sides: contexts from certificates, chosen by server name, replaced without touching a connection."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gateway.snapshot import BackendTLS, Certificate, Listener, SubjectName
from gateway.tls import openssl

ALPN = ("h2", "http/1.1")
_SPOKEN = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


class HasContext(Protocol):
    """What the SNI callback gets: the connection's object, whose context may be changed."""

    context: ssl.SSLContext
    server_name_asked: str


def context(certificate: Certificate, listener: Listener | None = None, protocols: Sequence[str] = ALPN) -> ssl.SSLContext:
    """A server context that proves one certificate, as a listener wants it. Raises ValueError for what does not load."""
    ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ssl_context.minimum_version = ssl.TLSVersion.TLSv1_2
    if protocols:
        ssl_context.set_alpn_protocols(list(protocols))
    _load(ssl_context, certificate)
    if listener is not None:
        _configure(ssl_context, listener)
    return ssl_context


def _configure(ssl_context: ssl.SSLContext, listener: Listener) -> None:
    if listener.minimum:
        ssl_context.minimum_version = VERSIONS[listener.minimum]
    if listener.ciphers:
        try:
            ssl_context.set_ciphers(listener.ciphers)
        except ssl.SSLError:
            raise ValueError(f'cipher suites "{listener.ciphers}": OpenSSL knows none of them') from None
    if listener.clients is not None and not listener.clients.optional:
        _demand(ssl_context)
        try:
            ssl_context.load_verify_locations(cadata=listener.clients.authorities)
        except ssl.SSLError as error:
            raise ValueError(f"certificate authorities of clients: {error}") from None


def _demand(ssl_context: ssl.SSLContext) -> None:
    """Clients must show a certificate, each time: a session from before they had to is not resumed."""
    ssl_context.verify_mode = ssl.CERT_REQUIRED
    ssl_context.options |= ssl.OP_NO_TICKET
    ssl_context.num_tickets = 0


def _load(into: ssl.SSLContext, certificate: Certificate) -> None:
    # The ssl module reads certificates only from files; a memory file never touches a disk.
    handle = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(handle, certificate.chain.encode() + b"\n" + certificate.key.encode())
        into.load_cert_chain(f"/proc/self/fd/{handle}")
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"certificate {certificate.name}: {error}") from None
    finally:
        os.close(handle)


class Shown(NamedTuple):
    """A certificate that a listener can show: the names that it is good for, and its context."""

    names: frozenset[str]
    context: ssl.SSLContext


class Chooser:
    """The contexts of one port. `contexts` maps hostnames ("*.example.com", "" for all) to them; swap it whole."""

    def __init__(self, secret: bytes = b"", port: int = 0) -> None:
        self.contexts: Mapping[str, Sequence[Shown]] = {}
        self.front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.front.minimum_version = ssl.TLSVersion.TLSv1_2
        self.front.set_alpn_protocols(list(ALPN))
        self.front.sni_callback = self._choose  # type: ignore[assignment]  # it also gets None for a name
        self._options = self.front.options
        if secret:
            openssl.share_tickets(self.front, hashlib.shake_256(b"%b %d" % (secret, port)).digest(openssl.TICKET_KEY_BYTES))
        self._asking = False  # for certificates that nobody will look at
        self._ciphers = ":".join(cipher["name"] for cipher in self.front.get_ciphers())

    def configure(self, listeners: Sequence[Listener]) -> None:
        """What OpenSSL asks of the context that a connection began with, whatever is chosen later: whether clients must show
        a certificate, the oldest version, and the cipher suites. Raises ValueError where listeners do not agree."""
        ciphers = {listener.ciphers for listener in listeners}
        if len(ciphers) > 1:
            raise ValueError("the listeners of one port must ask for the same cipher suites")
        oldest = min(
            (VERSIONS.get(listener.minimum, ssl.TLSVersion.TLSv1_2) for listener in listeners), default=ssl.TLSVersion.TLSv1_2
        )
        self.front.minimum_version = oldest
        self.front.set_ciphers(next(iter(ciphers), "") or self._ciphers)
        asking = any(listener.clients is not None and listener.clients.optional for listener in listeners)
        demanding = any(listener.clients is not None and not listener.clients.optional for listener in listeners)
        if self._asking or asking:
            self._asking = asking and not demanding
            openssl.ask_for_any_certificate(self.front, asking=self._asking)  # in any case before a certificate is demanded
        if self._asking:
            return
        if demanding:
            _demand(self.front)
        else:
            self.front.verify_mode = ssl.CERT_NONE
            self.front.options = self._options
            self.front.num_tickets = 2

    def _choose(self, connection: HasContext, name: str | None, _: ssl.SSLContext) -> int | None:
        host = (name or "").lower().rstrip(".")
        connection.server_name_asked = host
        labels = host.split(".")
        patterns = (host, *("*." + ".".join(labels[at:]) for at in range(1, len(labels))))
        for pattern in (*patterns, ""):
            shown = self.contexts.get(pattern)
            if shown is not None and not shown:
                break  # a listener's certificate cannot be used: its clients are not another's
            if shown:
                # Of several certificates the one that is good for the name; a wildcard is one label (RFC 9525 §6.3).
                fitting = (candidate for candidate in shown if not candidate.names.isdisjoint(patterns[:2]))
                connection.context = next(fitting, shown[0]).context
                return None
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME


def is_too_old(transport: asyncio.BaseTransport) -> bool:
    """Whether a connection speaks an older version than its listener wants. OpenSSL has settled the version before it knows
    the server name, so that where listeners of one port want different ones, this is said only now."""
    tls = transport.get_extra_info("ssl_object")
    return bool(_SPOKEN.get(tls.version(), ssl.TLSVersion.TLSv1_3) < tls.context.minimum_version)


def asked(transport: asyncio.BaseTransport) -> tuple[str, str | None]:
    """The server name that a client of ours asked for, and the protocol that was agreed on (ALPN)."""
    tls = transport.get_extra_info("ssl_object")
    return getattr(tls, "server_name_asked", ""), tls.selected_alpn_protocol()


@dataclass(frozen=True)
class Security:
    """TLS towards a backend: what to offer, and whom to believe."""

    context: ssl.SSLContext
    server_name: str
    names: tuple[SubjectName, ...]

    def fault(self, transport: asyncio.BaseTransport) -> str:
        """What is wrong with the certificate that was shown; empty where nothing is. Its chain has been verified."""
        if not self.names:
            return ""  # the name has been verified as well
        shown = transport.get_extra_info("ssl_object").getpeercert().get("subjectAltName", ())
        if any(_matches(wanted, kind, value) for wanted in self.names for kind, value in shown):
            return ""
        presented = ", ".join(value for _, value in shown) or "none"
        wanted = ", ".join(name.value for name in self.names)
        return f"the backend's certificate has none of the names {wanted}; it has {presented}"


def _matches(wanted: SubjectName, kind: str, value: str) -> bool:
    if wanted.kind == "URI":
        return kind == "URI" and value == wanted.value
    if kind != "DNS":
        return False
    name, pattern = wanted.value.lower(), value.lower()
    # RFC 9525 §6.3: a wildcard is the whole of the leftmost label.
    return name == pattern or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:])


def towards(spec: BackendTLS, certificate: Certificate | None, protocol: str) -> Security:
    """What a BackendTLSPolicy asks for. Raises ValueError for authorities or a certificate that do not load."""
    ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ssl_context.minimum_version = VERSIONS.get(spec.minimum, ssl.TLSVersion.TLSv1_2)
    ssl_context.check_hostname = not spec.names
    if protocol:
        ssl_context.set_alpn_protocols([protocol])
    try:
        if spec.authorities:
            ssl_context.load_verify_locations(cadata=spec.authorities)
        else:
            ssl_context.load_default_certs()
    except ssl.SSLError as error:
        raise ValueError(f"certificate authorities: {error}") from None
    if certificate is not None:
        _load(ssl_context, certificate)
    return Security(ssl_context, spec.server_name, spec.names)


def unread(transport: asyncio.BaseTransport) -> bytes:
    """What had come on a TLS connection that is gone, and was not handed on as reading was paused: uvloop drops it."""
    layer: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
    pieces = []
    if layer is not None:
        try:
            while piece := layer.read(1 << 18):
                pieces.append(piece)
        except (ssl.SSLError, ValueError):
            pass  # there is no more, or no more that can be understood
    return b"".join(pieces)
