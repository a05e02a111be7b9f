"""Values of JSON → typed values, and words for what cannot be: which field, what was found, what would work."""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import msgspec

from controller.objects.documents import Path

T = TypeVar("T")
ANY_KEY: Final = "(any key)"  # of a map, in a path of msgspec's
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
    message, _, json_path = str(error).partition(" - at `")
    got = message.rpartition("got `")[2].rstrip("`") if "got `" in message else ""
    path = _with_keys(path_of(json_path.partition("`")[0].removeprefix("$")), value, got)
    missing = re.fullmatch("Object missing required field `(.*)`", message)
    if missing:
        return (*path, missing[1]), "is missing; it is needed"
    is_secret = getattr(type_, "holds_secrets", False) or sounds_secret(path)
    found = shown(_at(value, path), is_secret=is_secret)
    expected = re.fullmatch("Expected (.*?)(, got .*)?", message)
    if expected:
        return path, f"found {found}; {other_type(expected[1].replace('`', ''), _at(value, path))}"
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


def other_type(expected: str, found: Any) -> str:
    """What is needed where something of another type was found; YAML makes a number of 80 and a text of "80"."""
    if expected in ("str", "string") and isinstance(found, int | float):
        words = {"True": "yes, on and true", "False": "no, off and false"}.get(str(found))
        return f"text is needed: quote it{f' (YAML reads {words} so)' if words else ''}"
    if expected.startswith(("int", "number")) and isinstance(found, str) and found.strip().lstrip("+-").isdecimal():
        return "a number is needed: write it without quotes"
    return f"{expected} is needed"


_GOT: Final[dict[str, tuple[type, ...]]] = {
    "str": (str,), "int": (int,), "float": (float,), "bool": (bool,), "array": (list,), "object": (dict,),
    "null": (type(None),),
}  # fmt: skip


def _with_keys(path: Path, value: Any, got: str) -> Path:
    """A path with the keys of maps, which msgspec leaves out (`.labels[...]`): those that lead to a value of the type found."""
    for place, part in enumerate(path):
        if part == ANY_KEY:
            within = _at(value, path[:place])
            for key in within if isinstance(within, dict) else ():
                whole = _with_keys((*path[:place], key, *path[place + 1 :]), value, got)
                if type(_at(value, whole)) in _GOT.get(got, ()):
                    return whole
            return path[:place]
    return path


def path_of(text: str) -> Path:
    """msgspec's `.spec.ports[0].port` as a path."""
    parts: list[str | int] = []
    for piece in text.replace("[...]", f".[{ANY_KEY}]").replace("[", ".[").strip(".").split("."):
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


def shown(value: Any, *, is_secret: bool) -> str:
    """What was found: quoted, or what kind of thing it is where it may be a secret."""
    return _KINDS.get(type(value), "something else") if is_secret else quoted(value)


def quoted(value: Any) -> str:
    """A value as a message shows it: as JSON, and not more of it than a line."""
    try:
        text = msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, OverflowError, UnicodeError):
        text = type(value).__name__
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
