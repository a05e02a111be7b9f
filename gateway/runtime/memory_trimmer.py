"""Gives memory back to the system that the C library keeps after a peak, where there is more of it than there needs to be."""

from __future__ import annotations

import ctypes
import os
from typing import Final


class Trimmer:
    """Gives memory back to the kernel when a worker is quiet."""

    EVERY: Final = 10.0  # seconds between two looks
    WORTH: Final = 4 << 20  # octets above the least that was seen, which are worth the while of giving them back

    __slots__ = ("_least", "_next", "_trim")

    def __init__(self) -> None:
        self._least = 0
        self._next = 0.0
        # glibc has it; other C libraries give back by themselves, or cannot be asked.
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def tick(self, now: float) -> None:
        """Look, if it is time."""
        if now < self._next or self._trim is None:
            return
        self._next = now + self.EVERY
        resident = _resident()
        if self._least and resident > self._least + self.WORTH:
            self._trim(0)
            resident = _resident()
        # What cannot be given back is in use, and no reason to look for it again and again.
        self._least = min(resident, self._least + (self._least >> 3)) if self._least else resident


def _resident() -> int:
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
