"""The protobuf wire format, as much of it as a question to an authorization server takes.

Varints and length-delimited fields (https://protobuf.dev/programming-guides/encoding); a message is written field by
field and read into fields by number, so that no schema and no generated code is needed.
"""

from __future__ import annotations

from enum import IntEnum


class WireType(IntEnum):
    """What a field's value is written as; groups (3 and 4) are of no message that is spoken here."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


class Message:
    """A message being written."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def put(self, number: int, value: int | bytes | Message) -> Message:
        """Add a field; returns the message itself."""
        if isinstance(value, int):
            self._parts.append(_varint(number << 3 | WireType.VARINT) + _varint(value))
        else:
            data = bytes(value)
            self._parts.append(_varint(number << 3 | WireType.BYTES) + _varint(len(data)) + data)
        return self

    def __bytes__(self) -> bytes:
        return b"".join(self._parts)


class ParsedMessage:
    """A message that was read: the values of each field."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[int, list[int | bytes]]) -> None:
        self._fields = fields

    def all(self, number: int) -> list[bytes]:
        """All values of a field that holds bytes, text or messages."""
        return [value for value in self._fields.get(number, ()) if isinstance(value, bytes)]

    def first(self, number: int) -> bytes:
        """Its value; empty where there is none."""
        return next(iter(self.all(number)), b"")

    def number(self, number: int) -> int:
        """The value of a field that holds a number; 0 where there is none."""
        return next((value for value in self._fields.get(number, ()) if isinstance(value, int)), 0)


def read(data: bytes) -> ParsedMessage:
    """Take a message apart. Raises ValueError for what is none."""
    fields: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        value: int | bytes
        match tag & 7:
            case WireType.VARINT:
                value, at = _read_varint(data, at)
            case WireType.BYTES:
                size, at = _read_varint(data, at)
                value, at = data[at : at + size], at + size
            case WireType.FIXED64:
                value, at = data[at : at + 8], at + 8
            case WireType.FIXED32:
                value, at = data[at : at + 4], at + 4
            case kind:
                raise ValueError(f"wire type {kind}")
        if at > len(data):
            raise ValueError("a field is longer than its message")
        fields.setdefault(tag >> 3, []).append(value)
    return ParsedMessage(fields)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("a number without an end")
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
