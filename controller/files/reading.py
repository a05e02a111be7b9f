"""What the objects of a file come to, read, checked and typed; what is written as it was is not read again.

The law: whatever is remembered, what `FileReading.read` says is what `read_anew` says of the same text.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import msgspec
import yaml

from controller.files import cuts
from controller.files.validate import Valid, readable, validate
from controller.objects.decoding import salvaged
from controller.objects.documents import (
    MAX_REPEATED,
    MAX_VALUES,
    Document,
    DocumentFault,
    Loader,
    is_list,
    read,
    read_value,
    read_whole,
)
from controller.objects.kinds import KINDS, AnyObject

log = logging.getLogger("fsm.files")


class Written(NamedTuple):
    """One object of a kind that we know, or nearly, as it was written."""

    line: int
    title: str  # the object in words
    kind: str
    name: Any  # what stands there: a text, where it is valid
    object: AnyObject | None  # where the API server would take it
    faults: tuple[DocumentFault, ...] = ()  # why it would not
    readable: AnyObject | None = None  # what it says all the same, where it has the right shape
    guard: AnyObject | None = None  # what stands in for it where it guards something
    values: bytes = b""  # names what it says, where it is valid


Found: TypeAlias = Written | DocumentFault  # an object, or what is wrong where one should be


class _Item(NamedTuple):
    found: tuple[Written, ...]
    values: int  # how many


class _Piece(NamedTuple):
    found: tuple[tuple[int, Found], ...]  # each with the lines above what it was read from
    repeated: int = 0  # values that its aliases stand for: a file may have so many
    parses: bool = True  # else what it says depends on what follows
    is_refused: bool = False  # what follows is not read
    items: dict[str, _Item | None] = {}  # noqa: RUF012  of a List: by their text; None is one that means nothing by itself


def read_anew(text: str, file: str) -> Iterator[Found]:
    """The objects of a text in order, with nothing remembered. Behind what is no YAML nothing is read."""
    return _judged(read(text, file), {})


class FileReading:
    """Reads one file again and again."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._pieces: dict[str, _Piece] = {}  # by their text

    def read(self, text: str) -> Iterator[Found]:
        """The objects of its text now, in order."""
        memory = _Memory(self._pieces, self._file)
        parts = cuts.documents(text)
        if any(part not in self._pieces and not cuts.is_cuttable(part) for _, part in parts):
            parts = [cuts.Cut(0, text)]
            self._pieces = {text: _Piece(tuple((0, found) for found in _judged(read(text, self._file), memory.valid())))}
        else:
            # Those that are not reached, since something before them is broken, may be as they were once it is mended.
            self._pieces = {part: self._pieces[part] for _, part in parts if part in self._pieces}
        return self._found(text, parts, memory)

    def _found(self, text: str, parts: list[cuts.Cut], memory: _Memory) -> Iterator[Found]:
        given = repeated = start = 0
        for above, part in parts:
            piece = self._pieces.get(part)
            if piece is None:
                piece = self._pieces[part] = memory.piece(part)
            repeated += piece.repeated
            if repeated > MAX_REPEATED or (repeated and not piece.parses):  # it depends on what stands before it
                yield from islice(_judged(read(text, self._file), memory.valid()), given, None)
                return
            if not piece.parses:
                yield from (_below(found, above) for found in _judged(read(text[start:], self._file), memory.valid()))
                return
            yield from (_below(found, above + further) for further, found in piece.found)
            if piece.is_refused:
                return
            given += len(piece.found)
            start += len(part)


