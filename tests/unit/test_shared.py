"""Memory that workers share: exact when many write at once, bounded whatever is written, forgetting what has lapsed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.scripting.shared_state import memory as module
from gateway.scripting.shared_state.memory import LOG, MAX_VALUE_BYTES, Memory, create


@pytest.fixture
def memory() -> Iterator[Memory]:
    made = Memory(create())
    yield made
    made.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    now = 1000.0

    def forward(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(module, "monotonic", lambda: now)
    return forward


def in_processes(count: int, work: Callable[[int], None]) -> None:
    """Do something in so many processes at once, and wait for them."""
    pids = []
    for index in range(count):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                work(index)
                status = 0
            finally:
                os._exit(status)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [0] * count


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives a lock up, however long a busy machine lets its holder wait: only then does every count have to be there."""
    monkeypatch.setattr(module, "PATIENCE", 30.0)


@pytest.mark.usefixtures("patient")
def test_counts_of_several_processes_add_up() -> None:
    descriptor = create()
    memory = Memory(descriptor)
    in_processes(4, lambda _: [Memory(descriptor).add(b"k", 1, 0) for _ in range(2000)] and None)
    assert memory.read(b"k") == 8000
    memory.close()


@pytest.mark.usefixtures("patient")
def test_turns_of_several_processes_are_as_many_as_of_one() -> None:
    descriptor = create()
    memory = Memory(descriptor)

    def work(_: int) -> None:
        mine = Memory(descriptor)
        for _ in range(500):
            if mine.take(b"k", 1000.0, 100, 0) is not None:
                mine.add(b"taken", 1, 0)

    in_processes(4, work)
    assert memory.read(b"taken") == 100
    memory.close()


def test_a_process_that_dies_with_a_lock_does_not_keep_it() -> None:
    descriptor = create()
    memory = Memory(descriptor)
    memory.add(b"k", 1, 0)

    def work(_: int) -> None:
        mine = Memory(descriptor)
        mine._unlock = lambda octet: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        mine.add(b"k", 1, 0)

    with pytest.raises(AssertionError):  # it was killed
        in_processes(1, work)
    assert memory.add(b"k", 1, 0) == 3
    memory.close()


def test_a_process_that_is_stopped_with_a_lock_does_not_stop_others() -> None:
    descriptor = create()
    memory = Memory(descriptor)
    memory.add(b"k", 1, 0)
    pid = os.fork()
    if not pid:
        mine = Memory(descriptor)
        for octet in (module._LOCKS + module._place(b"k", module.NUMBERS)[1], module._LOG_LOCK):
            mine._lock(octet)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    began = time.perf_counter()
    assert [memory.add(b"k", 1, 0) for _ in range(100)][-1] == 101
    for _ in range(100):
        memory.set(b"v", b"value", 0)
    assert memory.get(b"v") is None  # not kept: two who write at once might give one the other's
    assert time.perf_counter() - began < 0.5
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    memory._stalled.clear()
    memory.set(b"v", b"value", 0)
    assert memory.get(b"v") == b"value"
    memory.close()


def test_a_count_begins_anew(memory: Memory, clock: Callable[[float], None]) -> None:
    assert [memory.add(b"k", 1, 10), memory.add(b"k", 1, 10)] == [1, 2]
    clock(9)
    assert memory.read(b"k") == 2
    clock(2)
    assert memory.read(b"k") is None
    assert memory.add(b"k", 1, 10) == 1


@pytest.mark.parametrize(
    ("burst", "backlog", "waits"),
    [
        (1, 0, [0, None, None]),
        (3, 0, [0, 0, 0, None]),
        (1, 2, [0, 1, 2, None]),
        (2, 1, [0, 0, 1, None]),
    ],
)
def test_turns(memory: Memory, clock: Callable[[float], None], burst: int, backlog: int, waits: list[float | None]) -> None:
    assert [memory.take(b"k", 1.0, burst, backlog) for _ in waits] == [pytest.approx(w) if w is not None else w for w in waits]
    clock(1000)  # however long nobody came, no more than the burst is saved
    assert [memory.take(b"k", 1.0, burst, backlog) is None for _ in waits] == [w is None for w in waits]


