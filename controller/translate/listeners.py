"""A Gateway's listeners: which are valid, which conflict, with which certificates, and what routes they take."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from controller.memo import View
from controller.objects import GATEWAY_GROUP, Gateway, GatewayListener, RouteKind, RouteNamespaces, Secret, SecretRef
from controller.translate import conditions, grants, limits
from controller.translate.conditions import Condition
from gateway import snapshot

PROTOCOLS = ("HTTP", "HTTPS")
KINDS = (RouteKind("HTTPRoute"),)


class ListenerInfo(NamedTuple):
    """What routes and statuses need to know of a listener."""

    name: str
    key: str  # its name in the snapshot
    port: int
    hostname: str
    namespaces: RouteNamespaces
    kinds: tuple[RouteKind, ...]
    conditions: tuple[Condition, ...]
    part: snapshot.Listener | None  # None: not usable
    certificates: tuple[snapshot.Certificate, ...]

    @property
    def is_valid(self) -> bool:
        """Accepted, with every reference resolved."""
        return self.part is not None


def listeners(view: View, gateway: Gateway) -> tuple[ListenerInfo, ...]:
    """All listeners of a Gateway, in its order."""
    conflicts = _conflicts(gateway.spec.listeners)
    allowed = limits.of(gateway).limits
    return tuple(_listener(view, gateway, one, conflicts.get(one.name), allowed) for one in gateway.spec.listeners)


def _listener(
    view: View, gateway: Gateway, one: GatewayListener, conflict: list[Condition] | None, allowed: snapshot.Limits
) -> ListenerInfo:
    namespace = gateway.metadata.namespace
    key = f"{namespace}/{gateway.metadata.name}/{one.name}"
    kinds, kinds_condition = _kinds(one)
    certificates: tuple[snapshot.Certificate, ...] = ()
    said: list[Condition] = []
    resolved: Condition | None = kinds_condition
    if one.protocol not in PROTOCOLS:
        said.append(conditions.unsupported_protocol(one.protocol))
        kinds = ()
    elif conflict is not None:
        said += conflict
    else:
        said += [conditions.listener_accepted(), conditions.no_conflicts()]
    if one.protocol == "HTTPS":
        certificates, unresolved = _certificates(view, namespace, one)
        resolved = resolved or unresolved
    said.append(resolved or conditions.listener_resolved())
    part = None
    # A listener that allows an unknown kind beside a known one serves the known one.
    usable = resolved is None or (resolved is kinds_condition and bool(kinds))
    if said[0].is_true and usable:
        protocol = "HTTPS" if one.protocol == "HTTPS" else "HTTP"
        names = tuple(certificate.name for certificate in certificates)
        part = snapshot.Listener(key, one.port, protocol, one.hostname.lower(), names, allowed)  # type: ignore[arg-type]
    return ListenerInfo(
        one.name,
        key,
        one.port,
        one.hostname.lower(),
        one.allowed_routes.namespaces,
        kinds,
        tuple(said),
        part,
        certificates,
    )


def _conflicts(every: tuple[GatewayListener, ...]) -> dict[str, list[Condition]]:
    """Within one Gateway a conflict has no winner (Gateway.spec.listeners)."""
    found: dict[str, list[Condition]] = {}
    usable = [one for one in every if one.protocol in PROTOCOLS]
    for one in usable:
        for other in usable:
            if other is one or other.port != one.port:
                continue
            if other.protocol != one.protocol:
                message = f'Port {one.port} is {one.protocol} here and {other.protocol} in listener "{other.name}".'
                found[one.name] = conditions.listener_conflict("ProtocolConflict", message)
            elif other.hostname.lower() == one.hostname.lower():
                message = f'Listener "{other.name}" has the same port {one.port} and hostname "{one.hostname or "*"}".'
                found.setdefault(one.name, conditions.listener_conflict("HostnameConflict", message))
    return found


def _kinds(one: GatewayListener) -> tuple[tuple[RouteKind, ...], Condition | None]:
    wanted = one.allowed_routes.kinds
    if not wanted:
        return KINDS, None
    valid = tuple(kind for kind in wanted if (kind.group, kind.kind) == (GATEWAY_GROUP, "HTTPRoute"))
    if len(valid) == len(wanted):
        return valid, None
    bad = ", ".join(f"{k.group}/{k.kind}" for k in wanted if k not in valid)
    message = f"allowedRoutes.kinds: {bad} cannot be served by an {one.protocol} listener; HTTPRoute can."
    return valid, conditions.listener_unresolved("InvalidRouteKinds", message)


def _certificates(
    view: View, namespace: str, one: GatewayListener
) -> tuple[tuple[snapshot.Certificate, ...], Condition | None]:
    refs = one.tls.certificate_refs if one.tls else ()
    if not refs:
        return (), conditions.listener_unresolved("InvalidCertificateRef", "tls.certificateRefs names no certificate.")
    found: list[snapshot.Certificate] = []
    for ref in refs:
        certificate = _certificate(view, namespace, ref)
        if isinstance(certificate, Condition):
            return (), certificate
        found.append(certificate)
    return tuple(found), None


def _certificate(view: View, namespace: str, ref: SecretRef) -> snapshot.Certificate | Condition:
    def invalid(message: str) -> Condition:
        return conditions.listener_unresolved("InvalidCertificateRef", message)

    to = ref.namespace or namespace
    if (ref.group, ref.kind) != ("", "Secret"):
        return invalid(f'certificateRef "{ref.name}" is a {ref.group}/{ref.kind}; a Secret is needed.')
    if not grants.permitted(view, "Gateway", namespace, "", "Secret", to, ref.name):
        message = conditions.not_permitted("Secret", to, ref.name, "Gateway", namespace)
        return conditions.listener_unresolved("RefNotPermitted", message)
    secret = view.get(Secret, to, ref.name)
    if secret is None:
        return invalid(f'There is no Secret "{to}/{ref.name}" of type kubernetes.io/tls.')
    chain, key = _value(secret, "tls.crt"), _value(secret, "tls.key")
    if not chain or not key:
        return invalid(f'Secret "{to}/{ref.name}" lacks tls.crt or tls.key; type kubernetes.io/tls has both.')
    fault = _mismatch(chain, key)
    if fault:
        return invalid(f'Secret "{to}/{ref.name}": {fault}.')
    return snapshot.Certificate(f"{to}/{ref.name}", chain, key)


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
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
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
