"""Secrets, ConfigMaps and ClusterTrustBundles → certificates and authorities as the data plane takes them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from controller.objects.core import ClusterTrustBundle, ConfigMap, Secret
from controller.objects.references import AuthorityRef, SecretRef
from controller.state.view import View
from controller.translate.shared import conditions, reference_grants
from gateway import snapshot

SOON: Final = timedelta(days=14)  # before its end, a certificate is told to be one that expires


class CertificateFault(NamedTuple):
    """Why a reference leads to nothing: what kind of thing is wrong, and the words."""

    kind: Literal["reference", "kind", "grant"]
    message: str


def certificate(view: View, from_kind: str, namespace: str, ref: SecretRef) -> snapshot.Certificate | CertificateFault:
    """The certificate of a Secret, for an object of this kind and namespace."""
    to = ref.namespace or namespace
    if (ref.group, ref.kind) != ("", "Secret"):
        named = f"{ref.group}/{ref.kind}" if ref.group else ref.kind
        return CertificateFault("kind", f'certificateRef "{ref.name}" is a {named}; a Secret is needed.')
    if not reference_grants.permitted(view, from_kind, namespace, "", "Secret", to, ref.name):
        return CertificateFault("grant", conditions.not_permitted("Secret", to, ref.name, from_kind, namespace))
    secret = view.get(Secret, to, ref.name)
    if secret is None:
        hint = _unless_read(view, to) or f'; "kubectl create secret tls {ref.name} -n {to} --cert=FILE --key=FILE" makes one'
        return CertificateFault("reference", f'There is no Secret "{to}/{ref.name}" of type kubernetes.io/tls{hint}.')
    chain, key = _value(secret, "tls.crt"), _value(secret, "tls.key")
    if not chain or not key:
        message = f'Secret "{to}/{ref.name}" lacks tls.crt or tls.key; type kubernetes.io/tls has both.'
        return CertificateFault("reference", message)
    fault = _mismatch(chain, key)
    if fault:
        return CertificateFault("reference", f'Secret "{to}/{ref.name}": {fault}.')
    return snapshot.Certificate(f"{to}/{ref.name}", chain, key, _names(chain))


def _unless_read(view: View, namespace: str) -> str:
    """More words, where the controller was not given the right to know."""
    readable = view.noted("setting", "secret namespaces")
    if not readable or namespace in readable:
        return ""
    return f", that the controller may read: it may in {', '.join(readable)} only (fsm.secretNamespaces)"


def time_faults(certificates: Iterable[snapshot.Certificate]) -> str:
    """What is wrong with the times for which certificates are good, as of now; nothing of that keeps them from being shown."""
    now = datetime.now(UTC)
    return " ".join(f'Secret "{shown.name}": {fault}.' for shown in certificates if (fault := _time_fault(shown.chain, now)))


def _time_fault(chain: str, now: datetime) -> str:
    leaf = _leaf(chain)
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if end <= now:
        return f"its certificate expired on {end:%Y-%m-%d}, and clients refuse it"
    if end - now < SOON:
        return f"its certificate expires on {end:%Y-%m-%d}"
    return f"its certificate is not good before {begin:%Y-%m-%d}, and clients refuse it" if begin > now else ""


@lru_cache(maxsize=1024)
def _leaf(chain: str) -> x509.Certificate:
    """The certificate that a chain begins with. Raises ValueError for what is none."""
    return x509.load_pem_x509_certificates(chain.encode())[0]


@lru_cache(maxsize=1024)
def _names(chain: str) -> tuple[str, ...]:
    """The DNS names that a certificate is for."""
    leaf = _leaf(chain)
    try:
        subject_alt_names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in subject_alt_names.get_values_for_type(x509.DNSName))


def authorities(
    view: View, from_kind: str, namespace: str, refs: Iterable[AuthorityRef]
) -> tuple[str, tuple[CertificateFault, ...]]:
    """The certificates of authorities behind references, as one PEM text, and what is wrong with the others."""
    texts: list[str] = []
    faults: list[CertificateFault] = []
    for ref in refs:
        authority = _authority(view, from_kind, namespace, ref)
        if isinstance(authority, CertificateFault):
            faults.append(authority)
        else:
            texts.append(authority)
    return "\n".join(texts), tuple(faults)


def _authority(view: View, from_kind: str, namespace: str, ref: AuthorityRef) -> str | CertificateFault:
    if (ref.group, ref.kind) == ("certificates.k8s.io", "ClusterTrustBundle"):
        bundle = view.get(ClusterTrustBundle, "", ref.name)
        if bundle is None:
            return CertificateFault("reference", f'There is no ClusterTrustBundle "{ref.name}".')
        return checked(bundle.spec.trust_bundle, f'ClusterTrustBundle "{ref.name}"')
    if ref.group or ref.kind not in ("ConfigMap", "Secret"):
        named = f"{ref.group}/{ref.kind}" if ref.group else ref.kind
        return CertificateFault("kind", f'caCertificateRef "{ref.name}" is a {named}; a ConfigMap with key ca.crt is needed.')
    to = ref.namespace or namespace
    if not reference_grants.permitted(view, from_kind, namespace, "", ref.kind, to, ref.name):
        return CertificateFault("grant", conditions.not_permitted(ref.kind, to, ref.name, from_kind, namespace))
    source = f'{ref.kind} "{to}/{ref.name}"'
    if ref.kind == "Secret":
        secret = view.get(Secret, to, ref.name)
        text = _value(secret, "ca.crt") if secret is not None else None
    else:
        config_map = view.get(ConfigMap, to, ref.name)
        text = (config_map.data or {}).get("ca.crt", "") if config_map is not None else None
    if text is None:
        config_map_made = f'"kubectl create configmap {ref.name} -n {to} --from-file=ca.crt=FILE" makes one'
        if ref.kind == "ConfigMap":
            return CertificateFault("reference", f"There is no {source}; {config_map_made}.")
        # On a cluster no others are followed.
        hint = _unless_read(view, to) or f"; a ConfigMap with key ca.crt does as well, and {config_map_made}"
        return CertificateFault("reference", f"There is no {source} of type kubernetes.io/tls{hint}.")
    if not text:
        return CertificateFault("reference", f"{source} has no key ca.crt.")
    return checked(text, source)


@lru_cache(maxsize=1024)
def checked(text: str, source: str) -> str | CertificateFault:
    """The text, if it holds certificates."""
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return CertificateFault("reference", f"{source}: what it holds is no certificate in PEM.")
    return text.strip()


def _value(secret: Secret, key: str) -> str:
    text = (secret.string_data or {}).get(key)
    if text is not None:
        return text
    try:
        return base64.b64decode((secret.data or {}).get(key, ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _mismatch(chain: str, key: str) -> str:
    """Why a certificate and a key do not go together; empty when they do. Never quotes the key."""
    try:
        leaf = _leaf(chain)
    except ValueError:
        return "tls.crt is not a PEM certificate"
    try:
        private = load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError):
        return "tls.key is not an unencrypted PEM private key"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        return "tls.key does not belong to tls.crt"
    return ""
