"""What is stored → typed values, and words for what cannot be: which field, what was found, what would work.

Objects are stored under older schemas, and some kinds' schemas were other people's. So nothing here raises: what cannot be
read is `Unreadable`, with the field that is at fault; of kinds that guard something, what they are for is read all the
same (`salvaged`), so that what they guard can be kept shut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from controller.objects.backends import BackendTLSPolicy, BackendTLSPolicySpec
from controller.objects.base import Meta, Ref
from controller.objects.conversion import convert, explained
from controller.objects.documents import spelled
from controller.objects.filters import (
    ListenerFilter,
    ListenerFilterSpec,
    ListenerTarget,
    RouteRuleFilterPolicy,
    RouteRuleFilterPolicySpec,
    RuleTarget,
)
from controller.objects.kinds import AnyObject, Kind
from controller.objects.references import PolicyTarget

T = TypeVar("T")


class Unreadable(NamedTuple):
    """An object that cannot be read."""

    ref: Ref
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class Reader:
    """Reads objects of one kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._decode: Callable[[bytes | msgspec.Raw], Any] = msgspec.json.Decoder(kind.type).decode

    def read(self, raw: bytes | msgspec.Raw, ref: Ref) -> AnyObject | Unreadable:
        """An object as the API server sends it."""
        try:
            obj: AnyObject = self._decode(raw)
        except msgspec.ValidationError as error:
            return self._without(error, raw, ref)
        except (msgspec.DecodeError, UnicodeError, OverflowError) as error:
            return Unreadable(ref, "", f"is not JSON that can be read: {error}")
        except RecursionError:
            return Unreadable(ref, "", "is nested too deeply to be read")
        return obj

    def _without(self, error: msgspec.ValidationError, raw: bytes | msgspec.Raw, ref: Ref) -> AnyObject | Unreadable:
        try:
            value: Any = msgspec.json.decode(raw)
        except RecursionError:
            return Unreadable(ref, "", "is nested too deeply to be read")
        except msgspec.DecodeError as odd:  # such as a number that is none
            return Unreadable(ref, "", f"cannot be read: {odd}")
        return faulty(self._kind, value, ref, error)


def faulty(kind: Kind, value: Any, ref: Ref, error: msgspec.ValidationError) -> AnyObject | Unreadable:
    """An object with a fault: what it is for, where that guards something; else what is wrong with it."""
    path, words = explained(error, value, kind.type)
    return salvaged(kind, value, f"{spelled(path)}: {words}.") or Unreadable(ref, spelled(path), words)


def salvaged(kind: Kind, value: Any, fault: str) -> AnyObject | None:
    """What an object is for, where it guards that, and its fault in place of what it says; None where it does not."""
    meta = convert(value.get("metadata"), Meta) if isinstance(value, dict) else None
    if not kind.guards or not isinstance(meta, Meta):
        return None
    if kind.name in SALVAGED:
        return SALVAGED[kind.name](meta, value.get("spec"), fault)
    obj: AnyObject = kind.type(meta, value.get("spec"), fault)
    return obj


# --- kinds that guard something ---


def _each(value: Any, field: str, type_: type[T]) -> tuple[T, ...]:
    """The entries of a list that can be read."""
    given = value.get(field) if isinstance(value, dict) else None
    entries = [convert(entry, type_) for entry in given] if isinstance(given, list) else []
    return tuple(entry for entry in entries if isinstance(entry, type_))


def _tls_policy(meta: Meta, spec: Any, fault: str) -> BackendTLSPolicy:
    return BackendTLSPolicy(meta, BackendTLSPolicySpec(_each(spec, "targetRefs", PolicyTarget)), fault)


def _listener_filter(meta: Meta, spec: Any, fault: str) -> ListenerFilter:
    aspect = spec.get("aspect", "Listener") if isinstance(spec, dict) else "Listener"
    targets = _each(spec, "targetRefs", ListenerTarget)
    return ListenerFilter(
        meta, ListenerFilterSpec(aspect="Route" if aspect == "Route" else "Listener", target_refs=targets), fault
    )


def _rule_policy(meta: Meta, spec: Any, fault: str) -> RouteRuleFilterPolicy:
    return RouteRuleFilterPolicy(meta, RouteRuleFilterPolicySpec(_each(spec, "targetRefs", RuleTarget)), fault)


SALVAGED: Final[dict[str, Callable[[Meta, Any, str], AnyObject]]] = {
    "BackendTLSPolicy": _tls_policy,
    "ListenerFilter": _listener_filter,
    "RouteRuleFilterPolicy": _rule_policy,
}
