"""How things look in a terminal: one console for words, one for errors; colours only where people look."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console

out = Console(highlight=False)
# Lines for people's logs are not folded: a terminal does that, and a file should not have it.
err = Console(stderr=True, highlight=False, soft_wrap=True)


def json(value: Any) -> None:
    """A value for machines."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def duration(text: str) -> float:
    """Seconds of a Go-like duration: 90s, 5m, 1h30m, or a plain number."""
    from gateway.base.durations import seconds

    try:
        return float(text)
    except ValueError:
        value = seconds(text)
        if not value:
            raise SystemExit(f'"{text}" is not a duration; 90s and 5m are') from None
        return value
