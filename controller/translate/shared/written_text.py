"""Text of objects that goes onto the wire: it is held against the grammar of the place where it will stand."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, Final

from gateway.filters.api.headers import FRAMING
from gateway.http import grammar
from gateway.http.http1 import fold

# Fields that frame a message or belong to one connection; a filter that edited them would break both. Nor may it write one
# that many backends take for such a field (`Content_Length`).
NOT_EDITABLE: Final = frozenset(
    b"connection content-length host keep-alive proxy-connection te trailer transfer-encoding upgrade".split()
)


def fault(field: str, check: Callable[[str], object], text: str) -> Iterator[str]:
    """What is wrong with the text of a field, in words that name it; nothing where it may stand where `check` says."""
    try:
        check(text)
    except ValueError as error:
        yield f"{field}: {error}"


def field_faults(field_path: str, pairs: Iterable[tuple[str, str]], refused: Container[bytes] = NOT_EDITABLE) -> Iterator[str]:
    """The same for fields that are written: their names, of which some are refused, and their values."""
    for name, value in pairs:
        yield from name_faults(field_path, name, refused)
        yield from fault(f"{field_path}[{grammar.shown(name)}]", grammar.field_value, value)


def name_faults(field_path: str, name: str, refused: Container[bytes] = NOT_EDITABLE) -> Iterator[str]:
    """The same for the name of a field that is set or removed."""
    wrong = [*fault(field_path, grammar.field_name, name)]
    yield from wrong
    if not wrong and fold(name.lower().encode()) in refused:
        yield f'{field_path}: "{name}" frames the message and cannot be edited'


def config_faults(field_path: str, config: Any) -> Iterator[str]:
    """The same for every mapping `headers` in the configuration of a filter that comes with the gateway."""
    if not isinstance(config, dict):
        return
    for key, value in config.items():
        if key == "headers" and isinstance(value, dict):
            pairs = [(str(name), str(text)) for name, text in value.items()]
            yield from field_faults(f"{field_path}.headers", pairs, FRAMING)
        else:
            yield from config_faults(f"{field_path}.{key}", value)
