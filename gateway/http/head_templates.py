"""Heads that repeat but for a few values, recognised without being parsed again.

A client that keeps a connection sends almost the same head again and again, and so does a backend. A template is
such a head with slots where its values change. The law: a template accepts only what the strict parse accepts, and
means by it exactly what the strict parse would have read. What is between the slots is compared byte for byte with
a head that was parsed; a slot takes legal characters of a field value only, so no line can begin or end inside it;
and which fields may have slots leaves framing, connection options and upgrades outside.

What goes on is never assembled by other rules than those of the slow path: the very functions that write a head run
once on the template, with a mark in each slot, and their result is cut at the marks. Marks are drawn at random
when the process starts and never leave it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from typing import Final

from gateway.http.http1 import BODILESS, CODING, CONNECTION, EXPECT, LENGTH, UPGRADE, Field, Response, content_length

MAX_SLOTS: Final = 12
OFTEN: Final = 32  # uses after which a template with several slots gets an expression of its own
# A varying value of one of these changes what the head means to a proxy.
FIXED: Final = frozenset((LENGTH, CODING, CONNECTION, UPGRADE, EXPECT))

_LEGAL: Final = bytes([9, *range(32, 127), *range(128, 256)])  # of a field value (RFC 9110 §5.5)
_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*+"  # the same, as an expression
_SECRET: Final = secrets.token_hex(12)
_MARK: Final = re.compile(f"slot-{_SECRET}-([0-9]+)-".encode())


def mark(number: int) -> bytes:
    """What stands in a slot while a head is composed: legal in any value, and in a Host."""
    return f"slot-{_SECRET}-{number}-".encode()


# In a slot for Content-Length: 18 digits, as its value must be a number to be read at all.
_LENGTH_MARK: Final = str(10**17 + secrets.randbelow(9 * 10**17)).encode()

ADDRESS: Final = MAX_SLOTS  # the number of the mark for the client's address


def differing(old: Sequence[Field], new: Sequence[Field]) -> list[int] | None:
    """Where two heads differ, if they have the same fields in the same order and only values differ; else None."""
    if len(old) != len(new):
        return None
    indices = []
    for index, (old_field, new_field) in enumerate(zip(old, new, strict=True)):
        if old_field.line != new_field.line:
            if old_field.line.partition(b":")[0] != new_field.line.partition(b":")[0]:
                return None
            indices.append(index)
    return indices


def pieces(fields: Sequence[Field], slots: Sequence[int], first: bytes = b"") -> list[bytes] | None:
    """What stands before, between and behind the slots, from a first line on; None where a slot is empty."""
    cut = []
    text = first
    for index, field in enumerate(fields):
        text += b"\r\n"
        if index not in slots:
            text += field.line
            continue
        if not field.value:
            return None
        line = field.line
        start = len(line) - len(line.partition(b":")[2].lstrip(b" \t"))
        cut.append(text + line[:start])
        text = line[start + len(field.value) :]
    return [*cut, text + b"\r\n\r\n"]


def with_marks(cut: Sequence[bytes]) -> bytes:
    """The template as a head, with a mark in each slot."""
    text = cut[0]
    for number, piece in enumerate(cut[1:]):
        text += mark(number) + piece
    return text


def _cut(block: bytes) -> tuple[list[bytes], list[int]]:
    """The text around the marks of a composed block, and which slots they stand for, in its order."""
    parts = _MARK.split(block)
    return parts[::2], [int(number) for number in parts[1::2]]


def _is_value(value: bytes) -> bool:
    """Whether what a slot holds is a field's value as it stands: white space at its ends would not be read as part of it."""
    return bool(value) and value[0] not in b" \t" and value[-1] not in b" \t"


class Slots:
    """What lies between the first slot's value and the last one's: values with fixed text between them.

    `varying` everywhere is those bytes. They are legal when nothing is left of them but the line ends of the fixed
    text, once all legal characters are taken away, and the fixed text is there in its order: then no line can begin
    or end inside a value.
    """

    __slots__ = ("_between", "_breaks", "_match", "_uses")

    def __init__(self, between: Sequence[bytes]) -> None:
        self._between = tuple(between)
        self._uses = 0
        self._match: Callable[..., re.Match[bytes] | None] | None = None
        self._breaks = b"\r\n" * sum(piece.count(b"\r\n") for piece in between)

    def values(self, varying: bytes) -> list[bytes]:
        """The value in each slot."""
        values = []
        at = 0
        for piece in self._between:
            end = varying.index(piece, at)
            values.append(varying[at:end])
            at = end + len(piece)
        return [*values, varying[at:]]

    def _is_worth_compiling(self) -> bool:
        """Whether it has been of use so often that an expression pays: half the time of a search for each piece."""
        self._uses += 1
        return self._uses >= OFTEN

    def _pattern(self) -> bytes:
        """An expression for the fixed text and the values behind it."""
        return b"".join(re.escape(piece) + _VALUE for piece in self._between)

    @property
    def count(self) -> int:
        """How many slots there are."""
        return len(self._between) + 1

    @property
    def separator(self) -> bytes:
        """What stands behind the first slot's value, where there is more than one."""
        return self._between[0] if self._between else b"\n"

    def passes_whole(self, slots: Sequence[int], constants: Sequence[bytes], first: int = 0) -> bool:
        """Whether a composed text has all slots from `first` on in their order, with the same text between them."""
        return list(slots) == list(range(first, len(self._between) + 1)) and tuple(constants) == self._between[first:]


