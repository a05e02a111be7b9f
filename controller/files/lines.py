"""Where in a file a field of an object stands: looked up when something is said of it, from the file as it is now.

The lines of all fields of all objects would be most of what a large folder costs to keep; few are ever asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path as FilePath
from typing import Final

from controller.files.octets import MAX_BYTES, octets_of
from controller.objects.base import Ref
from controller.objects.documents import Document, Path, read

MAX_WHOLE: Final = 1 << 20  # octets of a file that is parsed as a whole for one line


class Lines:
    """Lines of one moment: a file is read once, however many are asked for."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}  # by file, line by line; none of one that cannot be read

    def of(self, file: str, ref: Ref, begins: int = 0, path: Path = ()) -> int:
        """The line of an object's field, or of what stands nearest around it; `begins` is where the object was when it was
        read. 0 where the file does not say."""
        document = self._document(file, ref, begins)
        return document.line(path) if document is not None else begins

    def _document(self, file: str, ref: Ref, begins: int) -> Document | None:
        if file not in self._texts:
            self._texts[file] = _lines(FilePath(file))
        lines = self._texts[file]
        for one in _at(lines, file, begins) if begins else ():
            if _is(one, ref):
                return one
        if sum(map(len, lines)) + len(lines) > MAX_WHOLE:
            return None
        return next((one for one in read("\n".join(lines), file) if isinstance(one, Document) and _is(one, ref)), None)


def _lines(file: FilePath) -> list[str]:
    try:
        octets = octets_of(file) if file.suffix != ".py" else None
        return octets.decode().split("\n") if octets is not None and len(octets) <= MAX_BYTES else []
    except (OSError, UnicodeError):
        return []


def _at(lines: list[str], file: str, begins: int) -> Iterator[Document]:
    """The document that begins at a line, without a look at the others."""
    first, behind = lines[begins - 1 : begins], islice(lines, begins, None)
    alone = "\n" * (begins - 1) + "\n".join([*first, *takewhile(lambda line: not line.startswith("---"), behind)])
    yield from (one for one in read(alone, file) if isinstance(one, Document))


def _is(document: Document, ref: Ref) -> bool:
    meta = document.value.get("metadata")
    if document.value.get("kind") != ref.kind or not isinstance(meta, dict):
        return False
    return meta.get("name") == ref.name and (meta.get("namespace") or ref.namespace) in ("", ref.namespace)
