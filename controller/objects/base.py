"""What all objects have: a kind and a name, metadata, and the spelling of their fields.

Two objects that differ only in what is left out here (resourceVersion, managedFields, annotations) are equal, so equality
says whether a change matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, NamedTuple, TypeAlias

import msgspec

GATEWAY_GROUP: Final = "gateway.networking.k8s.io"
POLICY_GROUP: Final = "gateway.flomesh.io"
EXTENSION_GROUP: Final = "extension.gateway.flomesh.io"
X_GROUP: Final = "gateway.networking.x-k8s.io"
CONTROLLER: Final = "flomesh.io/gateway-controller"
OPTION: Final = "gateway.flomesh.io/"  # the prefix of options and annotations that we know
GATEWAY_CLASS: Final = "fsm-gateway-cls"


class Ref(NamedTuple):
    """What names an object. Versions do not: v1 and v1beta1 are two spellings of one object."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


Key: TypeAlias = tuple[Any, ...]  # an index and what is looked for in it, or what names a value that is worked out
Port: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=65535)]
# A field that no object can set: JSON that has it would be somebody's idea of a joke.
FAULT: Final = "(fault)"


class Struct(msgspec.Struct, frozen=True, rename="camel"):
    """A frozen value with Kubernetes' spelling of its fields."""


class Meta(Struct, frozen=True):
    """ObjectMeta."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: str = ""
    deletion_timestamp: str = ""
    labels: dict[str, str] = {}

    @property
    def age(self) -> tuple[str, str, str]:
        """What goes before what, the least first: the oldest, then by namespace and name (GEP-713, GEP-1713)."""
        return self.creation_timestamp, self.namespace, self.name


class Object(Struct, frozen=True):
    """What every object has."""

    holds_secrets: ClassVar[bool] = False  # what it says is not quoted in messages then

    metadata: Meta = Meta()

    @property
    def ref(self) -> Ref:
        """What names this object."""
        return Ref(type(self).__name__, self.metadata.namespace, self.metadata.name)

    def index_keys(self) -> Iterator[Key]:
        """What it is found by, besides its kind and its name: what the objects that look for it know of it."""
        return iter(())

    def secret_names(self) -> Iterator[str]:
        """The Secrets of its namespace that it names; certificates of listeners are not among them."""
        return iter(())
