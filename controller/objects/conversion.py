"""Values of JSON → typed values, and words for what cannot be: which field, what was found, what would work."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from controller.objects.documents import Path

T = TypeVar("T")
SHOWN: Final = 60  # characters of what was found that a message quotes
# What may hold a secret is not quoted: objects of kinds that do, and fields whose name says so.
_SECRETIVE_FIELD: Final = re.compile("pass|secret|token|credential|authorization", re.IGNORECASE)


def convert(value: Any, type_: type[T]) -> T | tuple[Path, str]:
    """A typed value; or the path of what is at fault, and the words."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        return explained(error, value, type_)
    except RecursionError:
        return (), "is nested too deeply to be read"
    except (OverflowError, ValueError) as error:
        return (), f"cannot be read: {error}"


def explained(error: msgspec.ValidationError, value: Any, type_: Any) -> tuple[Path, str]:
    """msgspec's error as a path, and words that say what was found and what would work."""
    message, _, where = str(error).partition(" - at `")
    path = path_of(where.partition("`")[0].removeprefix("$"))
    missing = re.fullmatch("Object missing required field `(.*)`", message)
    if missing:
        return (*path, missing[1]), "is missing; it is needed"
    is_secret = getattr(type_, "holds_secrets", False) or sounds_secret(path)
    found = _KINDS.get(type(_at(value, path)), "something else") if is_secret else quoted(_at(value, path))
    expected = re.fullmatch("Expected (.*?)(, got .*)?", message)
    if expected:
        return path, f"found {found}; {expected[1].replace('`', '')} is needed"
    if message.startswith(("Invalid", "Number", "Object")):
        return path, f"found {found}: {message[:1].lower()}{message[1:]}"
    return path, message  # a type's own words, which say it all


def sounds_secret(path: Path) -> bool:
    """Whether a field's name, or that of one around it, says that there may be a secret in it."""
    return any(_SECRETIVE_FIELD.search(str(part)) for part in path)


_KINDS: Final[dict[type, str]] = {
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


def path_of(text: str) -> Path:
    """msgspec's `.spec.ports[0].port` as a path."""
    parts: list[str | int] = []
    for piece in text.replace("[", ".[").strip(".").split("."):
        if piece.startswith("["):
            parts.append(int(piece[1:-1]) if piece[1:-1].isdigit() else piece[1:-1])
        elif piece:
            parts.append(piece)
    return tuple(parts)


def _at(value: Any, path: Path) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return value
    return value


def quoted(value: Any) -> str:
    """A value as a message shows it: as JSON, and not more of it than a line."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, OverflowError, UnicodeError):
        text = type(value).__name__
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
