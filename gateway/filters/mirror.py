"""RequestMirror: which requests get copied (HTTPRequestMirrorFilter). Sending the copy is the exchange's work."""

from __future__ import annotations

from collections.abc import Callable

from gateway.snapshot import Mirror


def build(spec: Mirror) -> Callable[[], bool]:
    """Decide for each request in turn; exact over every `denominator` requests, and evenly spread."""
    owed = 0

    def due() -> bool:
        nonlocal owed
        owed += spec.numerator
        if owed < spec.denominator:
            return False
        owed -= spec.denominator
        return True

    return due
