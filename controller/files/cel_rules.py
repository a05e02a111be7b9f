"""Rules in CEL as the API server evaluates them (`x-kubernetes-validations`): the library's CEL with Kubernetes' own functions.

The functions are those of "CEL options, language features, and libraries" (kubernetes.io/docs/reference/using-api/cel) as far
as rules of CRDs may use them: strings, lists, IP addresses and networks, URLs, quantities, formats.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, InvalidOperation
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from itertools import pairwise
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import cel
import re2

from controller.objects.naming import FORMATS, fits

log = logging.getLogger("fsm.files")
Network: TypeAlias = IPv4Network | IPv6Network
# What a rule raises where it meets a value that it was not made for; the API server takes such a rule for one that fails.
UNFIT: Final = (RuntimeError, TypeError, ValueError, KeyError, IndexError, OverflowError, ArithmeticError)


def holds(rule: str, value: Any) -> bool:
    """Whether a rule holds for `self`. Of transitions (`oldSelf`) there is nothing to say of an object that is read; of a rule
    with functions that nobody here knows neither, which is told once."""
    return not list(failing([rule], value))


def failing(rules: Iterable[str], value: Any) -> Iterator[str]:
    """Those rules of a value, `self`, that do not hold. The value is made CEL's own once for all of them: that takes longer
    than most rules do."""
    context = None
    for rule in rules:
        compiled = _compiled(rule)
        if compiled is None:
            continue
        if context is None:
            context = cel.Context()
            context.add_variable("self", value)
        if not _holds(rule, compiled, context):
            yield rule


def _holds(rule: str, compiled: tuple[Any, tuple[str, ...]], context: Any) -> bool:
    program, functions = compiled
    if "format" in rule:
        context.add_variable("format", _FORMATS)
    for name in functions:
        context.add_function(name, FUNCTIONS[name])
    try:
        return program.execute(context) is True
    except UNFIT as error:
        if _is_unknown(error):
            _tell_once(rule, str(error))
            return True
        return False


def _is_unknown(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith("Undefined variable or function")


@cache
def _compiled(rule: str) -> tuple[Any, tuple[str, ...]] | None:
    """A rule, and which of our functions it calls."""
    if "oldSelf" in rule:
        return None
    try:
        return cel.compile(rule), tuple(name for name in FUNCTIONS if f"{name}(" in rule)
    except UNFIT as error:
        _tell_once(rule, str(error))
        return None


@cache
def _tell_once(rule: str, why: str) -> None:
    log.warning("a rule is left to the API server, as it cannot be evaluated here: %s (%s)", rule, why)


# --- strings and lists ---


def _split(text: str, separator: str, most: int = -1) -> list[str]:
    if most == 0:
        return []
    return list(text) if not separator else text.split(separator, most - 1 if most > 0 else -1)


def _substring(text: str, start: int, end: int | None = None) -> str:
    end = len(text) if end is None else end
    if not 0 <= start <= end <= len(text):
        raise ValueError("substring: out of range")
    return text[start:end]


def _char_at(text: str, at: int) -> str:
    if not 0 <= at <= len(text):
        raise ValueError("charAt: out of range")
    return text[at : at + 1]


def _index_of(within: Any, what: Any, start: int = 0) -> int:
    if isinstance(within, str):
        return within.find(what, start)
    return within.index(what) if what in within else -1


def _last_index_of(within: Any, what: Any) -> int:
    if isinstance(within, str):
        return within.rfind(what)
    return len(within) - 1 - within[::-1].index(what) if what in within else -1


def _find(text: str, pattern: str) -> str:
    match = re2.search(pattern, text)
    return "" if match is None else match.group(0)


def _find_all(text: str, pattern: str, most: int = -1) -> list[str]:
    every = [match.group(0) for match in re2.finditer(pattern, text)]
    return every if most < 0 else every[:most]


# --- addresses, URLs, quantities ---


def _is(parse: Callable[[Any], Any]) -> Callable[[Any], bool]:
    """Whether something can be read as what `parse` makes of it."""

    def is_one(text: Any) -> bool:
        try:
            parse(text)
        except UNFIT:
            return False
        return True

    return is_one


def _address(text: str) -> dict[str, str]:
    if "%" in text:
        raise ValueError("an address with a zone")
    return {"ip": str(ip_address(text))}


def _network(text: str) -> dict[str, str]:
    if "/" not in text:
        raise ValueError("a network without a length")
    return {"cidr": str(ip_network(text, strict=False))}


def _network_of(value: dict[str, str]) -> Network:
    return ip_network(value["cidr"])


def _contains_network(outer: dict[str, str], inner: dict[str, str] | str) -> bool:
    within = _network_of(_network(inner) if isinstance(inner, str) else inner)
    network = _network_of(outer)
    return within.version == network.version and within.subnet_of(network)  # type: ignore[arg-type]  # of one version


def _contains_address(outer: dict[str, str], inner: dict[str, str] | str) -> bool:
    return ip_address(inner if isinstance(inner, str) else inner["ip"]) in _network_of(outer)


def _url(text: str) -> dict[str, Any]:
    parts = urlsplit(text)
    if not (parts.scheme and parts.netloc) and not text.startswith("/"):
        raise ValueError("neither an absolute URL nor a path")
    port = str(parts.port) if parts.port is not None else ""  # raises ValueError for what is none
    return {"scheme": parts.scheme, "host": parts.netloc.rpartition("@")[2], "hostname": parts.hostname or "", "port": port,
            "path": parts.path}  # fmt: skip


_QUANTITY: Final = re.compile(
    r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(?:(Ki|Mi|Gi|Ti|Pi|Ei)|([numkMGTPE])|[eE]([+-]?[0-9]+))?"
)
_BINARY: Final = {unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_DECIMAL: Final = {
    unit: Decimal(1000) ** power for power, unit in zip((-3, -2, -1, 1, 2, 3, 4, 5, 6), "numkMGTPE", strict=True)
}


def _quantity(text: str) -> dict[str, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError("not a quantity")
    number, binary, decimal, exponent = match.groups()
    try:
        amount = Decimal(number) * _BINARY.get(binary, 1) * _DECIMAL.get(decimal, 1) * Decimal(10) ** int(exponent or 0)
    except InvalidOperation as error:
        raise ValueError("not a quantity") from error
    return {"quantity": str(amount)}


def _amount(value: dict[str, str]) -> Decimal:
    return Decimal(value["quantity"])


# --- formats ---

_FORMATS: Final = {"format": ""}  # the variable that has the formats for functions


def _fits(name: str, text: str) -> bool:
    return _is(_url)(text) if name == "uri" else fits(name, text)


def _validate(format_: dict[str, str], text: str) -> Any:
    """What is wrong with a text, if anything."""
    name = format_["format"]
    return cel.OptionalValue.none() if _fits(name, text) else cel.OptionalValue.of([f"is no {name}"])


def _format(name: str) -> Callable[[Any], dict[str, str]]:
    return lambda _: {"format": name}


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    "charAt": _char_at,
    "find": _find,
    "findAll": _find_all,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "join": lambda parts, separator="": separator.join(parts),
    "lowerAscii": lambda text: "".join(c.lower() if c.isascii() else c for c in text),
    "upperAscii": lambda text: "".join(c.upper() if c.isascii() else c for c in text),
    "replace": lambda text, old, new, most=-1: text.replace(old, new, most),
    "reverse": lambda text: text[::-1],
    "split": _split,
    "substring": _substring,
    "trim": lambda text: text.strip(),
    "isSorted": lambda values: all(a <= b for a, b in pairwise(values)),
    "sum": sum,
    "min": lambda first, *rest: min(first) if not rest else min(first, *rest),
    "max": lambda first, *rest: max(first) if not rest else max(first, *rest),
    "sets.contains": lambda outer, inner: all(item in outer for item in inner),
    "sets.intersects": lambda left, right: any(item in right for item in left),
    "sets.equivalent": lambda left, right: all(item in right for item in left) and all(item in left for item in right),
    "isIP": _is(_address),
    "ip": lambda of: _address(of) if isinstance(of, str) else {"ip": str(_network_of(of).network_address)},
    "family": lambda address: ip_address(address["ip"]).version,
    "isCanonical": lambda text: _address(text)["ip"] == text,
    "isLoopback": lambda address: ip_address(address["ip"]).is_loopback,
    "isUnspecified": lambda address: ip_address(address["ip"]).is_unspecified,
    "isGlobalUnicast": lambda address: not (ip_address(address["ip"]).is_multicast or ip_address(address["ip"]).is_loopback),
    "isCIDR": _is(_network),
    "cidr": _network,
    "containsIP": _contains_address,
    "containsCIDR": _contains_network,
    "masked": lambda network: network,
    "prefixLength": lambda network: _network_of(network).prefixlen,
    "isURL": _is(_url),
    "url": _url,
    "getScheme": lambda parts: parts["scheme"],
    "getHost": lambda parts: parts["host"],
    "getHostname": lambda parts: parts["hostname"],
    "getPort": lambda parts: parts["port"],
    "getEscapedPath": lambda parts: parts["path"],
    "isQuantity": _is(_quantity),
    "quantity": _quantity,
    "isGreaterThan": lambda left, right: _amount(left) > _amount(right),
    "isLessThan": lambda left, right: _amount(left) < _amount(right),
    "compareTo": lambda left, right: int(_amount(left).compare(_amount(right))),
    "asInteger": lambda value: int(_amount(value)),
    "isInteger": lambda value: _amount(value) == _amount(value).to_integral_value(),
    "validate": _validate,
    **{name: _format(name) for name in (*FORMATS, "uri")},
}
