"""Where in a file a field of an object stands: looked up when something is said of it, from the file as it is now.

The lines of all fields of all objects would be most of what a large folder costs to keep; few are ever asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path as FilePath
from typing import Final

from controller.files.octets import MAX_BYTES, octets_of
from controller.objects.base import Ref
from controller.objects.documents import Document, Path, read

MAX_WHOLE: Final = 1 << 20  # octets of a file that is parsed as a whole for one line


def line_of(file: str, ref: Ref, begins: int = 0, path: Path = ()) -> int:
    """The line of an object's field, or of what stands nearest around it; `begins` is where the object was when it was read.

    0 where the file does not say.
    """
    found = _document(file, ref, begins)
    return found.line(path) if found is not None else begins


def _document(file: str, ref: Ref, begins: int) -> Document | None:
    try:
        octets = octets_of(FilePath(file)) if FilePath(file).suffix != ".py" else None
        if octets is None or len(octets) > MAX_BYTES:
            return None
        text = octets.decode()
    except (OSError, UnicodeError):
        return None
    for one in _at(text, file, begins) if begins else ():
        if _is(one, ref):
            return one
    if len(text) > MAX_WHOLE:
        return None
    return next((one for one in read(text, file) if isinstance(one, Document) and _is(one, ref)), None)


def _at(text: str, file: str, begins: int) -> Iterator[Document]:
    """The document that begins at a line, without a look at the others."""
    lines = text.split("\n")[begins - 1 :]
    alone = "\n" * (begins - 1) + "\n".join([*lines[:1], *takewhile(lambda line: not line.startswith("---"), lines[1:])])
    yield from (one for one in read(alone, file) if isinstance(one, Document))


def _is(document: Document, ref: Ref) -> bool:
    meta = document.value.get("metadata")
    if document.value.get("kind") != ref.kind or not isinstance(meta, dict):
        return False
    return meta.get("name") == ref.name and (meta.get("namespace") or ref.namespace) in ("", ref.namespace)
