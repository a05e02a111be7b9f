"""Which parts of a change end the worker that puts them into force; pure but for whom it asks.

A worker may be killed at any moment by somebody who means no harm (the kernel, when memory runs out), so one death proves
nothing: a part is blamed when it was put alone and the worker died, twice. Whatever survives is in force at once, in the
order in which it came, so that parts are tried with everything that they depend on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

T = TypeVar("T")

PIECES: Final = 16  # into so many a change is divided that ended a worker
PROOF: Final = 2  # deaths with nothing else to blame
MAX_DEATHS: Final = 40  # deaths in one search; what is suspected then is set aside without proof, and the rest serves on


async def culprits(parts: Sequence[T], survives: Callable[[Sequence[T]], Awaitable[bool]], *, deaths: int = 0) -> list[T]:
    """Put all of `parts` but those that are returned. `survives` puts a piece and says whether a worker lives that did;
    `deaths` is how often all of them together have ended one already."""
    blamed: list[T] = []
    left = MAX_DEATHS
    pieces: deque[tuple[Sequence[T], int]] = deque([(parts, deaths)] if parts else ())
    while pieces:
        piece, deaths = pieces.popleft()
        if left <= 0:
            blamed += piece
        elif not await survives(piece):
            left -= 1
            deaths += 1
            if deaths < PROOF and len(piece) == 1:
                pieces.appendleft((piece, deaths))
            elif len(piece) == 1:
                blamed += piece
            else:
                pieces.extendleft((smaller, 0) for smaller in reversed(_divided(piece)))
    return blamed


def _divided(parts: Sequence[T]) -> list[Sequence[T]]:
    size = -(-len(parts) // PIECES)
    return [parts[at : at + size] for at in range(0, len(parts), size)]
