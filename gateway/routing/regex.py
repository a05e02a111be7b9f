"""Regular expressions of routes, in time linear in the input (RE2 syntax, as GEP-4359 recommends).

Whoever sends a request chooses what an expression is matched against; a backtracking engine would let him choose
how long that takes, too. The library is loaded when the first expression is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

Matches: TypeAlias = Callable[[bytes], bool]

MEMORY: Final = 1 << 20  # bytes that one compiled expression may take


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
        raise ValueError(words.partition(":")[0]) from None
    return lambda value: compiled.fullmatch(value) is not None
