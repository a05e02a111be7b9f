"""Certificates for tests, made on the spot (trustme)."""

from __future__ import annotations

import ssl

import trustme

from gateway.snapshot import Certificate


def certificate(authority: trustme.CA, name: str, hostname: str) -> Certificate:
    made = authority.issue_cert(hostname)
    chain = "".join(pem.bytes().decode() for pem in made.cert_chain_pems)
    return Certificate(name, chain, made.private_key_pem.bytes().decode())


def proving(authority: trustme.CA, *protocols: str) -> ssl.SSLContext:
    """What a backend proves to be b.internal with, and what it agrees to speak (ALPN)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("b.internal").configure_cert(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context
