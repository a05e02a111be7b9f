"""Certificates for tests, made on the spot (trustme)."""

from __future__ import annotations

import trustme

from gateway.snapshot import Certificate


def certificate(authority: trustme.CA, name: str, hostname: str) -> Certificate:
    made = authority.issue_cert(hostname)
    chain = "".join(pem.bytes().decode() for pem in made.cert_chain_pems)
    return Certificate(name, chain, made.private_key_pem.bytes().decode())
