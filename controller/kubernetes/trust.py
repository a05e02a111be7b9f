"""Who may talk to whom on the feed: a CA of our own for the controller's name, TokenReview for data planes."""

from __future__ import annotations

import base64
import datetime
import os
import ssl
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.kubernetes.api import Api, ApiError, path
from controller.manifests import AUDIENCE, Json

SECRET: Final = "fsm-feed-ca"  # noqa: S105  # a name, not a password
YEARS: Final = 10


class Authority:
    """A certificate authority."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key

    @property
    def pem(self) -> str:
        """Its certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    @classmethod
    def new(cls) -> Authority:
        """One that nobody has known before."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fsm-feed")])
        builder = _builder(name, name, key.public_key(), days=365 * YEARS).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        return cls(builder.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key)

    @classmethod
    def from_secret(cls, secret: Json) -> Authority:
        """As a Secret of type kubernetes.io/tls holds it."""
        data = {k: base64.b64decode(v) for k, v in secret["data"].items()}
        key = serialization.load_pem_private_key(data["tls.key"], None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"Secret {SECRET}: tls.key is not an elliptic curve key; delete the Secret to get a new one")
        return cls(x509.load_pem_x509_certificate(data["tls.crt"]), key)

    def secret(self, namespace: str) -> Json:
        """The Secret that keeps it."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": SECRET, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "fsm"}},
            "data": {
                "tls.crt": base64.b64encode(self.pem.encode()).decode(),
                "tls.key": base64.b64encode(key).decode(),
            },
        }

    def server_context(self, hostname: str) -> ssl.SSLContext:
        """A server that proves this name; its key lives in this process only."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
        builder = _builder(subject, self._certificate.subject, key.public_key(), days=365)
        certificate = (
            builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        handle = os.memfd_create("feed", os.MFD_CLOEXEC)
        try:
            os.write(handle, certificate.public_bytes(serialization.Encoding.PEM))
            os.write(
                handle,
                key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            )
            context.load_cert_chain(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
        return context


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


async def authority(api: Api, namespace: str) -> Authority:
    """The installation's CA; the first replica makes it, the others find it."""
    where = path("v1", "secrets", namespace, SECRET)
    found = await api.find(where)
    if found is None:
        made = Authority.new()
        try:
            await api.create(path("v1", "secrets", namespace), made.secret(namespace))
        except ApiError as error:
            if error.status != 409:
                raise
            found = await api.get(where)
        else:
            return made
    return Authority.from_secret(found)


async def user_of(api: Api, token: str) -> str:
    """The user that a token stands for, or "" when it is not good for the feed (TokenReview)."""
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [AUDIENCE]},
    }
    answer = await api.create("/apis/authentication.k8s.io/v1/tokenreviews", body)
    status = answer.get("status", {})
    if not status.get("authenticated") or AUDIENCE not in status.get("audiences", []):
        return ""
    return str(status.get("user", {}).get("username", ""))
