"""A message's fields as a filter sees them: a mapping that writes nothing that would break the message."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, Final

from gateway.filters.api.filter_metrics import Metrics as Metrics
from gateway.filters.api.shared_state import Shared as Shared
from gateway.http.grammar import TOKEN as TOKEN
from gateway.http.http1 import FOLDED, KIND, LENGTH, SHADOW, Field, fold, kind_of

VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
METHOD: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
# Fields that frame a message or belong to one connection.
FRAMING: Final = frozenset(name for name in KIND if not name.startswith(b"x-forwarded-")) | {b"trailer"}


def is_method(name: str) -> bool:
    """Whether a request may have this method."""
    return METHOD.fullmatch(name) is not None and name != "CONNECT"


def field(name: str, value: str) -> Field:
    """A field that a filter may write. Raises ValueError for one that it may not."""
    if not TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a field name")
    if not VALUE.fullmatch(value):
        raise ValueError(f"{name}: {value!r} holds characters that a field value may not")
    raw, lower = name.encode(), name.lower().encode()
    if lower in FRAMING:
        raise ValueError(f"{name} frames the message or names its connection; it cannot be set")
    kind = kind_of(lower)
    if kind == SHADOW:
        raise ValueError(f"{name} is to many backends the same as a field of the gateway's own; it cannot be set")
    octets = value.strip(" \t").encode("latin-1")
    return Field(kind, lower, octets, raw + b": " + octets)


def pair(field: Field) -> tuple[bytes, bytes]:
    """A field's name, in the case that it has, and its value."""
    return field.line[: len(field.name)], field.value


def without_look_alikes(fields: list[Field], name: bytes) -> list[Field]:
    """The fields without those that CGI and its kin cannot tell from a field of this lower-case name."""
    if not any(field.kind == FOLDED for field in fields):
        return fields
    folded = fold(name)
    return [field for field in fields if field.kind != FOLDED or field.name == name or fold(field.name) != folded]


class Headers(MutableMapping[str, str]):
    """Header fields, by names of any case. `headers[name]` joins several by commas; setting replaces them all.

    To set or remove a field also takes away those whose names many backends cannot tell from it: `X_User` beside `X-User`.
    """

    __slots__ = ("_fields", "is_changed")

    def __init__(self, fields: list[Field]) -> None:
        self._fields = fields
        self.is_changed = False

    def __getitem__(self, name: str) -> str:
        values = self.get_all(name)
        if not values:
            raise KeyError(name)
        return ", ".join(values)

    def __setitem__(self, name: str, value: str) -> None:
        new = field(name, value)
        self._fields = [field for field in without_look_alikes(self._fields, new.name) if field.name != new.name]
        self._fields.append(new)
        self.is_changed = True

    def __delitem__(self, name: str) -> None:
        lower = name.lower().encode("latin-1", "replace")
        if lower in FRAMING:
            raise ValueError(f"{name} frames the message or names its connection; it cannot be removed")
        others = without_look_alikes(self._fields, lower)
        kept = [field for field in others if field.name != lower]
        self._fields = kept
        self.is_changed = True  # also where it is not there: a trailer of this name is not to come either
        if len(kept) == len(others):
            raise KeyError(name)

    def pop(self, name: str, *default: Any) -> Any:
        """Remove a field, and return its value or the default."""
        value = self.get(name, *default) if default else self[name]
        with contextlib.suppress(KeyError):
            del self[name]
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(field.name.decode("latin-1") for field in self._fields))

    def __len__(self) -> int:
        return len({field.name for field in self._fields})

    def __contains__(self, name: object) -> bool:
        lower = str(name).lower().encode("latin-1", "replace")
        return any(field.name == lower for field in self._fields)

    def get_all(self, name: str) -> list[str]:
        """Every value of a field, in the order they came."""
        lower = name.lower().encode("latin-1", "replace")
        return [field.value.decode("latin-1") for field in self._fields if field.name == lower]

    def add(self, name: str, value: str) -> None:
        """One more line of a field."""
        self.put(field(name, value))

    def put(self, made: Field) -> None:
        """The same, for a field that has been checked."""
        self._fields = [*self._fields, made]
        self.is_changed = True

    @property
    def fields(self) -> list[Field]:
        """The fields as the proxy has them."""
        return self._fields

    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Names, in the case that they have, and values."""
        return [pair(field) for field in self._fields]

    def replace(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Have these in place of all fields but those that frame the message, which stay."""
        there = {pair(field): field for field in self._fields}  # most come back as they went; they have been checked
        fields = [field for field in self._fields if field.name in FRAMING]
        for name, value in pairs:
            replacement = there.get((name, value))
            if replacement is None and name.lower() not in FRAMING:
                replacement = field(name.decode("latin-1"), value.decode("latin-1"))
            if replacement is not None and replacement.name not in FRAMING:
                fields.append(replacement)
        self._fields = fields
        self.is_changed = True

    def __repr__(self) -> str:
        return f"Headers({dict(self)!r})"


def length_field(data: bytes) -> Field:
    """Content-Length of a body."""
    value = b"%d" % len(data)
    return Field(LENGTH, b"content-length", value, b"Content-Length: " + value)
