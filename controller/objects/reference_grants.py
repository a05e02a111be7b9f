"""ReferenceGrant: who may refer to what across namespaces."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from controller.objects.base import Key, Object, Struct


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
