"""Who may talk to whom on the feed: a CA of our own for the controller's name, TokenReview for data planes."""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import logging
import os
import ssl
from typing import Any, Final, NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.deploy.install import FEED_CA
from controller.deploy.manifests import AUDIENCE, Json
from controller.kubernetes.api import Api, ApiError, path

log = logging.getLogger("fsm")

SECRET: Final = FEED_CA
YEARS: Final = 10
RENEWED: Final = 86400.0  # seconds after which a replica makes a new certificate for itself; each is good for a year
SOON: Final = datetime.timedelta(days=180)  # before the authority's own end, when that is said in the log
PATIENCE: Final = 5.0  # seconds for a TokenReview
REVIEWS: Final = 16  # at a time
NEW_ONE: Final = "delete the Secret and restart the controllers to get a new one"
POD: Final = "authentication.kubernetes.io/pod-uid"  # what a token of a pod's says besides its user


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
        """A new certificate authority, with a key of its own."""
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
        try:
            data = {k: base64.b64decode(v) for k, v in secret["data"].items()}
            key = serialization.load_pem_private_key(data["tls.key"], None)
            certificate = x509.load_pem_x509_certificate(data["tls.crt"])
        except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
            # What the library says of a key may show some of it; the kind of error is enough.
            raise ValueError(f"Secret {SECRET} holds no authority ({type(error).__name__}); {NEW_ONE}") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError(f"Secret {SECRET}: tls.key is not the elliptic curve key of tls.crt; {NEW_ONE}")
        left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        if left < SOON:
            log.warning("Secret %s: its authority is good for %d more days; %s", SECRET, left.days, NEW_ONE)
        return cls(certificate, key)

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
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.prove(context, hostname)
        return context

    async def keep_proving(self, context: ssl.SSLContext, hostname: str) -> None:
        """Renew the certificate, for ever: a controller may run for longer than one is good."""
        while True:
            await asyncio.sleep(RENEWED)
            self.prove(context, hostname)

    def prove(self, context: ssl.SSLContext, hostname: str) -> None:
        """Give a server a new key, and a certificate for it; handshakes from now on show that."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
        builder = _builder(subject, self._certificate.subject, key.public_key(), days=365)
        certificate = (
            builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
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
    secret_path = path("v1", "secrets", namespace, SECRET)
    secret = await api.find(secret_path)
    if secret is None:
        created = Authority.new()
        try:
            await api.create(path("v1", "secrets", namespace), created.secret(namespace))
        except ApiError as error:
            if error.status != 409:
                raise
            secret = await api.get(secret_path)
        else:
            return created
    return Authority.from_secret(secret)


class Reviewed(NamedTuple):
    """The user and the pod that a reviewed token is for."""

    user: str
    pod: str = ""  # its UID, where the token was made for one


class Reviewer:
    """Asks the API server about tokens (TokenReview): so many at a time, and none for long."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._turn = asyncio.Semaphore(REVIEWS)

    async def review(self, token: str) -> Reviewed | None:
        """The user and the pod that a token is for; None when it is not good for the feed.

        Raises ApiError where nobody can tell.
        """
        try:
            async with asyncio.timeout(PATIENCE), self._turn:
                answer = await self._api.create("/apis/authentication.k8s.io/v1/tokenreviews", _question(token))
        except TimeoutError:
            raise ApiError(0, f"no TokenReview within {PATIENCE:g} s") from None
        return _reviewed(answer)


def _question(token: str) -> Json:
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [AUDIENCE]},
    }


class UserInfo(msgspec.Struct, frozen=True):
    """authentication.k8s.io/v1 UserInfo."""

    username: str = ""
    extra: dict[str, list[str]] = {}


class ReviewStatus(msgspec.Struct, frozen=True):
    """TokenReviewStatus."""

    authenticated: bool = False
    audiences: list[str] = []
    user: UserInfo = UserInfo()


class Review(msgspec.Struct, frozen=True):
    """TokenReview, of which the status answers."""

    status: ReviewStatus = ReviewStatus()


def _reviewed(answer: Any) -> Reviewed | None:
    try:
        status = msgspec.convert(answer, Review).status
    except msgspec.ValidationError as error:
        raise ApiError(0, f"a TokenReview that cannot be understood: {error}") from None
    # An audience must be in the answer: an API server that knows nothing of audiences leaves them out, and would take a
    # token that was made for somebody else (TokenReviewSpec.audiences).
    if not status.authenticated or AUDIENCE not in status.audiences or not status.user.username:
        return None
    return Reviewed(status.user.username, next(iter(status.user.extra.get(POD, ())), ""))
