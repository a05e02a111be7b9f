"""RequestHeaderModifier and ResponseHeaderModifier: set, then add, then remove (HTTPHeaderFilter)."""

from __future__ import annotations

from gateway.http import grammar
from gateway.http.http1 import FOLDED, Edit, Field, fold, kind_of
from gateway.snapshot import RequestHeaders, ResponseHeaders

# The one field whose values must not be joined (RFC 9110 §5.3).
NEVER_JOINED = b"set-cookie"


def _field(name: str, value: str) -> Field:
    raw, val = grammar.field_name(name), grammar.field_value(value)
    lower = raw.lower()
    return Field(kind_of(lower), lower, val, raw + b": " + val)


def build(spec: RequestHeaders | ResponseHeaders) -> Edit:
    """An edit of a list of fields; it returns a new list and leaves the given one alone. What it sets or removes, no other
    name stands for: a client's `X_User` goes where `X-User` is set or removed, as to many backends they are one. Raises
    ValueError for what cannot be written."""
    replaced = [_field(*pair) for pair in spec.set]
    added = [_field(*pair) for pair in spec.add]
    removed = frozenset(name.lower().encode() for name in spec.remove)
    overwritten = frozenset(field.name for field in replaced)
    folded = frozenset(map(fold, overwritten | removed))

    def edit(fields: list[Field]) -> list[Field]:
        result = [
            field
            for field in fields
            if field.name not in overwritten and not (field.kind == FOLDED and fold(field.name) in folded)
        ]
        result += replaced
        for field in added:
            _append(result, field)
        return [field for field in result if field.name not in removed] if removed else result

    return edit


def _append(fields: list[Field], new: Field) -> None:
    """Add a value to a field: joined to the last one of its name by a comma, as the API documents it."""
    if new.name != NEVER_JOINED:
        for index in range(len(fields) - 1, -1, -1):
            old = fields[index]
            if old.name == new.name:
                value = old.value + b"," + new.value if old.value else new.value
                fields[index] = Field(old.kind, old.name, value, old.line.partition(b":")[0] + b": " + value)
                return
    fields.append(new)
