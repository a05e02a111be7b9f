"""Regular expressions of routes, in time linear in the input (RE2 syntax, as GEP-4359 recommends).

Whoever sends a request chooses what an expression is matched against; a backtracking engine would let him choose
how long that takes, too. The library is loaded when the first expression is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

Matches: TypeAlias = Callable[[bytes], bool]

MEMORY: Final = 1 << 20  # bytes that one compiled expression may take
# What PCRE has and RE2, being linear, has not: where it stumbles over one of these, its words alone do not tell.
BEYOND: Final = (
    (("(?=", "(?!", "(?<=", "(?<!"), "look-ahead or look-behind"),
    (("(?>", "*+", "++", "?+"), "atomic groups or possessive quantifiers"),
    (tuple(f"\\{digit}" for digit in range(1, 10)), "back-references"),
)


def full_match(text: str) -> Matches:
    """A test whether all of a value matches. Raises ValueError that says what is wrong with the expression."""
    import re2

    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = MEMORY
    try:
        compiled = re2.compile(text.encode(), options)
    except re2.error as error:
        (reason,) = error.args
        words = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(_explained(words)) from None
    return lambda value: compiled.fullmatch(value) is not None


def _explained(words: str) -> str:
    """RE2's reason, with the piece that it is about, and what is not to be had at all."""
    reason, _, piece = words.partition(": ")
    for pieces, names in BEYOND:
        if piece in pieces:
            return f"{reason} {piece}; RE2 has no {names}"
    bracket = re.fullmatch(r"(missing|unexpected) (\W)", reason)
    if bracket:
        return f"{bracket[1]} '{bracket[2]}'"
    return f"{reason} {piece}" if piece else reason