class Shape(Slots):
    """A whole request head's fields: fixed text with slots in it.

    `data` is such a head and nothing else, from the end of its first line (`end`) on, where

        data.startswith(shape.first, end) and data.endswith(shape.last, 0, shape.longest)

    and `holds(data[end + shape.skip : shape.stop])`. Data longer than `longest` does not end where it is looked at; were
    it to seem so by chance, the rest of it, line ends and all, would be in a slot, which cannot hold them.
    """

    __slots__ = ("first", "is_single", "last", "longest", "skip", "stop")

    def __init__(self, cut: Sequence[bytes], longest: int) -> None:
        self.first, *between, self.last = cut
        super().__init__(between)
        self.longest = longest
        self.skip = len(self.first)
        self.stop = -len(self.last)
        self.is_single = not between  # then letters and digits can only be the slot's value

    def holds(self, varying: bytes) -> bool:
        """Whether these bytes are legal values with the fixed text between them."""
        if self._match is not None:
            return self._match(varying) is not None
        if not varying or varying.translate(None, _LEGAL) != self._breaks:
            return False
        if self._between and self._is_worth_compiling():
            self._match = re.compile(_VALUE + self._pattern()).fullmatch
        end = 0
        for piece in self._between:
            end = varying.find(piece, end)
            if end < 0:
                return False
            end += len(piece)
        return True


class Composition:
    """What goes on for a template, where everything between the first slot and the last passes as it came."""

    __slots__ = ("after", "before", "end", "is_whole")

    def __init__(self, before: bytes, after: bytes, end: bytes, *, is_whole: bool = True) -> None:
        self.before, self.after, self.end = before, after, end
        self.is_whole = is_whole  # `fill` joins its three pieces and nothing else

    def fill(self, start: bytes, varying: bytes, address: bytes) -> bytes | None:
        """The head, from its first two lines, what the slots hold, and the client's address; None: parse it."""
        return b"".join((start, self.before, varying, self.after, address, self.end))


class Hosted(Composition):
    """The same, where the first slot is Host's: it leaves its place, and is named in X-Forwarded-Host."""

    __slots__ = ("_separator", "_then")

    def __init__(self, separator: bytes, before: bytes, after: bytes, then: bytes, end: bytes) -> None:
        super().__init__(before, after, end, is_whole=False)
        self._separator = separator
        self._then = then

    def fill(self, start: bytes, varying: bytes, address: bytes) -> bytes | None:
        host, _, rest = varying.partition(self._separator)
        return b"".join((start, self.before, rest, self.after, address, self._then, host, self.end))


class Woven(Composition):
    """What goes on for a template whose slots are rearranged, joined with other values, or left out."""

    __slots__ = ("_constants", "_shape", "_slots")

    def __init__(self, shape: Shape, constants: Sequence[bytes], slots: Sequence[int]) -> None:
        super().__init__(b"", b"", b"", is_whole=False)
        self._shape = shape
        self._constants = tuple(constants)
        self._slots = tuple(slots)

    def fill(self, start: bytes, varying: bytes, address: bytes) -> bytes | None:
        values = self._shape.values(varying)
        parts = [start, self._constants[0]]
        for slot, constant in zip(self._slots, self._constants[1:], strict=True):
            value = address if slot == ADDRESS else values[slot]
            if not _is_value(value):
                return None
            parts.append(value)
            parts.append(constant)
        return b"".join(parts)


def composition(shape: Shape, block: bytes, *, as_values: bool) -> Composition:
    """Cut a composed block of fields at its marks. `as_values`: a slot is part of another field's value, even where
    it stands as if its line passed as it came."""
    constants, slots = _cut(block)
    if as_values:
        return Woven(shape, constants, slots)
    if slots[-1:] == [ADDRESS] and shape.passes_whole(slots[:-1], constants[1:-2]):
        return Composition(constants[0], constants[-2], constants[-1])
    if slots == [ADDRESS, 0] and shape.count == 1:
        return Hosted(shape.separator, constants[0], b"", constants[1], constants[2])
    if slots[-2:] == [ADDRESS, 0] and shape.passes_whole(slots[:-2], constants[1:-3], 1):
        return Hosted(shape.separator, constants[0], constants[-3], constants[-2], constants[-1])
    return Woven(shape, constants, slots)


