"""What is stored → typed values, and words for what cannot be: which field, what was found, what would work.

Objects are stored under older schemas, and some kinds' schemas were other people's. So nothing here raises: what cannot be
read is `Unreadable`, with the field that is at fault; of kinds that guard something, what they are for is read all the
same (`salvaged`), so that what they guard can be kept shut.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from controller.objects import (
    GUARDING,
    AnyObject,
    BackendTLSPolicy,
    BackendTLSPolicySpec,
    FilterConfig,
    HTTPLog,
    Kind,
    ListenerFilter,
    ListenerFilterSpec,
    ListenerTarget,
    Meta,
    PolicyTarget,
    Ref,
    RouteRuleFilterPolicy,
    RouteRuleFilterPolicySpec,
    RuleTarget,
    Secret,
    Zipkin,
)
from controller.objects.documents import Path, spelled

T = TypeVar("T")
SHOWN: Final = 60  # characters of what was found that a message quotes
# What may hold a secret is not quoted: objects of these kinds, and fields whose name says so.
SECRETIVE: Final = (Secret, FilterConfig, HTTPLog, Zipkin)
_SECRETIVE_FIELD: Final = re.compile("pass|secret|token|credential|authorization", re.IGNORECASE)


class Unreadable(NamedTuple):
    """An object that cannot be read."""

    ref: Ref
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def convert(value: Any, type_: type[T]) -> T | tuple[Path, str]:
    """A typed value; or the path of what is at fault, and the words."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        return explained(error, value, type_)
    except RecursionError:
        return (), "is nested too deeply to be read"
    except (OverflowError, ValueError) as error:
        return (), f"cannot be read: {error}"


def explained(error: msgspec.ValidationError, value: Any, type_: Any) -> tuple[Path, str]:
    """msgspec's error as a path, and words that say what was found and what would work."""
    message, _, where = str(error).partition(" - at `")
    path = path_of(where.partition("`")[0].removeprefix("$"))
    missing = re.fullmatch("Object missing required field `(.*)`", message)
    if missing:
        return (*path, missing[1]), "is missing; it is needed"
    is_secret = type_ in SECRETIVE or sounds_secret(path)
    found = _KINDS.get(type(_at(value, path)), "something else") if is_secret else quoted(_at(value, path))
    expected = re.fullmatch("Expected (.*?)(, got .*)?", message)
    if expected:
        return path, f"found {found}; {expected[1].replace('`', '')} is needed"
    if message.startswith(("Invalid", "Number", "Object")):
        return path, f"found {found}: {message[:1].lower()}{message[1:]}"
    return path, message  # a type's own words, which say it all


def sounds_secret(path: Path) -> bool:
    """Whether a field's name, or that of one around it, says that there may be a secret in it."""
    return any(_SECRETIVE_FIELD.search(str(part)) for part in path)


_KINDS: Final[dict[type, str]] = {
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def path_of(text: str) -> Path:
    """msgspec's `.spec.ports[0].port` as a path."""
    parts: list[str | int] = []
    for piece in text.replace("[", ".[").strip(".").split("."):
        if piece.startswith("["):
            parts.append(int(piece[1:-1]) if piece[1:-1].isdigit() else piece[1:-1])
        elif piece:
            parts.append(piece)
    return tuple(parts)


def _at(value: Any, path: Path) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return value
    return value


def quoted(value: Any) -> str:
    """A value as a message shows it: as JSON, and not more of it than a line."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, OverflowError, UnicodeError):
        text = type(value).__name__
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


class Reader:
    """Reads objects of one kind."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._decode: Callable[[bytes | msgspec.Raw], Any] = msgspec.json.Decoder(kind.type).decode

    def read(self, raw: bytes | msgspec.Raw, ref: Ref) -> AnyObject | Unreadable:
        """An object as the API server sends it."""
        try:
            found: AnyObject = self._decode(raw)
        except msgspec.ValidationError as error:
            return self._without(error, raw, ref)
        except (msgspec.DecodeError, UnicodeError, OverflowError) as error:
            return Unreadable(ref, "", f"is not JSON that can be read: {error}")
        except RecursionError:
            return Unreadable(ref, "", "is nested too deeply to be read")
        return found

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
    name = kind.type.__name__
    meta = convert(value.get("metadata"), Meta) if isinstance(value, dict) else None
    if name not in GUARDING or not isinstance(meta, Meta):
        return None
    if name in SALVAGED:
        return SALVAGED[name](meta, value.get("spec"), fault)
    made: AnyObject = kind.type(meta, value.get("spec"), fault)
    return made


# --- kinds that guard something ---


def _each(value: Any, field: str, type_: type[T]) -> tuple[T, ...]:
    """The entries of a list that can be read."""
    given = value.get(field) if isinstance(value, dict) else None
    made = [convert(one, type_) for one in given] if isinstance(given, list) else []
    return tuple(one for one in made if isinstance(one, type_))


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