class _Memory:
    """What a file said before; and reads what is new in it."""

    def __init__(self, pieces: dict[str, _Piece], file: str) -> None:
        self._pieces = pieces
        self._file = file
        self._valid: dict[bytes, Written] | None = None
        self._items: dict[str, _Item | None] | None = None

    def valid(self) -> dict[bytes, Written]:
        """The valid objects, by what they say."""
        if self._valid is None:
            apart = (item.found for piece in self._pieces.values() for item in piece.items.values() if item is not None)
            found = [one for piece in self._pieces.values() for _, one in piece.found] + [one for some in apart for one in some]
            self._valid = {one.values: one for one in found if isinstance(one, Written) and one.values}
        return self._valid

    def piece(self, text: str) -> _Piece:
        """What a new piece of the file comes to."""
        cut = cuts.items(text)
        frame = self._frame(cut) if cut is not None else None
        items: dict[str, _Item | None] = {}
        if cut is not None and frame is not None:
            items = {part: self._item(part) for _, part in cut.items}
            sound = [(above, item) for above, part in cut.items if (item := items[part]) is not None]
            values = len(frame.lines) + sum(item.values for _, item in sound)
            if len(sound) == len(cut.items) and values <= MAX_VALUES:
                return _Piece(tuple((above, found) for above, item in sound for found in item.found), items=items)
        whole = read_whole(text, self._file)
        if whole is None:
            return _Piece((), parses=False, items=items)
        judged = _judged(whole.found, self.valid())
        return _Piece(tuple((0, found) for found in judged), whole.repeated, is_refused=whole.is_refused, items=items)

    def _frame(self, cut: cuts.ListCuts) -> Document | None:
        """A List without its items; None if it is none, or if something of its head is open still where they begin."""
        frame = read_value(cut.frame, self._file) if "&" not in cut.frame else None
        value = frame.value if frame is not None else None
        is_list = isinstance(value, dict) and f"{value.get('kind')}".endswith("List") and value.get("items", 0) in (None, [])
        head = read_whole(cut.head, self._file) if is_list else None
        return frame if head is not None and not head.is_refused else None

    def _item(self, text: str) -> _Item | None:
        """An item of a List, if it means by itself what it means there."""
        if self._items is None:
            self._items = {part: item for piece in self._pieces.values() for part, item in piece.items.items()}
        if text in self._items:
            return self._items[text]
        document = read_value(text, self._file, ("items",))
        if document is None or not isinstance(document.value, list) or len(document.value) != 1 or _has_anchors(text):
            return None
        (value,) = document.value
        if not isinstance(value, dict) or not isinstance(value.get("kind"), str) or is_list(value):
            return None
        lines = {path[2:]: line for path, line in document.lines.items() if len(path) > 1}
        return _Item(tuple(_written(Document(self._file, value, lines), self.valid())), len(lines))


def _has_anchors(text: str) -> bool:
    """Whether other items may use what this one says, or name what it names."""
    return "&" in text and any(getattr(event, "anchor", None) is not None for event in yaml.parse(text, Loader=Loader))


def _below(found: Found, above: int) -> Found:
    """The same, so many lines further down."""
    if not above:
        return found
    if isinstance(found, Written):
        faults = tuple(replace(fault, line=fault.line + above) if fault.line else fault for fault in found.faults)
        return found._replace(line=found.line + above, faults=faults)
    return replace(found, line=found.line + above) if found.line else found


def _judged(documents: Iterable[Document | DocumentFault], valid: dict[bytes, Written]) -> Iterator[Found]:
    for one in documents:
        if isinstance(one, DocumentFault):
            yield one
        else:
            yield from _written(one, valid)


def _written(document: Document, valid: dict[bytes, Written]) -> Iterator[Written]:
    """What an object comes to, which may be known from elsewhere in the file; nothing, if it is none of ours."""
    values = _digest(document.value)
    known = valid.get(values)
    if known is not None:
        yield known._replace(line=document.line())
        return
    kind, meta = document.value["kind"], document.value.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    odd = guard = None
    try:
        result = validate(document)
        if isinstance(result, list):
            odd = readable(document)
            guard = salvaged(KINDS[kind], document.value, f"{result[0].field}: {result[0].message}.") if kind in KINDS else None
    except Exception as error:
        log.exception("%s", document.name)
        result = [document.fault((), f"cannot be checked ({type(error).__name__}: {error}); please report this")]
    if isinstance(result, Valid):
        yield Written(document.line(), document.name, kind, name, result.object, values=values)
    elif result is not None:
        yield Written(document.line(), document.name, kind, name, None, tuple(result), odd, guard)


def _digest(value: Any) -> bytes:
    """Names a value, with the types of all that is in it; empty where it has no name."""
    try:
        return hashlib.blake2b(msgspec.json.encode(value), digest_size=16).digest()
    except (TypeError, ValueError, OverflowError, UnicodeError):
        return b""
