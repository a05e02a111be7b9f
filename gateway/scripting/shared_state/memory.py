"""Memory that all workers map: numbers by key, and values that are forgotten, the oldest first, when there is no room.

Both are tables of buckets: a key's digest says which bucket it is in, and a bucket that is full gives up the entry that
lapses first. So everything costs the same however much there is, nothing grows, and nobody sweeps.

    lives     of each worker, how often it was started
    numbers   2**15 buckets × 8 entries: digest, number, when it lapses
    values    2**12 buckets × 4 entries: digest, where in the log, length, when it lapses
    log       the values themselves, written round and round; an entry whose place was written over is gone

A bucket is changed under a lock on its octet in the file, which the kernel releases if the holder dies. A holder that is
stopped while it has one is not waited for: for a second, two that write at once may then lose a count, or a value is not
kept. Times are of the monotonic clock, which every process of a machine reads alike.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import sys
import tempfile
from time import monotonic, perf_counter, sleep
from typing import Final

NUMBERS: Final = 1 << 15  # buckets
VALUES: Final = 1 << 12
LOG: Final = 32 << 20  # octets
MAX_VALUE_BYTES: Final = 1 << 20  # octets of a value
PATIENCE: Final = 0.02  # seconds to wait for a lock; who holds one is done in some microseconds
STALLED: Final = 1.0  # seconds for which a lock that could not be had is not waited for again

_NUMBER: Final = struct.Struct("16sdd")  # digest, number, when it lapses
_VALUE: Final = struct.Struct("16sQQd")  # digest, position in the log, length, when it lapses
_IN_BUCKET: Final = 8
_VALUES_IN_BUCKET: Final = 4
_numbers_of_bucket: Final = struct.Struct("16sdd" * _IN_BUCKET)
_values_of_bucket: Final = struct.Struct("16sQQd" * _VALUES_IN_BUCKET)
_HEAD: Final = struct.Struct("Q")  # how much was ever written to the log

_LIVES_AT: Final = 64
WORKERS: Final = 500
_NUMBERS_AT: Final = 4096
_VALUES_AT: Final = _NUMBERS_AT + NUMBERS * _numbers_of_bucket.size
_LOG_AT: Final = _VALUES_AT + VALUES * _values_of_bucket.size
SIZE: Final = _LOG_AT + LOG
_LOCKS: Final = SIZE  # octets behind the end: they exist to be locked only
_HOLD_LOCKS: Final = _LOCKS + NUMBERS + VALUES  # as many as buckets of numbers
_LOG_LOCK: Final = _HOLD_LOCKS + NUMBERS
_NEVER: Final = float("inf")
_FREE: Final = bytes(16)


def create() -> int:
    """A new memory, empty: a file descriptor to pass on. What is never written to takes no room."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("fsm-shared")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, SIZE)
    return descriptor


