"""Where the text of a file can be cut, so that each piece says by itself what it says in its place.

The law: a cut is made only where the parser would begin afresh. That a piece ends where it seems to is for who reads it to see:
one that does not parse by itself (a quote or a bracket is still open) was not one.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# What ends a line to YAML 1.1 besides "\n" and "\r\n"; what it refuses once it has it in its buffer; marks of the byte order
# that do not stand in front.
_UNCUTTABLE: Final = re.compile("[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|\r(?!\n)")
_PLAIN: Final = bytes([*b"\t\n\r", *range(ord(" "), ord("~") + 1)])
_MARK: Final = "\n---"
_BLOCK_ITEMS: Final = re.compile(r"(?:\A|\n)items:[ ]*\r?\n(?=( *)-[ \r\n])")
_JSON_ITEMS: Final = re.compile(r'\n *"items": *\[ *\r?\n(?=( *)\{\r?\n)')


class Cut(NamedTuple):
    """A part of a text."""

    above: int  # lines before it
    text: str


class ListCuts(NamedTuple):
    """A `kind: List` in parts."""

    head: str  # what stands before `items`, closed where it is JSON: it must be whole by itself
    frame: str  # the List without its items
    items: list[Cut]  # each as a list of one


def is_cuttable(piece: str) -> bool:
    """Whether nothing in a piece of a file is about other pieces, or about how its lines are counted."""
    if piece.isascii():  # as most are; a tenth of the time
        return not piece.encode().translate(None, _PLAIN) and piece.count("\r") == piece.count("\r\n")
    return _UNCUTTABLE.search(piece, 1 if piece.startswith("\ufeff") else 0) is None


def documents(text: str) -> list[Cut]:
    """A file's text, cut at lines that are `---` or begin with it and a space: those end a document wherever they stand
    (YAML 1.2, 9.1.2), or are a fault."""
    found: list[Cut] = []
    start = above = 0
    at = text.find(_MARK)
    while at >= 0:
        if text[at + 4 : at + 5] in ("", " ", "\t", "\r", "\n"):
            piece = text[start : at + 1]
            found.append(Cut(above, piece))
            above += piece.count("\n")
            start = at + 1
        at = text.find(_MARK, at + 1)
    return [*found, Cut(above, text[start:])]


def items(piece: str) -> ListCuts | None:
    """What may be a List with its items apart, as `kubectl get -o yaml` and `-o json` write them; None for anything else."""
    return _block_items(piece) or _json_items(piece)


def _block_items(piece: str) -> ListCuts | None:
    found = _BLOCK_ITEMS.search(piece)
    if found is None:
        return None
    indent = len(found[1])
    # Behind them is the first line that is less indented, or, where they are not indented at all, is no item.
    behind = re.compile(rf"\n {{0,{indent - 1}}}[^ \r\n]" if indent else r"\n(?:[^- \r\n]|-[^ \r\n])")
    after = behind.search(piece, found.end())
    end = after.start() + 1 if after is not None else len(piece)
    if piece[end : end + 1] == " ":  # neither an item nor a field of the List
        return None
    next_ = re.compile(rf"\n {{{indent}}}-(?=[ \r\n])")
    starts = [found.end(), *(one.start() + 1 for one in next_.finditer(piece, found.end(), end))]
    head = piece[: found.start() + 1] if found[0].startswith("\n") else ""
    return ListCuts(head, f"{head}items:\n{piece[end:]}", _cut(piece, starts, end, "", ""))


def _json_items(piece: str) -> ListCuts | None:
    found = _JSON_ITEMS.search(piece)
    if found is None:
        return None
    indent = found[1]
    after = re.compile(rf"\n{indent}\}}(?=\r?\n *\])").search(piece, found.end())
    if after is None:
        return None
    between = re.compile(rf"\n{indent}\}}(,\r?\n)(?={indent}\{{\r?\n)")
    starts = [found.end(), *(one.end() for one in between.finditer(piece, found.end(), after.end()))]
    head = piece[: found.start() + 1]
    tail = piece[piece.index("]", after.end()) :]
    return ListCuts(f"{head}}}", f'{head}"items": [{tail}', _cut(piece, starts, after.end(), "[", "]"))


def _cut(piece: str, starts: list[int], end: int, opening: str, closing: str) -> list[Cut]:
    found: list[Cut] = []
    above, at = piece.count("\n", 0, starts[0]), starts[0]
    for start, stop in zip(starts, [*starts[1:], end], strict=True):
        above += piece.count("\n", at, start)
        at = start
        text = piece[start:stop]
        found.append(Cut(above, f"{opening}{text.rstrip().removesuffix(',')}{closing}" if opening else text))
    return found