class ResponseShape(Slots):
    """A response's head with slots; the body follows it. `status` and what frames the body are known."""

    __slots__ = ("_cut", "_first", "_last", "_skip", "length", "length_slot", "status")

    def __init__(self, cut: Sequence[bytes], status: int, length: int, length_slot: int) -> None:
        self._first, *between, self._last = cut
        super().__init__(between)
        self._skip = len(self._first)
        self.status = status
        self.length = length
        self.length_slot = length_slot  # which slot holds Content-Length, or -1
        self._cut = tuple(cut)

    def model(self) -> bytes:
        """The head, with marks in the slots."""
        head = with_marks(self._cut)[:-4]
        return head if self.length_slot < 0 else head.replace(mark(self.length_slot), _LENGTH_MARK)

    def head(self, varying: bytes) -> bytes:
        """The head in which this varies."""
        return self._first + varying + self._last

    def read(self, data: bytes) -> tuple[bytes, int, int] | None:
        """(what varies, where the head ends, the body's length), where `data` begins with such a head."""
        if not data.startswith(self._first):
            return None
        start = at = self._skip
        if self._match is not None:
            match = self._match(data, start)
            if match is None:
                return None
            at = match.end()
            end = at - len(self._last)
            if self.length_slot < 0:
                return data[start:end], at, self.length
            return self._framed(data[start:end], end)
        if self._is_worth_compiling():
            self._match = re.compile(_VALUE + self._pattern() + re.escape(self._last)).match
        for piece in self._between:
            at = data.find(piece, at)
            if at < 0:
                return None
            at += len(piece)
        end = data.find(self._last, at)
        if end < 0:
            return None
        varying = data[start:end]
        if varying.translate(None, _LEGAL) != self._breaks:
            return None
        return self._framed(varying, end)

    def _framed(self, varying: bytes, end: int) -> tuple[bytes, int, int] | None:
        length = self.length
        if self.length_slot >= 0:
            value = self.values(varying)[self.length_slot]
            number = content_length(value)
            if number is None or (value[:1] == b"0" and value != b"0"):
                return None  # what is not written as everybody does goes on written anew
            length = number
        return varying, end + len(self._last), length


def weave(shape: ResponseShape, block: bytes) -> Callable[[bytes], bytes | None]:
    """A function of what varies that gives a composed head, cut at its marks once; None: parse it."""
    if shape.length_slot >= 0:
        block = block.replace(_LENGTH_MARK, mark(shape.length_slot))
    constants, slots = _cut(block)
    if shape.passes_whole(slots, constants[1:-1]):
        before, after = constants[0], constants[-1]
        return lambda varying: before + varying + after
    template: list[bytes] = [b""] * (len(constants) + len(slots))
    template[::2] = constants

    def fill(varying: bytes) -> bytes | None:
        values = shape.values(varying)
        if not all(map(_is_value, values)):
            return None
        filled = template.copy()
        filled[1::2] = [values[slot] for slot in slots]
        return b"".join(filled)

    return fill


def response_shape(old: Sequence[Field], response: Response) -> ResponseShape | None:
    """A shape from the fields of one response and a whole other one; None where only the slow path will do."""
    slots = differing(old, response.fields)
    if not slots or len(slots) > MAX_SLOTS or response.http10 or response.status < 200 or response.status in BODILESS:
        return None
    length_slot = -1
    for number, index in enumerate(slots):
        field = response.fields[index]
        if field.kind == LENGTH:
            length_slot = number
        elif field.kind in FIXED or field.name in response.options:
            return None
    first = b"HTTP/1.1 %d" % response.status + (b" " + response.reason if response.reason else b"")
    cut = pieces(response.fields, slots, first)
    return ResponseShape(cut, response.status, response.length, length_slot) if cut is not None else None


def slots_of(old: Sequence[Field], new: Sequence[Field], known: Sequence[int] = ()) -> list[int] | None:
    """Which fields of a request may become slots, from two heads of one client; None where no template fits."""
    indices = differing(old, new)
    if indices is None:
        return None
    slots = sorted({*indices, *known})
    if len(slots) > MAX_SLOTS or any(new[index].kind in FIXED for index in slots):
        return None
    if not slots:
        # Nothing varies, or nothing yet: some value stands in, as a template has at least one slot; Host's at the last.
        able = [index for index, field in enumerate(new) if field.value and field.kind not in FIXED]
        slots = sorted(able, key=lambda index: new[index].kind)[:1]
    return slots or None
