"""Server-side TLS: contexts from certificates, chosen by SNI, replaced without touching a connection."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Protocol

from gateway.snapshot import Certificate


class HasContext(Protocol):
    """What the SNI callback gets: the connection's object, whose context may be changed."""

    context: ssl.SSLContext


def context(certificate: Certificate) -> ssl.SSLContext:
    """A server context that proves one certificate. Raises ValueError when chain and key do not load."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_alpn_protocols(["http/1.1"])
    # The ssl module reads certificates only from files; a memory file never touches a disk.
    handle = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(handle, certificate.chain.encode() + b"\n" + certificate.key.encode())
        made.load_cert_chain(f"/proc/self/fd/{handle}")
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"certificate {certificate.name}: {error}") from None
    finally:
        os.close(handle)
    return made


class Chooser:
    """The contexts of one port. `contexts` maps hostnames ("*.example.com", "" for all) to them; swap it whole."""

    def __init__(self) -> None:
        self.contexts: Mapping[str, ssl.SSLContext] = {}
        self.front = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.front.minimum_version = ssl.TLSVersion.TLSv1_2
        self.front.set_alpn_protocols(["http/1.1"])
        self.front.sni_callback = self._choose

    def _choose(self, connection: HasContext, name: str | None, _: ssl.SSLContext) -> int | None:
        host = (name or "").lower()
        labels = host.split(".")
        for pattern in (host, *("*." + ".".join(labels[at:]) for at in range(1, len(labels))), ""):
            chosen = self.contexts.get(pattern)
            if chosen is not None:
                connection.context = chosen
                return None
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
