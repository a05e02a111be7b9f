"""Metrics of a filter's own, under the names that it gives them, beside those of the gateway.

from gateway.filters.api import metrics

metrics.add("logins_total", user_kind="guest")
metrics.observe("lookup_seconds", 0.012)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

Labels: TypeAlias = tuple[tuple[str, str], ...]
MOST: Final = 2000  # series of one filter; what comes after them is counted as one
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,99}")
_OVERFLOW: Final = (("overflow", "true"),)
BUCKETS: Final = 32  # of a distribution: bucket n counts what is under 2**n * 0.5 ms


class Measured(msgspec.Struct, array_like=True, tag=True):
    """Something that a filter measured."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    labels: Labels
    value: float


class Metrics:
    """What a filter measures with."""

    def __init__(self, measured: Callable[[Measured], None]) -> None:
        self._measured = measured

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter; its name should end in `_total`."""
        if not amount >= 0:
            raise ValueError(f"a counter cannot go down (by {-amount}); `set` makes a gauge, which can")
        self._measured(Measured("counter", _checked(name), _sorted(labels), amount))

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge; those of several workers are added up."""
        self._measured(Measured("gauge", _checked(name), _sorted(labels), value))

    def observe(self, name: str, seconds: float, /, **labels: str) -> None:
        """Add to a distribution of durations; its name should end in `_seconds`."""
        self._measured(Measured("histogram", _checked(name), _sorted(labels), seconds))


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or name.startswith("fsm_"):
        raise ValueError(f"{name!r} is no name of a metric: small letters, digits and _, not beginning with fsm_")
    return name


def _sorted(labels: dict[str, str]) -> Labels:
    if "filter" in labels:
        raise ValueError("the label filter says which filter it was")
    return tuple(sorted((name, str(value)) for name, value in labels.items()))


class Measures:
    """What one filter has measured in this worker: by kind, name and labels, a number or a distribution and its sum."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, str, Labels], list[float]] = {}

    def take(self, one: Measured) -> None:
        """Count it in."""
        key = one.kind, one.name, one.labels
        values = self.series.get(key)
        if values is None:
            if len(self.series) >= MOST:
                key = one.kind, one.name, _OVERFLOW
            values = self.series.setdefault(key, [0.0] * (BUCKETS + 1 if one.kind == "histogram" else 1))
        if one.kind == "counter":
            values[0] += one.value
        elif one.kind == "gauge":
            values[0] = one.value
        else:
            values[min(int(max(one.value, 0.0) * 2000).bit_length(), BUCKETS - 1)] += 1
            values[BUCKETS] += one.value
