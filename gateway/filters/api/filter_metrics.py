"""Metrics of a filter's own, under the names that it gives them, beside those of the gateway.

from gateway.filters.api import metrics

metrics.add("logins_total", user_kind="guest")
metrics.observe("lookup_seconds", 0.012)

Whoever measures, what is kept is bounded: by filter and over all of them, in series and in octets of the page that shows
them. What is over is counted, and not kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeAlias

import msgspec

SERIES: Final = 2000  # of one filter
OCTETS: Final = 60_000  # that they take on the page of metrics
OCTETS_OF_ALL: Final = 1_000_000  # that the filters of a worker take together
BUCKETS: Final = 32  # of a distribution: bucket n counts what is under 2**n * 0.5 ms
SHOWN: Final = 15  # lines of a distribution on that page, besides its sum and its count
_LABELS: Final = 16  # of one series
_VALUE: Final = 200  # characters of a label's value
_GREATEST: Final = 1e18
_NAME: Final = r"^(?!fsm_)[a-z_][a-z0-9_]{0,99}\Z"
# What Prometheus or we write ourselves: a filter's name, and the bounds of distributions.
_LABEL: Final = r"^(?!__|(?:filter|le|quantile)\Z)[A-Za-z_][A-Za-z0-9_]{0,63}\Z"
_is_name: Final = re.compile(_NAME).match
_is_label: Final = re.compile(_LABEL).match

Labels: TypeAlias = tuple[tuple[str, str], ...]
Label: TypeAlias = Annotated[str, msgspec.Meta(pattern=_LABEL)]
Value: TypeAlias = Annotated[str, msgspec.Meta(max_length=_VALUE)]


class Measured(msgspec.Struct, array_like=True, tag=True, forbid_unknown_fields=True):
    """Something that a filter measured."""

    kind: Literal["counter", "gauge", "histogram"]
    name: Annotated[str, msgspec.Meta(pattern=_NAME)]
    labels: Annotated[tuple[tuple[Label, Value], ...], msgspec.Meta(max_length=_LABELS)]
    value: Annotated[float, msgspec.Meta(ge=-_GREATEST, le=_GREATEST)]


class Metrics:
    """What a filter measures with."""

    def __init__(self, measured: Callable[[Measured], None]) -> None:
        self._measured = measured

    def add(self, name: str, amount: float = 1, /, **labels: str) -> None:
        """Add to a counter; its name should end in `_total`."""
        if not amount >= 0:
            raise ValueError(f"a counter cannot go down (by {-amount}); `set` makes a gauge, which can")
        self._measured(Measured("counter", _checked(name), _sorted(labels), _number(amount)))

    def set(self, name: str, value: float, /, **labels: str) -> None:
        """Set a gauge; those of several workers are added up."""
        self._measured(Measured("gauge", _checked(name), _sorted(labels), _number(value)))

    def observe(self, name: str, seconds: float, /, **labels: str) -> None:
        """Add to a distribution of durations; its name should end in `_seconds`."""
        self._measured(Measured("histogram", _checked(name), _sorted(labels), _number(seconds)))


def _checked(name: str) -> str:
    if not _is_name(name):
        raise ValueError(
            f"{name!r} is no name of a metric: at most 100 small letters, digits and _, not beginning with a digit or fsm_"
        )
    return name


def _number(value: float) -> float:
    if not -_GREATEST <= value <= _GREATEST:
        raise ValueError(f"{value} cannot be measured; finite numbers up to {_GREATEST:g} can")
    return value


def _sorted(labels: dict[str, str]) -> Labels:
    for name in labels:
        if not _is_label(name):
            raise ValueError(f"{name!r} cannot be a label: filter, le, quantile and names in other letters belong to others")
    if len(labels) > _LABELS:
        raise ValueError(f"{len(labels)} labels are too many; {_LABELS} are not")
    return tuple(sorted((name, str(value)[:_VALUE]) for name, value in labels.items()))


class Room:
    """How many octets are left, for all filters of a worker."""

    def __init__(self, octets: int = OCTETS_OF_ALL) -> None:
        self.octets = octets


class Measures:
    """What one filter has measured in this worker: by kind, name and labels, a number or a distribution and its sum."""

    def __init__(self, filter_name: str = "", room: Room | None = None) -> None:
        self.series: dict[tuple[str, str, Labels], list[float]] = {}
        self.dropped = 0  # for which there was no room
        self.most = OCTETS
        self._filter = filter_name
        self._octets = 0
        self._room = room or Room()

    def own(self) -> None:
        """The filter is one of the gateway's: what it measures is known, and as much as there are series."""
        self.most, self._room = OCTETS_OF_ALL * 4, Room(OCTETS_OF_ALL * 4)

    def forget(self) -> None:
        """Begin anew."""
        self.series.clear()
        self._room.octets += self._octets
        self._octets = 0

    def take(self, measured: Measured) -> None:
        """Count it in. Raises ValueError for what `Metrics` would not have let pass."""
        key = measured.kind, measured.name, measured.labels
        values = self.series.get(key)
        if values is None:
            if any(before[0] >= after[0] for before, after in zip(measured.labels, measured.labels[1:], strict=False)):
                raise ValueError("labels that are not in order, each once")
            octets = shown(self._filter, *key)
            if len(self.series) >= SERIES or octets > min(self.most - self._octets, self._room.octets):
                self.dropped += 1
                return
            self._octets += octets
            self._room.octets -= octets
            values = self.series[key] = [0.0] * (BUCKETS + 1 if measured.kind == "histogram" else 1)
        if measured.kind == "counter":
            if measured.value < 0:
                raise ValueError("a counter that goes down")
            values[0] += measured.value
        elif measured.kind == "gauge":
            values[0] = measured.value
        else:
            values[min(int(max(measured.value, 0.0) * 2000).bit_length(), BUCKETS - 1)] += 1
            values[BUCKETS] += measured.value


def shown(filter_name: str, kind: str, name: str, labels: Labels) -> int:
    """Octets that a series takes on the page at most, about: its lines, and those that say what its name is."""
    described = sum(len(label) + _written(value) + 4 for label, value in labels)
    line = len(name) + len(filter_name) + described + 45
    return line * (SHOWN + 2) if kind == "histogram" else line + 2 * len(name) + 45


def _written(value: str) -> int:
    return len(value.encode()) + sum(value.count(character) for character in '\\"\n')
