"""A Gateway's limits, from its annotation: what a client may ask of its listeners.

    metadata:
      annotations:
        gateway.flomesh.io/limits: "{bodyBytes: 10485760, connectionsPerAddress: 200}"

A limit that is not named has its default. Limits that cannot be understood are said so in the Gateway's status, and
the defaults, which are safe, are in force: a slip of the pen must not take a Gateway's traffic away.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from controller.files.written import WrittenError, load
from controller.objects.conversion import quoted
from controller.objects.gateways import Gateway
from gateway.snapshot import DEFAULT_LIMITS, Limits

ANNOTATION: Final = "gateway.flomesh.io/limits"
MAY_BE_ZERO: Final = frozenset(
    ("body_bytes", "body_rate", "connections", "connections_per_address", "requests_per_connection", "unsent_bytes")
)

MAX_LIMIT: Final = 2**53  # of any limit


class ReadLimits(NamedTuple):
    """What is in force, and what is wrong with what was written ("" when nothing is)."""

    limits: Limits
    fault: str


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


FIELDS: Final = {_camel(name): name for name in Limits.__struct_fields__}
CHOICES: Final = {"underscores": ("Allow", "Reject", "Drop")}


def of(gateway: Gateway) -> ReadLimits:
    """The limits of a Gateway."""
    return read(gateway.metadata.annotations.get(ANNOTATION, ""))


def read(text: str) -> ReadLimits:
    """The limits that an annotation's text means."""
    try:
        written = load(text)
    except WrittenError as error:
        return _fault(f"not YAML or JSON: {error}")
    if written is None:
        return ReadLimits(DEFAULT_LIMITS, "")
    if not isinstance(written, dict):
        return _fault("a mapping is needed, such as {bodyBytes: 10485760}")
    changes: dict[str, Any] = {}
    for key, value in written.items():
        name = FIELDS.get(key) if isinstance(key, str) else None
        if name is None:
            return _fault(f"{key} is not a limit; these are: {', '.join(FIELDS)}")
        if name in CHOICES:
            if value not in CHOICES[name]:
                return _fault(f"{key}: {value!r} was found; one of {', '.join(CHOICES[name])} is needed")
            changes[name] = value
            continue
        wants_whole = isinstance(getattr(DEFAULT_LIMITS, name), int)
        is_number = isinstance(value, int) or (isinstance(value, float) and not wants_whole)
        least = 0 if name in MAY_BE_ZERO else 1 if wants_whole else 0.001
        if isinstance(value, bool) or not is_number or not least <= value <= MAX_LIMIT:
            kind = "a whole number" if wants_whole else "a number of seconds"
            return _fault(f"{key}: {_shown(value)} was found; {kind} of at least {least:g} is needed")
        changes[name] = value if wants_whole else float(value)
    return ReadLimits(msgspec.structs.replace(DEFAULT_LIMITS, **changes), "")


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, int | float | bool | str) and len(str(value)) < 60 else quoted(value)


def _fault(words: str) -> ReadLimits:
    return ReadLimits(DEFAULT_LIMITS, f'metadata.annotations["{ANNOTATION}"]: {words}. The default limits are in force.')
