"""How objects refer to others: the reference types of the Gateway API, and ReferenceGrant, which allows some of them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from controller.objects.base import Key, Object, Struct


class ParametersRef(Struct, frozen=True):
    """LocalParametersReference and ParametersReference."""

    group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""


class SecretRef(Struct, frozen=True):
    """SecretObjectReference."""

    name: str
    group: str = ""
    kind: str = "Secret"
    namespace: str = ""


class AuthorityRef(Struct, frozen=True):
    """ObjectReference and LocalObjectReference, to something that holds certificates of authorities."""

    name: str
    group: str = ""
    kind: str = "ConfigMap"
    namespace: str = ""


class ParentRef(Struct, frozen=True, omit_defaults=True):
    """ParentReference. Group and kind are always written, as the API server defaults them."""

    name: str
    group: str | None = None
    kind: str | None = None
    namespace: str | None = None
    section_name: str | None = None
    port: int | None = None


class ObjectReference(Struct, frozen=True):
    """BackendObjectReference."""

    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str = ""
    port: int | None = None


class PolicyTarget(Struct, frozen=True):
    """LocalPolicyTargetReferenceWithSectionName."""

    group: str
    kind: str
    name: str
    section_name: str = ""


class GrantFrom(Struct, frozen=True):
    """ReferenceGrantFrom."""

    group: str
    kind: str
    namespace: str


class GrantTo(Struct, frozen=True):
    """ReferenceGrantTo."""

    group: str
    kind: str
    name: str = ""


class ReferenceGrantSpec(Struct, frozen=True):
    """ReferenceGrantSpec."""

    from_: tuple[GrantFrom, ...] = msgspec.field(default=(), name="from")
    to: tuple[GrantTo, ...] = ()


class ReferenceGrant(Object, frozen=True):
    """gateway.networking.k8s.io ReferenceGrant."""

    spec: ReferenceGrantSpec = ReferenceGrantSpec()

    def index_keys(self) -> Iterator[Key]:
        yield "grants", self.metadata.namespace
