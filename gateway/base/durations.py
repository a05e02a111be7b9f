"""Durations of the Gateway API (GEP-2257), and how long to wait before something is tried again."""

from __future__ import annotations

import re
from typing import Final

PATTERN: Final = "([0-9]{1,5}(h|m|s|ms)){1,4}"  # what is one
_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(duration: str) -> float:
    """A Gateway API Duration (GEP-2257) in seconds; nothing is 0."""
    return sum(int(number) * _UNIT[unit] for number, unit in re.findall(r"([0-9]+)(ms|h|m|s)", duration)) or 0.0


def is_duration(text: str) -> bool:
    """Whether a text is a Gateway API Duration."""
    return re.fullmatch(PATTERN, text) is not None


def backoff(first: float, doublings: int, most: float) -> float:
    """Seconds to wait: twice as many each time. However often that is: 2.0 to the 1024th is no number any more."""
    return min(first * 2.0 ** min(doublings, 64), most)