class Memory:
    """One process's view of it: worker `index` of `count`."""

    def __init__(self, descriptor: int, index: int = 0, count: int = 1) -> None:
        self._file = descriptor
        self._map = mmap.mmap(descriptor, SIZE)
        self._count = min(count, WORKERS)
        self._index = index % WORKERS
        self._stalled: dict[int, float] = {}  # locks that could not be had: until when they are not waited for
        # What the worker that had this place before held is not held any more.
        self._life = self._lives(self._index) + 1
        _HEAD.pack_into(self._map, _LIVES_AT + 8 * self._index, self._life)

    def close(self) -> None:
        """Let go of it."""
        self._map.close()
        os.close(self._file)

    # --- numbers ---

    def add(self, key: bytes, amount: float, seconds: float) -> float:
        """Add to a number and return it. It lapses `seconds` after it was first added to; 0 for never."""
        digest, bucket = _place(key, NUMBERS)
        now = monotonic()
        self._lock(_LOCKS + bucket)
        try:
            at, number, lapses = self._number(digest, bucket, now)
            if number is None:
                number, lapses = 0.0, now + seconds if seconds else _NEVER
            number += amount
            _NUMBER.pack_into(self._map, at, digest, number, lapses)
        finally:
            self._unlock(_LOCKS + bucket)
        return number

    def put(self, key: bytes, number: float, seconds: float) -> None:
        """Set a number."""
        digest, bucket = _place(key, NUMBERS)
        now = monotonic()
        self._lock(_LOCKS + bucket)
        try:
            at, _, _ = self._number(digest, bucket, now)
            _NUMBER.pack_into(self._map, at, digest, number, now + seconds if seconds else _NEVER)
        finally:
            self._unlock(_LOCKS + bucket)

    def read(self, key: bytes) -> float | None:
        """A number; None where there is none, or where it has lapsed."""
        digest, bucket = _place(key, NUMBERS)
        self._lock(_LOCKS + bucket)
        try:
            return self._number(digest, bucket, monotonic())[1]
        finally:
            self._unlock(_LOCKS + bucket)

    def take(self, key: bytes, each: float, burst: int, backlog: int, units: int = 1) -> float | None:
        """So many turns of a line in which one comes every `each` seconds: how long to wait for them; None if there are none.

        Who comes late finds up to `burst` turns saved; up to `backlog` who come early wait. This is the generic cell rate
        algorithm (ATM Forum, Traffic Management 4.1, 4.4.2): the one number that is kept is when the line will be at rest.
        """
        digest, bucket = _place(key, NUMBERS)
        now = monotonic()
        self._lock(_LOCKS + bucket)
        try:
            at, rest, _ = self._number(digest, bucket, now)
            rest = max(rest or 0.0, now)
            wait = rest - (burst - units) * each - now
            if wait > backlog * each + 1e-9:
                return None
            _NUMBER.pack_into(self._map, at, digest, rest + units * each, rest + units * each)
        finally:
            self._unlock(_LOCKS + bucket)
        return max(wait, 0.0)

    # --- what is held ---

    def hold(self, key: bytes, most: int) -> bool:
        """Be one of at most so many holders, until `release`. What a worker that died has held is free again."""
        octet = _HOLD_LOCKS + _place(key, NUMBERS)[1]
        self._lock(octet)
        try:
            if self.held(key) >= most:
                return False
            self.add(self._holder(key, self._index, self._life), 1, 0)
        finally:
            self._unlock(octet)
        return True

    def release(self, key: bytes) -> None:
        """Hold it no more."""
        self.add(self._holder(key, self._index, self._life), -1, 0)

    def held(self, key: bytes) -> int:
        """How many hold it."""
        return int(sum(self.read(self._holder(key, index, self._lives(index))) or 0 for index in range(self._count)))

    def _lives(self, index: int) -> int:
        lives: int = _HEAD.unpack_from(self._map, _LIVES_AT + 8 * index)[0]
        return lives

    @staticmethod
    def _holder(key: bytes, index: int, life: int) -> bytes:
        return b"%b\0%d\0%d" % (key, index, life)

    def _number(self, digest: bytes, bucket: int, now: float) -> tuple[int, float | None, float]:
        """Where an entry is, or could be; its number, None where it has none; when it lapses."""
        start = _NUMBERS_AT + bucket * _numbers_of_bucket.size
        unpacked = _numbers_of_bucket.unpack_from(self._map, start)
        if digest in unpacked:
            slot = unpacked.index(digest)
            lapses = unpacked[slot + 2]
            return start + slot // 3 * _NUMBER.size, unpacked[slot + 1] if lapses > now else None, lapses
        lapsing = unpacked[2::3]
        return start + lapsing.index(min(lapsing)) * _NUMBER.size, None, 0.0

    # --- values ---

    def get(self, key: bytes) -> bytes | None:
        """A value; None where there is none, where it has lapsed or had to make room."""
        digest, bucket = _place(key, VALUES)
        self._lock(_LOCKS + NUMBERS + bucket)
        try:
            _, position, length, lapses = self._value(digest, bucket)
        finally:
            self._unlock(_LOCKS + NUMBERS + bucket)
        if not length or lapses < monotonic():
            return None
        start = _LOG_AT + position % LOG
        value = self._map[start : start + length - 1]
        # Whoever writes moves the head first: if it has not come round, what was read is whole.
        (head,) = _HEAD.unpack_from(self._map, 0)
        return value if head - position <= LOG else None

    def set(self, key: bytes, value: bytes, seconds: float) -> None:
        """Keep a value, for so many seconds; 0 for as long as there is room. Raises ValueError for one that is too long."""
        if len(value) > MAX_VALUE_BYTES:
            raise ValueError(f"a value of {len(value)} bytes is too long; {MAX_VALUE_BYTES} are not")
        digest, bucket = _place(key, VALUES)
        length = len(value) + 1  # so that 0 is: nothing
        if not self._lock(_LOG_LOCK):
            return  # two that write at once might give one the other's value
        try:
            (position,) = _HEAD.unpack_from(self._map, 0)
            if position % LOG + length > LOG:
                position += LOG - position % LOG
            _HEAD.pack_into(self._map, 0, position + length)
            start = _LOG_AT + position % LOG
            self._map[start : start + length] = value + b"\0"
        finally:
            self._unlock(_LOG_LOCK)
        lapses = monotonic() + seconds if seconds else _NEVER
        self._enter(digest, bucket, position, length, lapses)

    def drop(self, key: bytes) -> None:
        """Forget a value and a number."""
        self._enter(*_place(key, VALUES), 0, 0, 0.0)
        self.put(key, 0.0, -1.0)

    def _enter(self, digest: bytes, bucket: int, position: int, length: int, lapses: float) -> None:
        self._lock(_LOCKS + NUMBERS + bucket)
        try:
            at = self._value(digest, bucket)[0]
            _VALUE.pack_into(self._map, at, digest if length else _FREE, position, length, lapses)
        finally:
            self._unlock(_LOCKS + NUMBERS + bucket)

    def _value(self, digest: bytes, bucket: int) -> tuple[int, int, int, float]:
        start = _VALUES_AT + bucket * _values_of_bucket.size
        unpacked = _values_of_bucket.unpack_from(self._map, start)
        if digest in unpacked:
            slot = unpacked.index(digest)
            return start + slot // 4 * _VALUE.size, unpacked[slot + 1], unpacked[slot + 2], unpacked[slot + 3]
        written = unpacked[1::4]  # the one whose place in the log is oldest makes room
        return start + written.index(min(written)) * _VALUE.size, 0, 0, 0.0

    # --- locks ---

    def _lock(self, octet: int) -> bool:
        """Have it, if that is possible soon. Whoever holds it may have been stopped: nobody else may be for that."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, octet)
        except OSError:
            return self._wait_for(octet)
        return True

    def _wait_for(self, octet: int) -> bool:
        now = monotonic()
        if self._stalled.get(octet, 0.0) > now:
            return False
        until = perf_counter() + PATIENCE
        while perf_counter() < until:
            sleep(0.00005)
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, octet)
                return True
        self._stalled = {stalled: until for stalled, until in self._stalled.items() if until > now}
        self._stalled[octet] = now + STALLED
        return False

    def _unlock(self, octet: int) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, octet)


def _place(key: bytes, buckets: int) -> tuple[bytes, int]:
    """A key's digest, and its bucket."""
    digest = hashlib.blake2b(key, digest_size=16).digest()
    return digest, int.from_bytes(digest[:4], "little") % buckets
