"""How things look in a terminal: one console for words, one for errors; colours only where people look."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape as literal

from gateway.base.logs import plain_lines

# Lines are not folded: a terminal does that where it must, and neither a file nor a command that is copied should have it.
# What is piped is as wide as it is.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 10_000)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def escape(text: str) -> str:
    """Words of files, clusters and filters, which may be anybody's: for a terminal no markup, and nothing that steers it."""
    return literal(plain_lines(text))


def wrong(words: str) -> SystemExit:
    """What a command is given cannot be: says so, and is the exit code for that."""
    err.print(f"[red]{escape(words)}[/]")
    return SystemExit(2)


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
