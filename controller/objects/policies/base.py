"""What every policy of gateway.flomesh.io is: a target, and what is said of it and of its parts.

A kind of policy is one file of this folder: the object, what its config may say (limits are those of the CRD; objects may be
older than that), and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec
from msgspec import Meta

from controller.objects.base import FAULT, Key, Object, Ref, Struct
from gateway.base import durations
from gateway.filters.api.headers import field as write


def one_of(*words: str) -> Any:
    """One of these; a message that it is not lists them."""
    return Meta(pattern=rf"^({'|'.join(words)})\Z")


Percent: TypeAlias = Annotated[int, Meta(ge=0, le=100)]
StatusCode: TypeAlias = Annotated[int, Meta(ge=200, le=599)]
Amount: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]
Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=86400)]
Decimal: TypeAlias = Annotated[str, Meta(pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?\Z")]
Ratio: TypeAlias = Annotated[str, Meta(pattern=r"^(0(\.[0-9]{1,6})?|1(\.0{1,6})?|\.[0-9]{1,6})\Z")]
Duration: TypeAlias = Annotated[str, Meta(pattern=rf"^{durations.PATTERN}\Z")]
Message: TypeAlias = Annotated[str, Meta(max_length=4096)]
Rate: TypeAlias = Annotated[int, Meta(ge=1, le=10**12)]
ON_ROUTES: Final = ("Gateway", "HTTPRoute", "GRPCRoute")
BuiltInConfig: TypeAlias = dict[str, Any]  # of a filter that comes with the gateway, as its own kind spells it


class Header(Struct, frozen=True):
    """A field and its value."""

    name: Annotated[str, Meta(max_length=256)]
    value: Annotated[str, Meta(max_length=4096)]


class WrittenHeader(Header, frozen=True):
    """A field that goes into a message."""

    def __post_init__(self) -> None:
        write(self.name, self.value)  # says what may not be written


class Policy(Object, frozen=True):
    """A policy of gateway.flomesh.io/v1alpha1: a target, and what is said of it, of its parts, by name."""

    spec: Any = None  # as it is stored; `statement.py` reads it
    fault: str = msgspec.field(default="", name=FAULT)  # why it is not to be believed, but for what it is for

    @property
    def targets(self) -> tuple[Ref, ...]:
        """What it is for, as far as that can be read and is in its own namespace: of others it has nothing to say."""
        spec = self.spec if isinstance(self.spec, dict) else {}
        given = spec.get("targetRefs") or [spec.get("targetRef")]
        own = self.metadata.namespace
        return tuple(
            Ref(target["kind"], own, target["name"])
            for target in (given if isinstance(given, list) else ())
            if isinstance(target, dict) and target.get("namespace") in (None, "", own)
            and isinstance(target.get("kind"), str) and isinstance(target.get("name"), str)
        )  # fmt: skip

    def index_keys(self) -> Iterator[Key]:
        # Of every kind under one key: a route or Service that has none depends on one thing, not on ten.
        return (("policies of", *target) for target in self.targets)

    def secret_names(self) -> Iterator[str]:
        return _secrets_within(self.spec)


def _secrets_within(value: Any) -> Iterator[str]:
    """The names behind fields that refer to Secrets, however deep: policies say the same for parts of their targets."""
    if isinstance(value, dict):
        for field, inner in value.items():
            if field in ("passwordRef", "certificateRef") and isinstance(inner, dict):
                yield str(inner.get("name", ""))
            else:
                yield from _secrets_within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _secrets_within(inner)


class PolicyKind(NamedTuple):
    """A kind of policy: how it is spelled, what it may be attached to, what it says, and the filter that it comes to."""

    type: type[Policy]
    plural: str
    targets: tuple[str, ...]
    config: Any  # the type of what it says of its target, or of a part of it
    versions: tuple[str, ...] = ("v1alpha1",)
    config_fields: tuple[str, ...] = ("config",)  # where that stands; nowhere: it is the spec itself
    needed: str = ""  # a field without which a spec says nothing, where it is its own config
    built_in: str = ""  # the filter that comes with the gateway and does it; none for what is a rule's or a backend's own
    built_in_config: Callable[[Any], BuiltInConfig] = dict
    guards_connections: bool = False  # that filter looks at connections as well
    when_shut: str = ""  # of a kind that guards its target: what no longer happens where it cannot be done, in words

    @property
    def name(self) -> str:
        """As `kind` has it."""
        return self.type.__name__

    @property
    def guards(self) -> bool:
        """Whether nothing passes where it cannot be done."""
        return bool(self.when_shut)
