"""What the list of system calls lets pass, on both architectures: its program is run here as the kernel runs it."""

from __future__ import annotations

import struct

import pytest

from gateway.scripting.sandbox.seccomp import (
    ALLOW,
    ARCHITECTURES,
    EPERM,
    IF_ANY,
    IF_EQUAL,
    KILL,
    LOAD,
    RETURN,
    Line,
    compiled,
)
from gateway.scripting.sandbox.syscalls import CALLS, OPENAT, In, SystemCall, Within

BOTH = ("x86_64", "aarch64")
PROGRAMS = {architecture: compiled(architecture, (*CALLS, OPENAT)) for architecture in BOTH}
NUMBERS = {architecture: {one.name: getattr(one, architecture) for one in (*CALLS, OPENAT)} for architecture in BOTH}
HIGH = 1 << 32


def run(program: list[Line], architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel does with a call (Documentation/networking/filter.rst, struct seccomp_data)."""
    described = struct.pack("<iIQ6Q", number, architecture, 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    accumulator = at = 0
    while True:
        code, yes, no, constant = program[at]
        at += 1
        if code == LOAD:
            (accumulator,) = struct.unpack_from("<I", described, constant)
        elif code == IF_EQUAL:
            at += yes if accumulator == constant else no
        elif code == IF_ANY:
            at += yes if accumulator & constant else no
        elif code == RETURN:
            return constant
        else:
            raise AssertionError(f"code {code:#x}")


def verdict(architecture: str, name: str, *arguments: int) -> int:
    return run(PROGRAMS[architecture], ARCHITECTURES[architecture], NUMBERS[architecture][name], arguments)


@pytest.mark.parametrize("architecture", BOTH)
def test_the_program_is_one_that_the_kernel_takes(architecture: str) -> None:
    program = PROGRAMS[architecture]
    assert len(program) < 4096  # BPF_MAXINSNS
    for at, (code, yes, no, constant) in enumerate(program):
        assert code in (LOAD, IF_EQUAL, IF_ANY, RETURN)
        assert 0 <= constant < HIGH
        assert min(yes, no) >= 0
        assert max(yes, no) < 256
        if code in (IF_EQUAL, IF_ANY):  # no jump leads out of it
            assert at + 1 + max(yes, no) < len(program)
    assert program[-1] == (RETURN, 0, 0, EPERM)


@pytest.mark.parametrize("architecture", BOTH)
def test_every_other_number_is_refused(architecture: str) -> None:
    known = {number for number in NUMBERS[architecture].values() if number is not None}
    for number in [*range(-2, 1200), 1 << 30, *(number | 0x40000000 for number in known)]:  # x32 has the same with a bit
        if number not in known:
            assert run(PROGRAMS[architecture], ARCHITECTURES[architecture], number) == EPERM, number
    for other in (
        0x40000003,
        0x40000028,
        ARCHITECTURES[next(one for one in BOTH if one != architecture)],
    ):  # i386, arm, the other
        assert run(PROGRAMS[architecture], other, 0) == KILL


@pytest.mark.parametrize("architecture", BOTH)
@pytest.mark.parametrize("call", [*CALLS, OPENAT], ids=lambda call: call.name)
def test_each_call_with_each_of_its_arguments(architecture: str, call: SystemCall) -> None:
    """Whatever the arguments, the program says what the table says: all values near those that are allowed, and bits."""
    if getattr(call, architecture) is None:
        return
    interesting = sorted({0, 1, 2, 3, 4, 7, 8, 100, 0x2000, 0x5452, 0x8901, 0x400, 0xFFFFFFFF, HIGH, HIGH + 3, 2**64 - 1} | {
        near for way in call.ways for one in way for value in (one.values if isinstance(one, In) else (one.mask,))
        for near in (value, value + 1, value - 1, value | HIGH, value | 1 << 63) if 0 <= near < 2**64
    } | {1 << bit for bit in range(64)})  # fmt: skip
    looked_at = sorted({one.at for way in call.ways for one in way})
    base = _allowed(call)
    for at in looked_at or range(6):
        for value in interesting:
            arguments = [*base]
            arguments[at] = value
            said = verdict(architecture, call.name, *arguments)
            assert said == (ALLOW if _fits(call, arguments) else EPERM), (call.name, at, hex(value))


def _allowed(call: SystemCall) -> list[int]:
    arguments = [0] * 6
    for one in call.ways[0] if call.ways else ():
        if isinstance(one, In):
            arguments[one.at] = one.values[0]
    return arguments


def _fits(call: SystemCall, arguments: list[int]) -> bool:
    def holds(one: In | Within) -> bool:
        value = arguments[one.at] if one.is_long else arguments[one.at] % HIGH
        return value in one.values if isinstance(one, In) else not value & ~one.mask

    return not call.ways or any(all(holds(one) for one in way) for way in call.ways)


DEEDS = [
    ("fcntl", (3, 8, 1), "F_SETOWN"), ("fcntl", (3, 10, 9), "F_SETSIG"), ("fcntl", (3, 15, 0), "F_SETOWN_EX"),
    ("fcntl", (3, 4, 0x2000), "O_ASYNC"), ("fcntl", (3, 4, 0x2800), "O_ASYNC with another"), ("fcntl", (3, 4, HIGH), "far flags"),
    ("fcntl", (3, 6, 0), "F_SETLK"), ("fcntl", (3, 7, 0), "F_SETLKW"), ("fcntl", (3, 37, 0), "F_OFD_SETLK"),
    ("fcntl", (3, 1024, 0), "F_SETLEASE"), ("fcntl", (3, 1026, 1), "F_NOTIFY"), ("fcntl", (3, 1031, 1 << 20), "F_SETPIPE_SZ"),
    ("fcntl", (3, 1033, 1), "F_ADD_SEALS"), ("fcntl", (3, 8 | HIGH, 1), "F_SETOWN, far bits"),
    ("ioctl", (3, 0x5452, 1), "FIOASYNC"), ("ioctl", (3, 0x8901, 1), "FIOSETOWN"), ("ioctl", (3, 0x8902, 1), "SIOCSPGRP"),
    ("ioctl", (0, 0x5412, 0), "TIOCSTI"), ("ioctl", (0, 0x540E, 0), "TIOCSCTTY"), ("ioctl", (3, 0x8B00, 0), "of networks"),
    ("mmap", (0, 4096, 7, 0x22, HIGH - 1, 0), "memory to write and run"), ("mmap", (0, 4096, 5, 0x22, HIGH - 1, 0), "to run, of no file"),
    ("mmap", (0, 4096, 3, 0x40022, 0, 0), "huge pages"), ("mmap", (0, 4096, 3, 0x2022, 0, 0), "locked"),
    ("mprotect", (4096, 4096, 5), "to run from now on"), ("mprotect", (4096, 4096, 7), "and to write"),
    ("madvise", (0, 4096, 100), "MADV_HWPOISON"), ("madvise", (0, 4096, 101), "MADV_SOFT_OFFLINE"), ("madvise", (0, 4096, 12), "MADV_MERGEABLE"),
    ("sendto", (3, 0, 1, 1, 0, 0), "MSG_OOB"), ("sendto", (3, 0, 1, 0, 4096, 16), "to an address"), ("recvfrom", (3, 0, 1, 1), "MSG_OOB"),
    ("recvfrom", (3, 0, 1, 0x2000), "MSG_ERRQUEUE"), ("getsockopt", (3, 1, 17), "SO_PEERCRED"), ("getsockopt", (3, 6, 4), "of TCP"),
    ("futex", (0, 6), "FUTEX_LOCK_PI"), ("futex", (0, 12 | 128), "FUTEX_CMP_REQUEUE_PI"), ("clock_gettime", (HIGH - 7,), "another's clock"),
    ("clock_nanosleep", (9, 0), "a clock that wakes the machine"), ("sched_getaffinity", (1,), "another's"),
    ("openat", (0, 0, 0x200000), "O_PATH"), ("openat", (0, 0, 0x41), "O_CREAT"), ("openat", (0, 0, 2), "O_RDWR"),
    ("openat", (0, 0, 0x410000 | 2), "O_TMPFILE"), ("openat", (0, 0, 0x200), "O_TRUNC"),
]  # fmt: skip


@pytest.mark.parametrize("architecture", BOTH)
@pytest.mark.parametrize(("name", "arguments", "what"), DEEDS, ids=[f"{name} {what}" for name, _, what in DEEDS])
def test_what_is_refused(architecture: str, name: str, arguments: tuple[int, ...], what: str) -> None:
    assert verdict(architecture, name, *arguments) == EPERM


NEEDED = [
    ("fcntl", (3, 1)), ("fcntl", (3, 1030, 3)), ("fcntl", (3, 4, 0x802)), ("ioctl", (3, 0x5421, 4096)), ("read", (3, 0, 99)),
    ("mmap", (0, 4096, 3, 0x22, HIGH - 1, 0)), ("mmap", (0, 4096, 5, 0x802, 3, 0)), ("mprotect", (4096, 4096, 1)),
    ("mprotect", (4096, 4096, 3)), ("madvise", (0, 4096, 4)), ("sendto", (3, 0, 9, 0x4000, 0, 0)), ("recvfrom", (3, 0, 9, 0, 0, 0)),
    ("futex", (0, 128)), ("futex", (0, 9 | 128 | 256)), ("clock_gettime", (1,)), ("openat", (HIGH - 100, 0, 0x80000)), ("exit_group", (0,)),
]  # fmt: skip


@pytest.mark.parametrize("architecture", BOTH)
@pytest.mark.parametrize(("name", "arguments"), NEEDED)
def test_what_python_needs(architecture: str, name: str, arguments: tuple[int, ...]) -> None:
    assert verdict(architecture, name, *arguments) == ALLOW


def test_calls_that_reach_others_have_no_place_in_the_table() -> None:
    names = {one.name for one in CALLS}
    assert not names & {
        "kill", "tkill", "tgkill", "rt_sigqueueinfo", "pidfd_open", "pidfd_send_signal", "pidfd_getfd", "ptrace", "process_vm_readv",
        "process_vm_writev", "process_madvise", "clone", "clone3", "fork", "vfork", "execve", "execveat", "unshare", "setns", "socket",
        "socketpair", "connect", "bind", "accept4", "sendmsg", "sendmmsg", "recvmsg", "recvmmsg", "setsockopt", "memfd_create",
        "userfaultfd", "io_uring_setup", "bpf", "perf_event_open", "prctl", "arch_prctl", "seccomp", "prlimit64", "setrlimit",
        "setpriority", "sched_setaffinity", "sched_setscheduler", "ioprio_set", "timer_create", "setitimer", "keyctl", "mount", "membarrier",
        "inotify_init1", "eventfd2", "pipe2", "flock", "shmget", "msgget", "semget", "mq_open", "kcmp", "open_by_handle_at", "readlink", "readlinkat",
    }  # fmt: skip
    assert len(names) == len(CALLS)