def test_what_costs_more_takes_several_turns(memory: Memory) -> None:
    assert memory.take(b"k", 1.0, 10, 100, 4) == 0
    assert memory.take(b"k", 1.0, 10, 100, 6) == 0
    assert memory.take(b"k", 1.0, 10, 100, 3) == pytest.approx(3, abs=0.1)
    assert memory.take(b"k", 1.0, 10, 100) == pytest.approx(4, abs=0.1)
    assert memory.take(b"other", 1.0, 10, 100, 25) == pytest.approx(15, abs=0.1), (
        "more than can be saved waits for what is missing"
    )
    assert memory.take(b"third", 1.0, 10, 5, 25) is None


@given(
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    burst=st.integers(1, 8),
    each=st.floats(0.05, 2),
)
@settings(max_examples=200, deadline=None)
def test_turns_never_exceed_the_rate(gaps: list[float], burst: int, each: float) -> None:
    memory = Memory(create())
    now, taken = 50.0, 0
    began = now
    real = module.monotonic
    try:
        for gap in gaps:
            now += gap
            module.monotonic = lambda at=now: at  # type: ignore[assignment]
            taken += memory.take(b"k", each, burst, 0) is not None
            assert taken <= burst + (now - began) / each + 1e-6
    finally:
        module.monotonic = real  # type: ignore[assignment]
        memory.close()


def test_many_keys_take_no_more_room(memory: Memory) -> None:
    for index in range(50_000):
        memory.add(b"%d" % index, 1, 60)
    kept = sum(memory.read(b"%d" % index) == 1 for index in range(50_000))
    assert kept > 49_900  # of 262,144 places; a bucket that is full gives up who lapses first


@pytest.mark.parametrize("value", [b"", b"x", bytes(range(256)) * 100, b"y" * MAX_VALUE_BYTES], ids=len)
def test_values(memory: Memory, clock: Callable[[float], None], value: bytes) -> None:
    memory.set(b"k", value, 10)
    assert memory.get(b"k") == value
    assert memory.get(b"other") is None
    clock(11)
    assert memory.get(b"k") is None


def test_a_value_that_is_too_long_is_refused(memory: Memory) -> None:
    with pytest.raises(ValueError, match="1048577 bytes is too long; 1048576"):
        memory.set(b"k", b"x" * (MAX_VALUE_BYTES + 1), 0)


def test_values_are_replaced_and_dropped(memory: Memory) -> None:
    memory.set(b"k", b"one", 0)
    memory.set(b"k", b"two", 0)
    assert memory.get(b"k") == b"two"
    memory.add(b"k", 1, 0)
    memory.drop(b"k")
    assert memory.get(b"k") is None
    assert memory.read(b"k") is None


def test_the_oldest_values_make_room(memory: Memory) -> None:
    megabyte = MAX_VALUE_BYTES
    for index in range(2 * LOG // megabyte):
        memory.set(b"%d" % index, bytes([index]) * megabyte, 0)
    kept = [index for index in range(2 * LOG // megabyte) if memory.get(b"%d" % index) is not None]
    assert kept == list(range(kept[0], 2 * LOG // megabyte))
    assert len(kept) >= LOG // megabyte - 2
    assert all(memory.get(b"%d" % index) == bytes([index]) * megabyte for index in kept)


@pytest.mark.slow
def test_values_that_are_read_are_whole_while_others_write() -> None:
    descriptor = create()
    until = time.monotonic() + 5

    def work(index: int) -> None:
        mine = Memory(descriptor)
        number = 0
        while time.monotonic() < until:
            number += 1
            mine.set(b"%d" % (number % 64), bytes([number % 251]) * (200_000 + index), 0)
            value = mine.get(b"%d" % (number * 7 % 64))
            assert value is None or len(set(value)) == 1

    in_processes(4, work)
    os.close(descriptor)


def test_what_is_held_is_limited_over_all_workers(memory: Memory) -> None:
    other = Memory(os.dup(memory._file), index=1, count=2)
    first = Memory(os.dup(memory._file), index=0, count=2)
    assert [first.hold(b"k", 3), other.hold(b"k", 3), first.hold(b"k", 3)] == [True, True, True]
    assert not other.hold(b"k", 3)
    first.release(b"k")
    assert other.hold(b"k", 3)
    again = Memory(os.dup(memory._file), index=1, count=2)  # the worker that held two has died
    assert again.held(b"k") == 1
